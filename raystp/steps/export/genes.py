"""Which genes of a prediction are exported."""

import csv
import io
from collections.abc import Sequence

from raystp.artifacts import Artifact, open_artifact, resolve
from raystp.errors import ConfigError, some
from raystp.interop.outputs.slide import SlideExpression, most_variable
from raystp.steps.export.config import ExportConfig
from raystp.steps.export.expression import model_name

FEW = 20
"""Genes of a format that shows a few."""


def listed_genes(config: ExportConfig, predictions: Artifact) -> list[str] | None:
    """Return the genes that are asked for, by name or by their held-out scores; None where neither is given.

    Raises ConfigError for a gene that is not predicted, and for an evaluation without scores of this model.
    """
    if config.genes is not None:
        return list(config.genes)
    if config.evaluation is None:
        return None
    return best_genes(resolve(config.run.store, config.evaluation, "evaluate"), predictions, FEW)


def best_genes(evaluation: Artifact, predictions: Artifact, count: int) -> list[str]:
    """Return the genes with the greatest PCC in an evaluation of the same model, the best first."""
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
    return [row["gene"] for row in sorted(of_model, key=lambda row: -float(row["pcc"]))[:count]]


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
