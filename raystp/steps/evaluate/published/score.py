"""Score the predictions of all folds under a published protocol: checks, scores, tables, report."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from raystp.artifacts import Artifact
from raystp.errors import some
from raystp.evaluate.metrics.score import ScoreLabel, ScoreRow
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.evaluate.published.protocol import FoldOutcome, ProtocolScores, PublishedProtocol
from raystp.evaluate.published.registry import published_protocol
from raystp.evaluate.report.document import Report
from raystp.models.methods import REFERENCE
from raystp.steps.evaluate.predictions import retrieval_of
from raystp.steps.evaluate.published.checks import check_fit
from raystp.steps.evaluate.published.folds import FoldedModel, open_folds
from raystp.steps.evaluate.published.outcomes import fold_outcomes, scored_spots, unscored
from raystp.steps.evaluate.published.tables import figure_rows, genes_csv, protocol_csv, protocol_text, score_rows
from raystp.steps.evaluate.report import Evaluation, manifests_of, training_curves
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig
from raystp.storage import StoragePath
from raystp.versions import installed_version

SIDES = ("train", "validation", "test")


def evaluate_published(config: SpotsEvaluateConfig, spots: Artifact, predictions: Sequence[Artifact]) -> Evaluation:
    """Return the protocol's scores of each model; raises ConfigError for a run that does not fit the protocol."""
    protocol = published_protocol(str(config.protocol))
    models = open_folds(predictions, config.run.store)
    check_fit(protocol, spots, models)
    outcomes = {one.name: fold_outcomes(protocol, spots, one) for one in models}
    scores = {name: protocol.score(folds) for name, folds in outcomes.items()}
    panel, numbers = models[0].folds[0].label().panel, models[0].numbers
    rows: list[ScoreRow] = []
    for name, folds in outcomes.items():
        label = ScoreLabel(protocol.name, panel, name)
        rows += score_rows(label, scores[name], {fold.number: scored_spots(fold) for fold in folds})
    notes = _notes(protocol, models, outcomes, scores, store=StoragePath.of(config.run.store))
    return Evaluation(
        rows,
        "\n".join([protocol_text(protocol, scores, numbers, panel=panel), "", *notes]),
        [],
        _report(protocol, spots, models, [*rows, *figure_rows(protocol, panel)], scores=scores, notes=notes),
        cohort=spots.manifest.name,
        files={
            "protocol.csv": protocol_csv(protocol, scores, numbers),
            "genes.csv": genes_csv(scores, numbers, genes=models[0].genes),
        },
    )


def _notes(
    protocol: PublishedProtocol,
    models: Sequence[FoldedModel],
    outcomes: Mapping[str, Sequence[FoldOutcome]],
    scores: Mapping[str, ProtocolScores],
    *,
    store: StoragePath,
) -> list[str]:
    """Return what limits the comparison with the published figures, one sentence each."""
    first = next(iter(outcomes.values()))
    tested = sorted({one.section for fold in first for one in fold.sections})
    notes = [f"leak: {protocol.leak}", *(f"differs from the publication: {one}" for one in protocol.differs)]
    used = sections_used(models)
    if is_of_other_data(protocol, used):
        count = protocol.sections_published
        notes.append(
            f"this run tests {len(tested)} sections; the figures are of data with {count}: do not compare them."
        )
    if protocol.figures and protocol.sections_published is None:
        patients = len({one.patient for fold in first for one in fold.sections})
        notes.append(
            f"this run tests {len(tested)} sections of {patients} patients; compare it with the same data only."
        )
    if protocol.given_folds and (untested := sorted(used - set(tested))):
        notes.append(f"no fold tests {some(untested)}: the mean is over the folds that were given.")
    if lost := unscored(first):
        listed = ", ".join(f"{name}: {count}" for name, count in lost.items())
        notes.append(f"spots without a prediction are not scored ({listed}).")
    kind = protocol.method.get("model")
    others = [one.name for one in models if kind and one.folds[0].model.manifest.config.get("model") != kind]
    if others:
        notes.append(f"{protocol.name} compares image encoders by `{kind}`; {', '.join(others)} is another method.")
    notes += [*_validated(models), *_retrieved(protocol, models, store)]
    notes += [f"{name}: {note}." for name, one in scores.items() for note in one.notes]
    notes += [f"{package} {installed_version(package)}." for package in protocol.packages]
    return notes


def _validated(models: Sequence[FoldedModel]) -> list[str]:
    """Return a sentence per model that held back a part of the training side to choose its epoch."""
    return [
        f"{one.name}: a part of the training sections chose the epoch and was not trained on."
        for one in models
        if any(fold.meta["validation"] or fold.meta.get("validation_block") for fold in one.folds)
    ]


def _retrieved(protocol: PublishedProtocol, models: Sequence[FoldedModel], store: StoragePath) -> list[str]:
    """Return a sentence per model that averages other neighbours than the publication."""
    notes = []
    for one in models if protocol.retrieval else []:
        first = one.folds[0].prediction
        if "index" not in first.manifest.inputs:
            continue
        own = asdict(retrieval_of(first, store))
        other = [
            f"{key}={own[key]}, published {value}" for key, value in protocol.retrieval.items() if own[key] != value
        ]
        if other:
            notes.append(f"{one.name}: retrieval differs from the publication: {'; '.join(other)}.")
    return notes


def _report(
    protocol: PublishedProtocol,
    spots: Artifact,
    models: Sequence[FoldedModel],
    rows: Sequence[ScoreRow],
    *,
    scores: Mapping[str, ProtocolScores],
    notes: Sequence[str],
) -> Report:
    first, names = models[0], [one.name for one in models]
    sources = {"spots": spots}
    for one in first.folds:
        sources |= {f"{one.name}, prediction": one.prediction, f"{one.name}, model": one.model}
    tested = sorted({name for one in first.folds for name in one.meta["test"]})
    return Report(
        title=f"{protocol.name}: {', '.join(names)}",
        protocol=described(protocol),
        model=first.name,
        against=REFERENCE if REFERENCE in names else names[-1],
        trained=[f"the other side of each of {len(first.folds)} folds"],
        tested=tested,
        interval="",
        headline=headline(protocol, scores, other_data=is_of_other_data(protocol, sections_used(models))),
        rows=rows,
        footnotes=notes,
        curves=training_curves(first.folds),
        manifests=manifests_of(sources),
    )


def sections_used(models: Sequence[FoldedModel]) -> set[str]:
    """Return the sections of all sides of the folds."""
    return {name for one in models[0].folds for side in SIDES for name in one.meta[side]}


def is_of_other_data(protocol: PublishedProtocol, used: Collection[str]) -> bool:
    """Return whether the published figures are of another number of sections than a run."""
    return protocol.sections_published is not None and len(used) != protocol.sections_published


def headline(
    protocol: PublishedProtocol, scores: Mapping[str, ProtocolScores], *, other_data: bool = False
) -> tuple[str, str]:
    """Return the best model's score by the protocol's first metric, and the range of the figures published under it.

    Figures of other data are not stated beside it.
    """
    metric = next(iter(next(iter(scores.values())).overall))
    name, best = max(scores.items(), key=lambda one: np.nan_to_num(one[1].overall[metric], nan=-np.inf))
    value = f"{best.overall[metric]:.3f}" if np.isfinite(best.overall[metric]) else "n/a"
    folds = f"{len(best.folds)} folds, sd {best.sd[metric]:.3f}" if len(best.folds) > 1 else "one fold"
    known = sorted((one.values[metric], one.method, one.data) for one in protocol.figures if metric in one.values)
    claim = f"{name}: {metric} {value} under {protocol.name}"
    if not known:
        return claim, f"{folds}; raystp knows no figure published under this protocol."
    if other_data:
        return claim, f"{folds}; the figures published under this protocol are of other data: do not compare them."
    (low, worst, data), (high, top, other) = known[0], known[-1]
    published = f"{low:.3f} ({worst}, {data}) to {high:.3f} ({top}, {other})"
    return claim, f"{folds}; published under this protocol: {published}."


def described(protocol: PublishedProtocol) -> EvaluationProtocol:
    """Return a published protocol as a report describes it."""
    return EvaluationProtocol(
        name=protocol.name,
        split=protocol.split,
        same_patient="refuse" if protocol.split == "patient" else "allow",
        description=protocol.description,
        leak=protocol.leak,
    )
