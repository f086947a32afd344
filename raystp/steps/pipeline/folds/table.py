"""The table of a pipeline's folds, from the evaluation of each fold."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact
from raystp.evaluate.comparison.differences import PairedDifference
from raystp.evaluate.comparison.fold_differences import FoldParts, fold_differences
from raystp.evaluate.metrics.cases import CASES, TOP
from raystp.evaluate.metrics.folds import CrossValidatedScore, Key, fold_scores, mean_interval, top_of_other_folds
from raystp.evaluate.metrics.intervals import FEWEST_UNITS, interval_kind
from raystp.evaluate.metrics.score import MEAN
from raystp.evaluate.tables import COMPARISON
from raystp.steps.pipeline.folds.fold import Fold

TOP_OF_OTHERS = f"top-{TOP} (picked on other folds)"


def scores_of_folds(
    evaluations: Sequence[Artifact], folds: Sequence[Fold], patients: Mapping[str, str]
) -> list[CrossValidatedScore]:
    """Return each score over the folds; of spots the mean over a fold's sections, of cases the score over its cases.

    `patients` is section -> patient, empty for cases. Intervals are over patients (or sections), of cases over folds.
    """
    rows = [one.table("scores.parquet", tables.SCORES).to_pylist() for one in evaluations]
    whole = [_values(found, fold, lambda name: name in {MEAN, CASES}) for found, fold in zip(rows, folds, strict=True)]
    parts = [_values(found, fold, patients.__contains__) for found, fold in zip(rows, folds, strict=True)]
    scores = fold_scores([{key: next(iter(values.values())) for key, values in fold.items()} for fold in whole])
    return [replace(one, interval=_interval(one, parts, patients)) for one in [*scores, *_top(evaluations, folds)]]


def differences_of_folds(
    evaluations: Sequence[Artifact], folds: Sequence[Fold], patients: Mapping[str, str]
) -> list[PairedDifference]:
    """Return the paired differences between models over all folds, of the pairs that the evaluations compare.

    `patients` is section -> patient, empty for cases. Nothing for evaluations of an earlier version.
    """
    scores: dict[str, dict[str, dict[tuple[str, str], float]]] = {}
    pairs: dict[tuple[str, str], bool] = {}
    unit_of: dict[str, str] = {}
    where = ("", "", "")
    for one, fold in zip(evaluations, folds, strict=True):
        if not (one.path / "comparison.parquet").exists():
            return []
        for row in one.table("comparison.parquet", COMPARISON).to_pylist():
            pairs[_whole(row["model"], fold), _whole(row["against"], fold)] = row["control"]
            where = (row["protocol"], row["panel"], row["section"])
        for row in one.table("scores.parquet", tables.SCORES).to_pylist():
            if row["section"] in patients or row["section"] == CASES:
                part = f"fold {fold.number}, {row['section']}"
                unit_of[part] = patients.get(row["section"], f"fold {fold.number}")
                values = scores.setdefault(_whole(row["model"], fold), {}).setdefault(part, {})
                values[row["metric"], row["genes"]] = float(row["value"])
    parts = FoldParts(unit_of, None if patients else "folds")
    return fold_differences(scores, pairs, parts, where=where)


def interval_of_folds(folds: Sequence[Fold], patients: Mapping[str, str]) -> str:
    """Return what the intervals are over: patients, sections or folds; empty for fewer than three of them."""
    if not patients:
        return "over folds" if len(folds) >= FEWEST_UNITS else ""
    tested = [
        patient for section, patient in patients.items() if any({section, patient} & {*one.test} for one in folds)
    ]
    kind = interval_kind(tested)
    return "" if kind == "within section" else kind


def _interval(
    score: CrossValidatedScore, parts: Sequence[Mapping[Key, Mapping[str, float]]], patients: Mapping[str, str]
) -> tuple[float, float] | None:
    key = (score.model, score.metric, score.genes)
    found = [(fold, name, value) for fold, one in enumerate(parts) for name, value in one.get(key, {}).items()]
    if not found:  # cases, of whom a fold has one score
        found = [(fold, f"fold {fold}", value) for fold, value in enumerate(score.values)]
    units = [patients.get(name, name) for _, name, _ in found]
    return mean_interval(np.array([value for *_, value in found]), np.array([fold for fold, *_ in found]), units)


def _values(
    rows: Sequence[Mapping[str, Any]], fold: Fold, chosen: Callable[[str], bool]
) -> dict[Key, dict[str, float]]:
    """Return score -> section -> value, of the rows of these sections."""
    found: dict[Key, dict[str, float]] = {}
    for row in rows:
        if chosen(row["section"]):
            key = (_whole(row["model"], fold), row["metric"], row["genes"])
            found.setdefault(key, {})[row["section"]] = float(row["value"])
    return found


def _top(evaluations: Sequence[Artifact], folds: Sequence[Fold]) -> list[CrossValidatedScore]:
    """Return the PCC of the best genes of the other folds, where a panel has more genes than that."""
    pcc = [_gene_pcc(one, fold) for one, fold in zip(evaluations, folds, strict=True)]
    found = []
    for model in dict.fromkeys(model for fold in pcc for model in fold):
        genes = sorted({gene for fold in pcc for gene in fold.get(model, {})})
        if len(genes) <= TOP:
            continue
        values = np.array([[fold.get(model, {}).get(gene, np.nan) for gene in genes] for fold in pcc])
        found.append(
            CrossValidatedScore(model, "PCC", TOP_OF_OTHERS, tuple(top_of_other_folds(values, genes, TOP).tolist()))
        )
    return found


def _gene_pcc(evaluation: Artifact, fold: Fold) -> dict[str, dict[str, float]]:
    """Return model -> gene -> PCC over cases; nothing for spots, whose table has means over sections."""
    file = evaluation.path / "genes.csv"
    found: dict[str, dict[str, float]] = {}
    if file.exists():
        for row in csv.DictReader(io.StringIO(file.read_bytes().decode())):
            if CASES not in row:
                return {}
            value = float(row["pcc"]) if row["pcc"] else float(np.nan)
            found.setdefault(_whole(row["model"], fold), {})[row["gene"]] = value
    return found


def _whole(model: str, fold: Fold) -> str:
    """Return a model's name without the fold: models of one method are named by their artifacts."""
    name, comma, rest = model.partition(",")  # of several seeds as one: `<name>, mean of 3 seeds`
    return name.removesuffix(f"-fold{fold.number}") + comma + rest
