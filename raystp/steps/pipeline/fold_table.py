"""The table of a pipeline's folds, from the evaluation of each fold."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact
from raystp.evaluate.metrics.cases import CASES, TOP
from raystp.evaluate.metrics.folds import CrossValidatedScore, Key, fold_scores, top_of_other_folds
from raystp.evaluate.metrics.score import MEAN
from raystp.steps.pipeline.folds import Fold

TOP_OF_OTHERS = f"top-{TOP} (picked on other folds)"


def scores_of_folds(evaluations: Mapping[int, Artifact], folds: Sequence[Fold]) -> list[CrossValidatedScore]:
    """Return each score over the folds; of spots the mean over a fold's sections, of cases the score over its cases."""
    found = fold_scores([_scores(evaluations[fold.number], fold) for fold in folds])
    return [*found, *_top(evaluations, folds)]


def _scores(evaluation: Artifact, fold: Fold) -> dict[Key, float]:
    rows = evaluation.table("scores.parquet", tables.SCORES).to_pylist()
    return {
        (_whole(row["model"], fold), row["metric"], row["genes"]): float(row["value"])
        for row in rows
        if row["section"] in {MEAN, CASES}
    }


def _top(evaluations: Mapping[int, Artifact], folds: Sequence[Fold]) -> list[CrossValidatedScore]:
    """Return the PCC of the best genes of the other folds, where a panel has more genes than that."""
    pcc = [_gene_pcc(evaluations[fold.number], fold) for fold in folds]
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
    return model.removesuffix(f"-fold{fold.number}")
