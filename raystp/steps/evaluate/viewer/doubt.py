"""What a prediction has stored of its own doubt: each tile's distance to the reference, and the neighbours' spread."""

from dataclasses import dataclass, replace
from typing import Any

import anndata as ad
import h5py
import numpy as np
from jaxtyping import Float, Int64

from raystp.artifacts import Artifact, open_artifact
from raystp.storage import StoragePath


@dataclass(frozen=True)
class Doubt:
    """Of the tiles of a slide, in the order of its predictions; None where the prediction has not stored it."""

    distance: Float[np.ndarray, "tile"] | None = None
    far_beyond: float | None = None
    """The distance beyond which a tile is far: farther than 99 % of the index's own tiles."""
    spread: Float[np.ndarray, "tile gene"] | None = None

    def select(self, rows: Int64[np.ndarray, "_"]) -> "Doubt":
        """Return only these tiles."""
        distance, spread = (None if one is None else one[rows] for one in (self.distance, self.spread))
        return replace(self, distance=distance, spread=spread)


def doubt_of(prediction: Artifact, store: StoragePath, slide: str) -> Doubt:
    """Read the doubt of a slide's tiles; there is none without a reference index."""
    inputs = prediction.manifest.inputs
    if prediction.manifest.notes.get("output") != "dense" or "index" not in inputs:
        return Doubt()
    index = open_artifact(store / inputs["index"], "index")
    with (prediction.path / "anndata" / f"{slide}.h5ad").local() as path, h5py.File(path) as file:
        obs = ad.io.read_elem(file["obs"])
        spread = _dense(ad.io.read_elem(file["layers/spread"])) if "spread" in file["layers"] else None
    limit = index.manifest.notes.get("distance", {}).get("q99") if "far" in obs else None
    return Doubt(obs["distance"].to_numpy(), limit, spread)


def _dense(layer: Any) -> Float[np.ndarray, "tile gene"]:
    """Return a layer as dense float32; it may be sparse or float16 (`impute`: x)."""
    return np.asarray(layer.toarray() if hasattr(layer, "toarray") else layer, np.float32)
