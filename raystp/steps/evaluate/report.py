"""Parts of the report that spots and cases share: artifacts, training curves, thumbnails, predicted slides."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raystp import tables
from raystp.artifacts import Artifact, Manifest, open_artifact
from raystp.evaluate.metrics.score import MEAN, ScoreRow
from raystp.evaluate.report import charts
from raystp.evaluate.report.document import Report
from raystp.evaluate.report.parts import ReportChart, ReportTable
from raystp.evaluate.report.score_tables import score_tables
from raystp.evaluate.report.viewer.content import SlideThumbnail
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.impute.tiles import thumbnail_of
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

_URI_QUERY = re.compile(r"""([a-z][a-z0-9+.-]*://[^"?\s]*)\?[^"\s]*""")


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation, for spots and for cases."""

    rows: list[ScoreRow]
    text: str
    """The scores as an aligned table."""
    notes: list[str]
    """Explanations below the table."""
    report: Report
    cohort: str
    """Name of the MLflow experiment by default."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Further text files: name -> content."""
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    """Further tables as parquet: name -> table."""
    failures: list[dict[str, object]] = field(default_factory=list)
    """Sections that could not be scored: rows of `tables.FAILURES`."""
    warnings: Mapping[str, list[str]] = field(default_factory=dict)
    """Section -> what limits its scores."""


def csv_files(stored: Mapping[str, pa.Table]) -> dict[str, str]:
    """Return tables that are stored as parquet as CSV files: name -> content."""
    return {name.replace(".parquet", ".csv"): tables.csv_text(table) for name, table in stored.items()}


def source_artifacts(first: Prediction, store: str) -> dict[str, Artifact]:
    """Return the artifacts that the first model's scores come from, by role."""
    sources = {"prediction": first.prediction, "model": first.model}
    for role, folder in first.prediction.manifest.inputs.items():
        step = "index" if role == "index" else "embed"
        if role == "index" or role.startswith("embeddings"):
            sources[role] = open_artifact(StoragePath.of(store) / folder, step)
    if "completed" in first.model.manifest.inputs:
        sources["completed labels"] = open_artifact(
            StoragePath.of(store) / first.model.manifest.inputs["completed"], "complete"
        )
    embed = sources["embeddings"]
    sources["tiles"] = open_artifact(embed.noted(embed.manifest.notes["tiles"]), "tile")
    return sources


def failures_of(sources: Mapping[str, Artifact]) -> list[dict[str, str]]:
    """Return the rows of the artifacts' failures tables."""
    return [row for one in sources.values() for row in one.failures().to_pylist()]


def manifests_of(sources: Mapping[str, Artifact]) -> dict[str, dict[str, object]]:
    """Return the manifests without the queries of URIs, which may hold credentials: reports are shared."""
    return {role: json.loads(_URI_QUERY.sub(r"\1", json.dumps(asdict(one.manifest)))) for role, one in sources.items()}


def score_charts(rows: Sequence[ScoreRow], model: str, section: str = MEAN) -> list[ReportChart]:
    """Draw the scores, charts per panel; `model` is highlighted."""
    return [chart for table in score_tables(rows, section) for chart in charts.score_charts(table, model)]


def training_curves(models: Sequence[Prediction]) -> list[ReportChart]:
    """Draw loss and validation PCC by epoch, of the models that were trained in epochs."""
    epochs = {one.name: one.model.table("epochs.parquet", tables.EPOCHS).to_pylist() for one in models}
    return charts.curve_charts({name: rows for name, rows in epochs.items() if rows})


def work_done(models: Sequence[Prediction], sources: Mapping[str, Artifact]) -> list[ReportTable]:
    """Return what each step made, how long it took and how fast it was, from the manifests of all models."""
    made = {one.path.uri: one for role, one in sources.items() if role not in {"prediction", "model"}}
    made |= {one.path.uri: one for model in models for one in (model.model, model.prediction)}
    return [work_table(list(made.values()))]


def work_table(artifacts: Sequence[Artifact]) -> ReportTable:
    """Return what each artifact holds and how fast it was made, in the order in which they were finished."""
    rows = [_work_row(one.manifest) for one in sorted(artifacts, key=lambda one: one.manifest.created)]
    note = "Time and rate are those of the run that made the artifact; steps that record none show a dash."
    return ReportTable("What each step made", ("step", "artifact", "made", "time", "rate", "finished"), rows, note)


def _work_row(manifest: Manifest) -> tuple[str, ...]:
    seconds = manifest.statistics.get("seconds")
    rates = [
        f"{value:,.4g} {key.removesuffix('_per_s').replace('_', ' ')}/s"
        for key, value in manifest.statistics.items()
        if key.endswith("_per_s")
    ]
    counts = ", ".join(
        f"{count:,} {name.removesuffix('s') if count == 1 else name}" for name, count in manifest.rows.items() if count
    )
    took = "–" if seconds is None else f"{seconds:,.1f} s"
    finished = manifest.created.replace("T", " ")[:16]
    return manifest.step, manifest.name, counts, took, ", ".join(rates) or "–", finished


def slide_thumbnail(embed: Artifact, slide: str) -> SlideThumbnail:
    """Return a slide's small image and its size in level-0 px."""
    overview = thumbnail_of(embed, slide)
    height, width = overview.pixels.shape[:2]
    return SlideThumbnail(overview.pixels, Level0Pixels(width / overview.scale), Level0Pixels(height / overview.scale))


def tile_boxes(table: pa.Table) -> Float64[np.ndarray, "tile 3"]:
    """Return (x, y, side) of the tiles in level-0 px, (x, y) top left."""
    return np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)
