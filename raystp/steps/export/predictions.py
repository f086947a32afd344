"""Write the predicted expression of one slide as files of another tool, in a Ray worker."""

from dataclasses import dataclass

from raystp.artifacts import Artifact, open_artifact, resolve
from raystp.errors import ConfigError, failure_as_reason
from raystp.interop.outputs.registry import write_slide
from raystp.interop.outputs.slide import OutputOptions
from raystp.steps.export.config import ExportConfig
from raystp.steps.export.expression import open_expression
from raystp.steps.export.features import Exported
from raystp.steps.export.genes import few_genes, listed_genes
from raystp.storage import StoragePath

FEW_GENES = ("qupath",)
"""Formats that show a few genes unless others are listed."""


@dataclass(frozen=True)
class PredictionTask:
    """One predicted slide to export."""

    slide: str
    predictions: Artifact
    config: ExportConfig
    genes: list[str] | None
    """The chosen genes; None for the format's own choice."""


def open_predictions(store: str, reference: str) -> Artifact:
    """Open the artifact of `impute` that a config names, by itself or through one of `predict`.

    Raises ArtifactError where there is none, ConfigError where it holds no expression.
    """
    step = reference.partition("/")[0]
    if step not in {"impute", "predict"}:
        step = StoragePath.of(reference).parent.name
    found = resolve(store, reference, "predict" if step == "predict" else "impute")
    if found.manifest.step == "predict":
        inputs = found.manifest.inputs
        if "predictions" not in inputs:
            msg = f"artifact: no slide of {found.path} has a prediction; see its failures"
            raise ConfigError(msg)
        found = open_artifact(found.noted(inputs["predictions"]), "impute")
    if found.manifest.notes["output"] != "dense":
        msg = (
            f"artifact: {found.path} holds neighbours and no expression: run `raystp impute` with "
            f"neighbours=impute/{found.manifest.name}, then export that"
        )
        raise ConfigError(msg)
    return found


def prediction_tasks(predictions: Artifact, config: ExportConfig, evaluation: Artifact | None) -> list[PredictionTask]:
    """Return a task for each predicted slide; raises ConfigError for genes or an evaluation that do not fit."""
    genes = listed_genes(config, predictions, evaluation)
    return [PredictionTask(slide, predictions, config, genes) for slide in predictions.manifest.notes["slides"]]


@failure_as_reason
def export_prediction(task: PredictionTask) -> Exported:
    """Write one slide; a failure is returned as its reason."""
    config = task.config
    notes: list[str] = []
    with open_expression(task.predictions, task.slide, vectors=config.embeddings) as slide:
        genes = task.genes
        if genes is None and config.format in FEW_GENES:
            genes, notes = few_genes(slide)
        chosen = slide if genes is None else slide.select(genes)
        options = OutputOptions(x=config.x, ngff=config.ngff, measurements=config.measurements)
        written = write_slide(config.format, chosen, StoragePath.of(config.out), options)
    return Exported(task.slide, len(chosen.tiles), chosen.encoder, (*notes, *written))
