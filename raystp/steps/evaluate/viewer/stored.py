"""What a prediction has stored beside its values: distance to the reference, the neighbours' spread, attention."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anndata as ad
import h5py
import numpy as np
from jaxtyping import Float, Int64

from raystp.artifacts import Artifact, open_artifact
from raystp.storage import StoragePath
from raystp.tables import MAPS

SPREAD = "spread"


@dataclass(frozen=True)
class StoredMaps:
    """Of the tiles of a slide, in the order of its predictions."""

    layers: Mapping[str, Float[np.ndarray, "tile gene"]] = field(default_factory=dict)
    """`spread`, `attention` and `contribution`, as far as the prediction has them."""
    distance: Float[np.ndarray, "tile"] | None = None
    far_beyond: float | None = None
    """The distance beyond which a tile is far: farther than 99 % of the index's own tiles."""

    def select(self, rows: Int64[np.ndarray, "_"]) -> "StoredMaps":
        """Return only these tiles."""
        layers = {name: values[rows] for name, values in self.layers.items()}
        return replace(self, layers=layers, distance=None if self.distance is None else self.distance[rows])


def stored_maps(prediction: Artifact, store: StoragePath, slide: str) -> StoredMaps:
    """Read what was stored of a slide's tiles; nothing for a prediction that is not dense."""
    if prediction.manifest.notes.get("output") != "dense":
        return StoredMaps()
    with (prediction.path / "anndata" / f"{slide}.h5ad").local() as path, h5py.File(path) as file:
        obs = ad.io.read_elem(file["obs"])
        names = [name for name in (SPREAD, *MAPS) if name in file["layers"]]
        layers = {name: _dense(ad.io.read_elem(file[f"layers/{name}"])) for name in names}
    limit = None
    if "far" in obs:
        index = open_artifact(store / prediction.manifest.inputs["index"], "index")
        limit = index.manifest.notes["distance"]["q99"]
    return StoredMaps(layers, obs["distance"].to_numpy() if "distance" in obs else None, limit)


def _dense(layer: Any) -> Float[np.ndarray, "tile gene"]:
    """Return a layer as dense float32; it may be sparse or float16 (`impute`: x)."""
    return np.asarray(layer.toarray() if hasattr(layer, "toarray") else layer, np.float32)
