"""Maps of how far to trust a prediction from a bank: how far each tile lies from it, and how its neighbours spread."""

import anndata as ad
import h5py
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64

from raystp.artifacts import Artifact
from raystp.evaluate.report.page import PageFigure
from raystp.evaluate.report.pictures import SlideThumbnail, png, tiles_figure

ROWS = 4096
"""Tiles whose spread is read at a time."""


def trust_pictures(prediction: Artifact, slide: str, whole: SlideThumbnail) -> list[PageFigure]:
    """Return the maps of a slide; none where the prediction says nothing of itself."""
    if prediction.manifest.notes.get("output") != "dense" or "index" not in prediction.manifest.inputs:
        return []
    with (prediction.path / "anndata" / f"{slide}.h5ad").local() as path, h5py.File(path) as file:
        obs = ad.io.read_elem(file["obs"])
        spread = _mean_spread(file)
    maps = {"distance to the nearest reference spot": (obs["distance"].to_numpy(), "distance")}
    if spread is not None:
        maps["spread among the neighbours, mean over genes"] = (spread, "log1p CP10k")
    far = int(obs["far"].sum()) if "far" in obs else 0
    said = f"{far} of {len(obs)} tiles lie farther from the bank than 99 % of its own kind"
    squares = squares_of((prediction.path / "predictions" / f"{slide}.parquet").read_table(["x", "y", "side"]))
    title = f"How far {slide} is from what the bank knows"
    return [PageFigure(title, png(tiles_figure(whole, squares, maps, said)), f"{title}: {said}")] if len(obs) else []


def squares_of(table: pa.Table) -> Float64[np.ndarray, "tile 3"]:
    """Return where tiles lie, as pictures of a slide want it: (x, y, side), (x, y) top left."""
    return np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)


def _mean_spread(file: h5py.File) -> Float32[np.ndarray, " tile"] | None:
    if "spread" not in file["layers"]:
        return None
    layer = file["layers/spread"]
    parts = [layer[first : first + ROWS].mean(axis=1) for first in range(0, len(layer), ROWS)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
