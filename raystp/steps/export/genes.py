"""Which genes of a prediction are exported."""

import csv
import io
import json
from collections.abc import Sequence

from raystp.artifacts import Artifact, open_artifact
from raystp.errors import ConfigError, some
from raystp.interop.outputs.slide import SlideExpression, most_variable
from raystp.steps.export.config import ExportConfig
from raystp.steps.export.expression import model_name

FEW = 20
"""Genes of a format that shows a few."""


def listed_genes(config: ExportConfig, predictions: Artifact, evaluation: Artifact | None) -> list[str] | None:
    """Return the genes that are asked for, by name or by their held-out scores; None where neither is given.

    Raises ConfigError for a gene that is not predicted, and for an evaluation without scores of this model.
    """
    predicted = _predicted_genes(predictions)
    if config.genes is not None:
        if predicted is not None and (unknown := [gene for gene in config.genes if gene not in set(predicted)]):
            msg = f"genes: {predictions.path} has no prediction of {some(unknown)}; it has {len(predicted)} genes, "
            raise ConfigError(msg + some(predicted))
        return list(config.genes)
    if evaluation is None:
        return None
    scored = best_genes(evaluation, predictions)
    return [gene for gene in scored if predicted is None or gene in set(predicted)][:FEW]


def _predicted_genes(predictions: Artifact) -> list[str] | None:
    """Return the genes that are predicted; None where the model is no longer in the store."""
    chosen: list[str] | None = predictions.manifest.config.get("genes")
    model = predictions.noted(predictions.manifest.inputs["model"]) / "model.json"
    if chosen is not None or not model.exists():
        return chosen
    found: list[str] = json.loads(model.read_bytes())["genes"]
    return found


def best_genes(evaluation: Artifact, predictions: Artifact) -> list[str]:
    """Return the genes that have a PCC in an evaluation of the same model, the greatest first.

    Raises ConfigError for an evaluation of other models.
    """
    file = evaluation.path / "genes.csv"
    if not file.exists():
        msg = f"evaluation: {evaluation.path} has no genes.csv: run `raystp evaluate` again, or list `genes`"
        raise ConfigError(msg)
    _check_same_model(evaluation, predictions)
    rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode())))
    names = {str(predictions.manifest.notes["kind"]), model_name(predictions)}
    of_model = [row for row in rows if row["model"] in names and row["pcc"]]
    if not of_model:
        msg = f"evaluation: {file} has no scores of {some(sorted(names))}: give another evaluation, or list `genes`"
        raise ConfigError(msg)
    return [row["gene"] for row in sorted(of_model, key=lambda row: -float(row["pcc"]))]


def few_genes(slide: SlideExpression) -> tuple[list[str], list[str]]:
    """Return the genes that vary most on a slide, and a note that says so; all, without a note, where there are few."""
    if len(slide.genes) <= FEW:
        return list(slide.genes), []
    note = f"has the {FEW} genes whose prediction varies most here; list `genes`, or give an `evaluation`, for others"
    return most_variable(slide, FEW), [note]


def _check_same_model(evaluation: Artifact, predictions: Artifact) -> None:
    """Raise ConfigError unless one of the scored predictions is of the same model."""
    model, store = predictions.manifest.inputs["model"], evaluation.path.parent.parent
    scored: Sequence[str] = [
        folder for role, folder in evaluation.manifest.inputs.items() if role.startswith("prediction ")
    ]
    models = [open_artifact(store / one, "impute").manifest.inputs["model"] for one in scored if (store / one).exists()]
    if model not in models:
        msg = f"evaluation: {evaluation.path} scores {some(models)}, and {predictions.path} is of {model}: give another"
        raise ConfigError(msg)
