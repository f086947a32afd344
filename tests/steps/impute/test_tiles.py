"""Measured values beside predictions: only where every tile is a measured spot, whatever the order of the tiles."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.expression.schema import SectionInfo, SpotPositions, make_section, write_section
from raystp.expression.sections import ModelLabels
from raystp.steps.impute.tiles import tile_table
from raystp.storage import StoragePath


def _artifact(store: StoragePath, step: str, notes: dict[str, object]) -> Artifact:
    return ArtifactWriter(store / step / "toy-0", step, "toy", "0", {}, {}).finish({}, [], notes)


@pytest.fixture
def artifacts(tmp_path: Path) -> tuple[Artifact, Artifact]:
    """Embeddings of tiles of one slide, and its section of two spots."""
    store = StoragePath.of(tmp_path)
    png = io.BytesIO()
    Image.new("RGB", (10, 10)).save(png, format="PNG")
    (store / "tile" / "toy-0" / "thumbnails" / "S1.png").write_bytes(png.getvalue())
    row = {"slide": "S1", "path": "S1.h5", "patient": "P", "content": "c", "mpp": 0.25, "mpp_from": "slide"}
    row |= {"width": 20, "height": 20, "native": False, "tissue": 1.0, "tiles": 2}
    (store / "tile" / "toy-0" / "slides.parquet").write_table(tables.of_rows([row], tables.SLIDES))
    _artifact(store, "tile", {"pixels": 224})
    info = SectionInfo("S1", "P", "S1", mpp=0.25, spot_diameter_um=55.0, pitch_um=100.0, layout="toy")
    at = SpotPositions(["a", "b"], np.array([[10.0, 10.0], [30.0, 10.0]]), np.arange(2.0), np.arange(2.0))
    section = make_section(np.array([[1.0, 0.0], [0.0, 3.0]]), ["G", "H"], at, info)
    write_section(store / "spots" / "toy-0" / "sections" / "S1.h5ad", section)
    spots = _artifact(store, "spots", {"sections": {"S1": {"slide": "S1"}}})
    return _artifact(store, "embed", {"tiles": "tile/toy-0"}), spots


@pytest.mark.parametrize(("names", "is_measured"), [(["b", "a"], True), (["b", "other"], False), (["b", None], False)])
def test_measured_values_need_a_spot_for_each_tile(
    artifacts: tuple[Artifact, Artifact], names: list[str | None], *, is_measured: bool
) -> None:
    embeddings, spots = artifacts
    columns = [["S1"] * 2, [0, 1], [20.0, 0.0], [0.0, 0.0], [20.0, 20.0], names]
    tiles = tables.of_columns(columns, tables.TILES)
    found, measured = tile_table("S1", tiles, ["H"], embeddings=embeddings, spots=spots, labels=ModelLabels(("H",)))
    assert (measured is not None) == is_measured
    assert [*found.names] == [name or "S1-000001" for name in names]
    np.testing.assert_array_equal(found.centres, [[30.0, 10.0], [10.0, 10.0]])
    if measured is not None:
        np.testing.assert_allclose(measured[[*found.names]].X, [[np.log1p(1e4)], [0.0]], rtol=1e-6)
