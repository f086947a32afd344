"""A SpatialData store is read back by a reader written from the format's description, not from raystp."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import zarr

from raystp.errors import FormatError
from raystp.interop.outputs.slide import Matrix, OutputOptions, XForm
from raystp.interop.outputs.spatialdata.store import element_name, write
from raystp.storage import StoragePath
from tests.interop.outputs.toy import GENES, contents, of_tiles, toy_slide

FORMS: tuple[XForm, ...] = ("float32", "float16", "csr")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    for form in FORMS:
        assert write(toy_slide(), StoragePath.of(folder / form), OutputOptions(x=form)) == []
    return folder


@pytest.fixture
def store(stores: Path) -> Path:
    return stores / "float32" / "S1.zarr"


def attributes(group: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((group / "zarr.json").read_text())["attributes"]
    return found


def scales(transformations: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return coordinate system -> scale, of the transformations that the format allows."""
    for one in transformations:
        assert one["type"] in ("identity", "scale")
    return {one["output"]["name"]: one.get("scale", [1.0] * len(one["input"]["axes"])) for one in transformations}


def table(store: Path, name: str) -> tuple[ad.AnnData, dict[str, Any]]:
    """Read a table, and check that its link is stated alike in its attributes and its uns."""
    found, stated = ad.read_zarr(store / "tables" / name), attributes(store / "tables" / name)
    assert stated["spatialdata-encoding-type"] == "ngff:regions_table"
    assert stated["version"] == "0.2"
    link = found.uns["spatialdata_attrs"]
    assert {key: stated[key] for key in ("region", "region_key", "instance_key")} == dict(link)
    assert found.obs[link["region_key"]].unique().tolist() == [link["region"]]
    assert found.obs[link["region_key"]].dtype == "category"
    return found, link


def test_the_root_states_container_version_and_source(store: Path) -> None:
    root = attributes(store)
    assert root["spatialdata_attrs"]["version"] == "0.2"
    assert root["raystp"]["artifact"] == "impute/toy-0123"


def test_tables_name_the_shapes_that_their_rows_describe(store: Path) -> None:
    values = toy_slide().values.read()
    for name, region, expected in (("predicted_bleep", "tiles", values), ("measured", "spots", values + 1)):
        found, link = table(store, name)
        shapes = pq.read_table(store / "shapes" / region / "shapes.parquet").to_pandas()
        assert link["region"] == region
        assert found.obs[link["instance_key"]].isin(shapes.index).all()
        assert found.var_names.tolist() == list(GENES)
        np.testing.assert_array_equal(found.X, expected)
    predicted, _ = table(store, "predicted_bleep")
    np.testing.assert_array_equal(predicted.layers["spread"], values / 2)
    assert np.flatnonzero(predicted.obs["far"]).tolist() == [7]
    vectors, link = table(store, "tiny_tiles")
    assert link["region"] == "tiles"
    assert vectors.X[3].tolist() == [0, 3, 6, 9]


def test_shapes_are_geoparquet_in_pixels_and_in_micrometres(store: Path) -> None:
    for name, kind in (("tissues", "Polygon"), ("tiles", "Polygon"), ("spots", "Point")):
        stated = attributes(store / "shapes" / name)
        assert stated["encoding-type"] == "ngff:shapes"
        assert stated["spatialdata_attrs"] == {"version": "0.3"}
        assert scales(stated["coordinateTransformations"]) == {"global": [1.0, 1.0], "um": [0.5, 0.5]}
        file = pq.read_table(store / "shapes" / name / "shapes.parquet")
        geo = json.loads(file.schema.metadata[b"geo"])
        assert geo["columns"][geo["primary_column"]] == {"encoding": "WKB", "crs": None, "geometry_types": [kind]}
    frame = pq.read_table(store / "shapes" / "tiles" / "shapes.parquet").to_pandas()
    boxes = shapely.bounds(shapely.from_wkb(frame["geometry"].to_numpy()))
    assert boxes[6].tolist() == [300.0, 500.0, 500.0, 700.0]
    assert frame["tissue_id"].tolist()[:5] == [0, 0, 0, 1, 1]
    spots = pq.read_table(store / "shapes" / "spots" / "shapes.parquet").to_pandas()
    assert spots["radius"].unique().tolist() == [90.0]


def test_the_thumbnail_covers_the_whole_slide(store: Path) -> None:
    stated = attributes(store / "images" / "thumbnail")
    (multiscale,) = stated["ome"]["multiscales"]
    pixels = zarr.open_array(store / "images" / "thumbnail" / multiscale["datasets"][0]["path"], mode="r")
    assert pixels.shape == (3, 130, 160)
    thumbnail = toy_slide().thumbnail
    assert thumbnail is not None
    np.testing.assert_array_equal(np.asarray(pixels[:]).transpose(1, 2, 0), thumbnail)
    assert scales(multiscale["coordinateTransformations"]) == {"global": [1.0, 10.0, 10.0], "um": [1.0, 5.0, 5.0]}


def test_lazyslide_finds_the_tiles_geometry(store: Path) -> None:
    root = attributes(store)
    spec, slide = root["tile_spec"]["tiles"], root["slide_properties"]
    assert spec["width"] * spec["base_downsample"] == pytest.approx(200.0)
    assert spec["width"] * spec["mpp"] == pytest.approx(100.0)
    assert slide["shape"] == [1300, 1600]
    assert slide["mpp"] == 0.5


@pytest.mark.parametrize("form", FORMS)
def test_matrices_are_equal_in_every_form(stores: Path, form: XForm) -> None:
    found, _ = table(stores / form / "S1.zarr", "predicted_bleep")
    dense = found.X.toarray() if form == "csr" else found.X
    assert dense.dtype == (np.float16 if form == "float16" else np.float32)
    np.testing.assert_array_equal(dense, toy_slide().values.read())  # small integers are exact in float16


@pytest.mark.parametrize("form", ["float32", "csr"])
def test_a_second_export_in_other_slabs_replaces_the_first_by_identical_bytes(
    stores: Path, form: XForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(stores / form)
    monkeypatch.setattr("raystp.interop.outputs.slide.SLAB_TILES", 3)
    write(toy_slide(), StoragePath.of(stores / form), OutputOptions(x=form))
    assert contents(stores / form) == before
    assert [one.name for one in (stores / form).iterdir()] == ["S1.zarr"]


def test_a_slide_without_tissue_thumbnail_or_tiles_is_written_and_noted(tmp_path: Path) -> None:
    empty = of_tiles(toy_slide(), np.empty(0, np.int64))
    bare = replace(empty, tissue=None, thumbnail=None)
    notes = write(bare, StoragePath.of(tmp_path), OutputOptions())
    assert len(notes) == 2
    assert ad.read_zarr(tmp_path / "S1.zarr" / "tables" / "predicted_bleep").shape == (0, 3)


def test_a_failed_write_leaves_what_was_there(stores: Path) -> None:
    class Broken:
        shape = (20, 3)

    before = contents(stores / "csr")
    with pytest.raises(TypeError, match="not subscriptable"):
        write(replace(toy_slide(), values=Matrix(Broken())), StoragePath.of(stores / "csr"), OutputOptions())
    assert contents(stores / "csr") == before


@pytest.mark.parametrize(("text", "name"), [("a/b c", "a_b_c"), ("__x", "x"), ("", "unnamed"), ("uni_v2", "uni_v2")])
def test_names_of_elements_have_the_letters_that_the_format_allows(text: str, name: str) -> None:
    assert element_name(text) == name


def test_values_that_float16_cannot_hold_are_refused_and_leave_no_store(tmp_path: Path) -> None:
    slide = replace(toy_slide(), embeddings=Matrix(np.full((20, 4), 70000, np.float32)))
    with pytest.raises(FormatError, match="X has values up to 70000, beyond float16, which ends at 65504: leave x out"):
        write(slide, StoragePath.of(tmp_path), OutputOptions(x="float16"))
    assert not list(tmp_path.iterdir())
