"""Scores of models that differ only in the seed of their training: mean and standard deviation over seeds.

The deviation is over trainings on the same spots (n - 1): how much of a score is luck of the seed. It says nothing
about other patients; that is what the interval is for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raystp.evaluate.metrics.cases import CASES
from raystp.evaluate.metrics.score import MEAN, ScoreRow


@dataclass(frozen=True)
class SeedScore:
    """One score over seeds, in the columns of `SEEDS`."""

    protocol: str
    panel: str
    model: str
    """Name of the models as one: `<method>, mean of <n> seeds`."""
    section: str
    genes: str
    metric: str
    mean: float
    sd: float
    seeds: int


def group_names(methods: Mapping[str, str], groups: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the name of each group of models that differ only in their seed -> its models.

    `methods` is model -> method. A method with several groups is named by the first model of each.
    """
    first = [methods[group[0]] for group in groups]
    names = [method if first.count(method) == 1 else group[0] for method, group in zip(first, groups, strict=True)]
    return {f"{name}, mean of {len(group)} seeds": tuple(group) for name, group in zip(names, groups, strict=True)}


def seed_scores(rows: Sequence[ScoreRow], groups: Mapping[str, Sequence[str]]) -> list[SeedScore]:
    """Return mean and deviation of every score that all models of a group have."""
    found = []
    for name, models in groups.items():
        by_score: dict[tuple[str, str, str], list[ScoreRow]] = {}
        for row in rows:
            if row.model in models:
                by_score.setdefault((row.section, row.genes, row.metric), []).append(row)
        for own in by_score.values():
            if len(own) == len(models):
                values, one = [row.value for row in own], own[0]
                key = (one.protocol, one.panel, name, one.section, one.genes, one.metric)
                found.append(SeedScore(*key, float(np.mean(values)), float(np.std(values, ddof=1)), len(values)))
    return found


def seed_rows(scores: Sequence[SeedScore]) -> list[ScoreRow]:
    """Return the means over seeds as rows of the scores table, without interval and null."""
    return [
        ScoreRow(one.protocol, one.panel, one.model, one.section, one.genes, one.metric, one.mean) for one in scores
    ]


def seed_lines(scores: Sequence[SeedScore]) -> list[str]:
    """Return a sentence on the PCC of each group: its mean and deviation for each gene set."""
    groups: dict[str, list[SeedScore]] = {}
    for one in scores:
        if one.metric == "PCC" and one.section in {MEAN, CASES}:
            groups.setdefault(one.model, []).append(one)
    return [
        f"`{model}`: PCC {', '.join(f'{one.genes} {one.mean:.3f} (sd {one.sd:.3f})' for one in found)}; "
        "sd over seeds, which says nothing about other patients."
        for model, found in groups.items()
    ]
