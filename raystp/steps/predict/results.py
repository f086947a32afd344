"""The results of a prediction: a row per slide, and the files that a user takes away."""

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from raystp import tables
from raystp.artifacts import Artifact
from raystp.index.files import reuse
from raystp.steps.impute.slide_table import SlideResult
from raystp.steps.predict.model import PredictModel
from raystp.storage import StoragePath

SUMMARY = "summary.md"
ANNDATA = "anndata"
"""Folder of the predictions within an artifact."""


@dataclass(frozen=True)
class PredictParts:
    """The artifacts of the steps of one prediction."""

    tiles: Sequence[Artifact]
    embeddings: Sequence[Artifact] = ()
    predictions: Artifact | None = None
    """None where no slide has a tile that was embedded."""

    @property
    def done(self) -> list[str]:
        """The predicted slides."""
        return [] if self.predictions is None else list(self.predictions.manifest.notes["slides"])

    def known_slides(self) -> set[str]:
        """Return all slides of the slide table: those with tiles, and those that failed there."""
        tiled = {
            slide for one in self.tiles for slide in one.table("slides.parquet", tables.SLIDES)["slide"].to_pylist()
        }
        return tiled | {row["slide"] for one in self.tiles for row in one.failures().to_pylist()}

    def failures(self) -> list[dict[str, object]]:
        """Return the rows of all failures tables, each once, and one for each slide that its protocol refuses."""
        artifacts = [*self.tiles, *self.embeddings, *([] if self.predictions is None else [self.predictions])]
        rows = list({tuple(row.values()): row for one in artifacts for row in one.failures().to_pylist()}.values())
        known = {row["slide"] for row in rows} | set(self.done)
        if self.predictions is not None:
            protocol = self.predictions.manifest.notes["protocol"]
            reason = f"the model or its index was built from this slide or patient; protocol '{protocol}' refuses that"
            names = [name for name in self.embeddings[0].manifest.notes["patients"] if name not in known]
            rows += [{"slide": name, "stage": "impute", "reason": reason} for name in names]
        return rows


def slide_results(model: PredictModel, parts: PredictParts, failures: Sequence[dict[str, object]]) -> list[SlideResult]:
    """Return a row per slide: those with tiles in the order of the slide table, then those without."""
    reasons: dict[str, str] = {}
    for row in failures:
        reasons.setdefault(str(row["slide"]), f"{row['stage']}: {row['reason']}")
    known = {row["slide"]: row for row in parts.tiles[0].table("slides.parquet", tables.SLIDES).to_pylist()}
    encoder = " + ".join(block.encoder for block in model.blocks)
    results = []
    for slide in [*known, *(name for name in reasons if name not in known)]:
        row = known.get(slide, {})
        tiles, far = _predicted(parts.predictions, slide) if parts.predictions and slide in parts.done else (0, None)
        results.append(
            SlideResult(
                slide=slide,
                patient=row.get("patient", ""),
                tiles=tiles,
                mpp=row.get("mpp"),
                tile_um=model.blocks[0].tile_um[0],
                encoder=encoder,
                model=model.name,
                far_share=far,
                problem=reasons.get(slide, ""),
            )
        )
    return results


def link_predictions(predictions: Artifact, target: StoragePath) -> None:
    """Put each slide's h5ad into another folder of the store: hard links on one disk, else copies."""
    for slide in predictions.manifest.notes["slides"]:
        reuse(predictions.path / ANNDATA, target / ANNDATA, f"{slide}.h5ad")


def _predicted(predictions: Artifact, slide: str) -> tuple[int, float | None]:
    """Return the number of predicted tiles of a slide, and the share of far ones."""
    with (predictions.path / ANNDATA / f"{slide}.h5ad").local() as path, h5py.File(path, "r") as file:
        obs = file["obs"]
        tiles = len(obs[obs.attrs["_index"]])
        far = np.asarray(obs["far"][:], bool) if "far" in obs else np.empty(0, bool)
    return tiles, round(float(far.mean()), 6) if len(far) else None
