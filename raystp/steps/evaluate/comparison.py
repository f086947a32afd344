"""Paired differences between the models of an evaluation; models that differ only in their seed are one of them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pyarrow as pa

from raystp import tables
from raystp.evaluate.comparison.differences import PairedDifference, case_pair, paired_differences
from raystp.evaluate.comparison.entries import ComparedModel, Outcomes, PairScorer, pairs_to_compare
from raystp.evaluate.comparison.report import comparison_parts
from raystp.evaluate.comparison.seeds import SeedScore, group_names, seed_lines, seed_scores
from raystp.evaluate.comparison.text import comparison_notes, comparison_text
from raystp.evaluate.metrics.cases import CASES, CaseOutcome, case_scores
from raystp.evaluate.metrics.genes import GeneSets
from raystp.evaluate.metrics.score import ModelScores, ScoreRow
from raystp.evaluate.report.parts import ReportTable
from raystp.evaluate.tables import COMPARISON, SEEDS
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.predictions import Prediction, retrieval_of
from raystp.storage import StoragePath


@dataclass(frozen=True)
class ModelComparison:
    """Differences between an evaluation's models, and how to read them."""

    differences: list[PairedDifference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seeds: list[SeedScore] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The differences as aligned text, and a sentence on each group of seeds."""
        parts = [comparison_text(self.differences), "\n".join([*self.notes, *seed_lines(self.seeds)])]
        return "\n\n".join(part for part in parts if part)

    @property
    def parts(self) -> list[ReportTable]:
        """The tables of the report."""
        return comparison_parts(self.differences, self.notes, self.seeds)

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The tables to write, by file: differences, and scores over seeds where models have several."""
        found = {"comparison.parquet": tables.of_rows([asdict(row) for row in self.differences], COMPARISON)}
        if self.seeds:
            found["seeds.parquet"] = tables.of_rows([asdict(row) for row in self.seeds], SEEDS)
        return found


def seed_groups(models: Sequence[Prediction], store: str) -> dict[str, tuple[str, ...]]:
    """Return the models that differ only in the seed of their training: the name of a group -> its models."""
    groups: dict[str, list[Prediction]] = {}
    for one in models:
        groups.setdefault(_without_seed(one, store), []).append(one)
    found = [group for group in groups.values() if len({_seed(one) for one in group}) == len(group) > 1]
    methods = {one.name: str(one.model.manifest.config["model"]) for one in models}
    return group_names(methods, [[one.name for one in group] for group in found])


def compare_spots(
    config: EvaluateConfig,
    models: Sequence[Prediction],
    scored: Mapping[str, tuple[Outcomes, ModelScores]],
    sets: GeneSets,
    *,
    rows: Sequence[ScoreRow],
) -> ModelComparison:
    """Compare each pair of models, and the first model with each control, by their mean over sections.

    `scored` has the outcomes and scores of models and controls, `rows` the same as rows of the scores table.
    """
    seeds = seed_groups(models, config.run.store)
    scorer = PairScorer(sets, config.seed, config.draws)
    members = _entries([*scored], seeds)
    entries = {
        name: ComparedModel(name, [scored[one][0] for one in own], [scored[one][1] for one in own])
        for name, own in members.items()
    }
    pairs = [
        replace(pair, control=control)
        for one, other, control in _pairs(models, members)
        if (pair := scorer.pair(entries[one], entries[other])) is not None
    ]
    label, rng = models[0].label(), np.random.default_rng(config.seed)
    found = paired_differences(pairs, sets, where=(label.protocol, label.panel), rng=rng)
    return ModelComparison(found, comparison_notes(found, config.draws), seed_scores(rows, seeds))


def compare_cases(
    config: EvaluateConfig,
    models: Sequence[Prediction],
    scored: Mapping[str, CaseOutcome],
    sets: GeneSets,
    *,
    rows: Sequence[ScoreRow],
) -> ModelComparison:
    """Compare each pair of models, and the first model with each control, by their scores over cases."""
    scores = {
        name: case_scores(one, sets, rng=np.random.default_rng(config.seed), draws=config.draws)
        for name, one in scored.items()
    }
    pairs = [
        replace(case_pair((one, other), (scores[one], scores[other]), list(scored[one].patients)), control=control)
        for one, other, control in _pairs(models, _entries([*scored], {}))
    ]
    label, rng = models[0].label(), np.random.default_rng(config.seed)
    found = paired_differences(pairs, sets, where=(label.protocol, label.panel), section=CASES, rng=rng)
    seeds = seed_scores(rows, seed_groups(models, config.run.store))
    return ModelComparison(found, comparison_notes(found, config.draws), seeds)


def _entries(names: Sequence[str], seeds: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return what is compared -> its models; models that differ only in their seed take the place of the first."""
    group_of = {member: group for group, members in seeds.items() for member in members}
    return {group_of.get(name, name): seeds.get(group_of.get(name, name), (name,)) for name in names}


def _pairs(models: Sequence[Prediction], entries: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str, bool]]:
    """Return what is compared, and whether the second is a control."""
    names = {one.name for one in models}
    own = [name for name, members in entries.items() if members[0] in names]
    controls = [name for name in entries if name not in own]
    return [(one, other, other in controls) for one, other in pairs_to_compare(own, controls)]


def _without_seed(one: Prediction, store: str) -> str:
    """Return all that a prediction depends on but names and the seed: equal for models that differ only in it."""
    config = {**one.model.manifest.config, "name": ""}
    config["fit"] = {**config["fit"], "seed": 0}
    retrieval = dataclasses.asdict(retrieval_of(one.prediction, StoragePath.of(store)))
    return json.dumps([config, one.model.manifest.inputs, retrieval], sort_keys=True, default=str)


def _seed(one: Prediction) -> int:
    return int(one.model.manifest.config["fit"]["seed"])
