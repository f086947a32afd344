"""A writer of LazySlide's stores from the description of the format, in zarr 2 and 3; it uses nothing of raystp."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import zarr

CORNERS = np.array([(512.0 * c, 512.0 * r) for r in range(2) for c in range(3)])
VECTORS = np.arange(24, dtype=np.float32).reshape(6, 4)


@dataclass
class LazySlide:
    """One slide of six tiles; the rows of the table are in another order than the tiles."""

    folder: Path
    slide: str = "S1"
    zarr_format: Any = 3
    key: str = "tiles"
    model: str = "uni2"
    width: float = 512.0
    height: float = 512.0
    vectors: Any = field(default_factory=VECTORS.copy)
    ids: Any = field(default_factory=lambda: np.array([15, 10, 11, 12, 13, 14]))
    tile_ids: Any = field(default_factory=lambda: np.arange(10, 16))
    region: Any = None
    properties: dict[str, Any] = field(
        default_factory=lambda: {"shape": [3000, 4000], "n_level": 1, "mpp": 0.25, "raw": "long"}
    )
    sparse: bool = False

    @property
    def store(self) -> Path:
        return self.folder / f"{self.slide}.zarr"

    @property
    def table(self) -> Path:
        return self.store / "tables" / f"{self.model}_{self.key}"

    def write(self) -> Path:
        root = zarr.open_group(self.store, mode="a", zarr_format=self.zarr_format)
        spec = {"height": 256, "width": 256, "mpp": 0.5, "base_level": 0, "base_downsample": 2.0}
        specs: Any = dict(root.attrs).get("tile_spec", {})
        root.attrs["tile_spec"] = {**specs, self.key: {**spec, "tissue_name": "tissues"}}
        root.attrs["slide_properties"] = self.properties
        root.attrs["spatialdata_attrs"] = {"version": "0.2"}
        boxes = [shapely.box(x, y, x + self.width, y + self.height) for x, y in CORNERS]
        self._shapes(root, self.key, boxes, {"tile_id": self.tile_ids, "x": CORNERS[:, 0], "y": CORNERS[:, 1]})
        self._shapes(root, "tissues", [shapely.box(0, 0, 1536, 1024)], {"tissue_id": [0]})
        table = root.require_group(f"tables/{self.model}_{self.key}")
        table.attrs.update(
            {
                "encoding-type": "anndata",
                "spatialdata-encoding-type": "ngff:regions_table",
                "region": self.region or self.key,
                "region_key": "library_id",
                "instance_key": "tile_id",
            }
        )
        if self.sparse:
            table.create_group("X").attrs["encoding-type"] = "csr_matrix"
        else:
            table.create_array("X", data=self.vectors)
        obs = table.create_group("obs")
        obs.create_array("tile_id", data=self.ids)
        return self.folder

    def _shapes(self, root: Any, name: str, outlines: list[Any], columns: dict[str, Any]) -> None:
        group = root.require_group(f"shapes/{name}")
        group.attrs.update({"encoding-type": "ngff:shapes", "axes": ["x", "y"]})
        geometry = {"encoding": "WKB", "crs": None, "geometry_types": ["Polygon"]}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
        table = pa.table({**columns, "geometry": [one.wkb for one in outlines]})
        file = self.store / "shapes" / name / "shapes.parquet"
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), file)
