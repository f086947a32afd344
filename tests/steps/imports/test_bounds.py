"""Of a slide of which a part was scanned, other tools count from the whole slide, and masks from the scanned part."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from raystp.artifacts import Artifact, resolve
from raystp.interop.choice import FolderChoice
from raystp.interop.registry import FEATURES
from raystp.steps.export.config import ExportConfig
from raystp.steps.export.features import export_features, feature_tasks
from raystp.steps.imports import step as imports
from raystp.steps.imports.config import ImportConfig
from raystp.storage import StoragePath
from tests.interop.features.trident_maker import Maker
from tests.slides.tissue.glass import glass, write_scn

BOUNDS = [3000, 5000, 600, 700]
SQUARE = shapely.box(3100, 5200, 3500, 5600)


def test_the_tissue_and_bounds_of_an_imported_slide_are_noted_as_by_tile_and_exported_in_the_tools_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "map_tasks", lambda function, items, **_: enumerate(map(function, items)))
    monkeypatch.setattr(imports, "session", lambda _: __import__("contextlib").nullcontext())
    write_scn(tmp_path / "S1.scn", glass(BOUNDS[2], BOUNDS[3]), (BOUNDS[0], BOUNDS[1]))
    job = Maker(tmp_path / "job", corners=np.array([[3100 + 10 * n, 5200] for n in range(6)])).write()
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(SQUARE)}
    (job / "contours_geojson").mkdir()
    contents = {"type": "FeatureCollection", "features": [feature]}
    (job / "contours_geojson" / "S1.geojson").write_text(json.dumps(contents))
    (tmp_path / "slides.csv").write_text("slide,path\nS1,S1.scn\n")
    values = {"format": "trident", "path": str(job), "slides": str(tmp_path / "slides.csv"), "name": "x"}
    embed = imports.run(ImportConfig.of({**values, "run": {"store": str(tmp_path / "store")}}))
    assert isinstance(embed, Artifact)
    tiles = resolve(str(tmp_path / "store"), "tile/x", "tile")
    assert tiles.manifest.notes["bounds"] == {"S1": BOUNDS}
    mask = json.loads((tiles.path / "masks" / "S1.geojson").read_bytes())
    assert shapely.geometry.shape(mask["features"][0]["geometry"]).bounds == (100, 200, 500, 600)
    assert mask["raystp"]["frame"] == "bounds"
    out = {"format": "trident", "artifact": "embed/x", "out": str(tmp_path / "out"), "run": {}}
    (task,) = feature_tasks(embed, ExportConfig.of(out))
    export_features(task)
    (files,) = FEATURES["trident"].find(StoragePath.of(tmp_path / "out"), FolderChoice()).slides
    again = FEATURES["trident"].read(files, FolderChoice(), 0.5)
    assert again.tissue is not None
    assert again.tissue.equals(SQUARE)
    assert again.boxes[0].tolist() == [3100, 5200, 512]
