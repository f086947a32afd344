"""A writer of TRIDENT's files from the description of its format, with each of its traps; it uses nothing of raystp."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

GRID = "20x_256px_0px_overlap"


@dataclass
class Maker:
    """What is written of one slide; the defaults are a slide of six tiles as TRIDENT 0.3 writes it."""

    job: Path
    slide: str = "S1"
    encoder: str = "uni_v1"
    grid: str = GRID
    corners: Any = field(default_factory=lambda: np.array([(512 * c, 512 * r) for r in range(2) for c in range(3)]))
    vectors: Any = field(default_factory=lambda: np.arange(24, dtype=np.float32).reshape(6, 4))
    attributes: dict[str, Any] = field(
        default_factory=lambda: {
            "patch_size": 256,
            "patch_size_level0": 512,
            "level0_magnification": 40,
            "target_magnification": 20,
            "overlap": 0,
            "name": "S1",
            "savetodir": "None",
            "level0_width": 4000,
            "level0_height": 3000,
        }
    )
    own: dict[str, Any] = field(default_factory=lambda: {"encoder": "uni_v1", "name": "S1"})
    patches: bool = True
    prefix: str = "features_"

    @property
    def features(self) -> Path:
        return self.job / self.grid / f"{self.prefix}{self.encoder}" / f"{self.slide}.h5"

    def write(self) -> Path:
        """Write the slide's files and return the job's folder."""
        self.features.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(self.features, "w") as file:
            stored = file.create_dataset(
                "features", data=self.vectors, chunks=(1, self.vectors.shape[1]), maxshape=(None, self.vectors.shape[1])
            )
            stored.attrs.update(self.own)
            self._coords(file)
        if self.patches:
            (self.job / self.grid / "patches").mkdir(exist_ok=True)
            with h5py.File(self.job / self.grid / "patches" / f"{self.slide}_patches.h5", "w") as file:
                self._coords(file)
        return self.job

    def _coords(self, file: h5py.File) -> None:
        stored = file.create_dataset(
            "coords", data=self.corners, chunks=(1, self.corners.shape[1]), maxshape=(None, self.corners.shape[1])
        )
        stored.attrs.update(self.attributes)


def tissue(job: Path, slide: str = "S1") -> None:
    """Write outlines with a hole, and the `crs` that TRIDENT adds."""
    ring, hole = [[0, 0], [1536, 0], [1536, 1024], [0, 1024], [0, 0]], [[10, 10], [20, 10], [20, 20], [10, 10]]
    feature = {
        "type": "Feature",
        "properties": {"tissue_id": 0},
        "geometry": {"type": "Polygon", "coordinates": [ring, hole]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
    folder = job / "contours_geojson"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{slide}.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    )
