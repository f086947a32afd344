"""The `tile` step: detected and given masks, and the files that it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError
from raystp.slides.synthetic.slide import draw_slide, draw_stain, tissue_map, write_slide
from raystp.slides.table import SlideRow
from raystp.slides.tissue.masks import user_masks
from raystp.steps.tile import step as tile
from raystp.steps.tile.work import TileResult, TileTask, tile_slide
from raystp.storage import StoragePath
from raystp.units import MicronsPerPixel

Write = Callable[[Path], Path]

SQUARE: list[list[float]] = [[0, 0], [64, 0], [64, 96], [0, 96], [0, 0]]
"""Two tiles wide and three tiles high, of 32 px."""


def mask_of(ring: list[list[float]]) -> bytes:
    return json.dumps({"type": "Polygon", "coordinates": [ring]}).encode()


def tile_one(slide: Path, out: Path, mask: Path | None = None, **more: Any) -> TileResult | str:
    """Tile one slide without Ray; tiles are 16 um as 32 px, the toy's slide is 0.5 um/px."""
    config = tile.CONFIG.of({"slides": "slides.csv", "tile_um": 16, "tile_px": 32, "run": {}, **more})
    row = SlideRow("S1", StoragePath.of(slide), "P1", 0.5, None, None, None, "S1", None)
    user_mask = None if mask is None else StoragePath.of(mask)
    return tile_slide(TileTask(row, config, StoragePath.of(out), mask=user_mask))


def tiles(out: Path) -> list[tuple[float, float]]:
    table = StoragePath.of(out / "tiles" / "S1.parquet").read_table()
    return list(zip(table["x"].to_pylist(), table["y"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn section of half a mm with a pen mark, as an Aperio file."""
    rng, mpp = np.random.default_rng(3), MicronsPerPixel(0.5)
    types = tissue_map(rng, width=768, height=512, mpp=mpp, cell=16)
    path = tmp_path_factory.mktemp("section") / "S1.svs"
    write_slide(path, draw_slide(rng, types, cell=16, mpp=mpp, stain=draw_stain(rng)), mpp=mpp)
    return path


@pytest.mark.parametrize(("min_tissue", "stride"), [(0.0, None), (0.5, None), (0.5, 11.0), (1.0, 11.0)])
def test_a_written_mask_gives_the_same_tiles_again(
    tmp_path: Path, section: Path, min_tissue: float, stride: float | None
) -> None:
    options: dict[str, Any] = {"tile_um": 28, "tile_px": 56, "min_tissue": min_tissue, "stride": stride}
    first = tile_one(section, tmp_path / "first", **options)
    again = tile_one(section, tmp_path / "again", tmp_path / "first" / "masks" / "S1.geojson", **options)
    assert isinstance(first, dict)
    assert isinstance(again, dict)
    assert tiles(tmp_path / "again") == tiles(tmp_path / "first")
    assert len(tiles(tmp_path / "first")) == first["tiles"] > 50
    assert again["tissue"] == pytest.approx(first["tissue"], abs=1e-9)
    assert (first["quality"]["mask"], again["quality"]["mask"]) == ("found", "given")
    for name in ("masks/S1.png", "overviews/S1.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_the_written_files_cover_the_slide_and_its_quality_is_recorded(tmp_path: Path, section: Path) -> None:
    row = tile_one(section, tmp_path / "out")
    assert isinstance(row, dict)
    written = json.loads((tmp_path / "out" / "masks" / "S1.geojson").read_bytes())
    assert written["raystp"] == {"slide": "S1", "width": 768, "height": 512}
    with Image.open(tmp_path / "out" / "masks" / "S1.png") as mask:
        assert mask.size == (768, 512)
        assert np.asarray(mask).mean() / 255 == pytest.approx(row["tissue"])
    quality = row["quality"]
    assert set(quality) == {"tissue", "ink", "sharpness", "mask"}
    assert quality["tissue"] == pytest.approx(row["tissue"], abs=1e-6)
    assert 0.002 < quality["ink"] < 0.05  # a pen's arc in a corner
    assert quality["sharpness"] is not None
    assert quality["sharpness"] > 100
    none = tile_one(section, tmp_path / "none", focus_tiles=0)
    assert isinstance(none, dict)
    assert none["quality"] == {**quality, "sharpness": None}


def test_tiles_follow_the_users_mask(tmp_path: Path, drawn: Write) -> None:
    (tmp_path / "S1.geojson").write_bytes(mask_of(SQUARE))
    row = tile_one(drawn(tmp_path / "S1.png"), tmp_path / "out", tmp_path / "S1.geojson", min_tissue=1)
    assert isinstance(row, dict)
    assert tiles(tmp_path / "out") == [(x, y) for y in (0, 32, 64) for x in (0, 32)]
    assert row["tissue"] == pytest.approx(64 * 96 / (160 * 192))
    slanted: list[list[float]] = [[0, 0], [32, 0], [0, 32], [0, 0]]  # half of the first tile
    (tmp_path / "S1.geojson").write_bytes(mask_of(slanted))
    row = tile_one(drawn(tmp_path / "S1.png"), tmp_path / "out", tmp_path / "S1.geojson", min_tissue=0.5)
    assert isinstance(row, dict)
    assert row["tiles"] == 1
    none = tile_one(drawn(tmp_path / "S1.png"), tmp_path / "out", tmp_path / "S1.geojson", min_tissue=0.501)
    assert isinstance(none, str)
    assert "your mask covers 1.67% of its 80 x 96 um" in none
    assert none.endswith("lower tile_um, or set min_tissue=0.5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no JSON", "is not JSON ("),
        (b"{}", "is not GeoJSON but JSON of type dict"),
        (
            mask_of([[500, 0], [600, 0], [600, 90], [500, 0]]),
            "spans x 500 to 600 and y 0 to 90, the slide is 160 x 192",
        ),
        (mask_of([[0, 0], [90, 90], [90, 0], [0, 90], [0, 0]]), "is not a valid polygon: Self-intersection[45 45]"),
        (
            b'{"type":"FeatureCollection","features":[],"raystp":{"slide":"B","width":9,"height":9}}',
            "was made for slide 'B' of 9 x 9 px, this one is 160 x 192 px",
        ),
    ],
)
def test_a_bad_mask_is_the_reason_of_its_slides_failure(
    tmp_path: Path, drawn: Write, content: bytes, message: str
) -> None:
    (tmp_path / "S1.geojson").write_bytes(content)
    result = tile_one(drawn(tmp_path / "S1.png"), tmp_path / "out", tmp_path / "S1.geojson")
    assert isinstance(result, str)
    assert result.startswith(f"the mask {tmp_path / 'S1.geojson'} of slide 'S1'")
    assert message in result
    assert not (tmp_path / "out").exists()


def test_a_folder_of_masks_gives_each_slide_its_own_and_must_have_one(tmp_path: Path) -> None:
    assert user_masks(None, ["A", "B"]) == {}
    for name in ("B.geojson", "A.png", "other.geojson"):
        (tmp_path / name).write_bytes(b"")
    assert user_masks(str(tmp_path), ["A", "B"]) == {"B": StoragePath.of(tmp_path / "B.geojson")}
    with pytest.raises(ConfigError, match=r"no mask of any slide of the table, such as 'A.geojson'; it has 'A.png', "):
        user_masks(str(tmp_path), ["A"])
    with pytest.raises(ConfigError, match="it is empty or does not exist"):
        user_masks(str(tmp_path / "none"), ["A"])


@pytest.mark.parametrize(("old", "new"), [("side", "tile_um"), ("pixels", "tile_px"), ("focus_places", "focus_tiles")])
def test_an_old_key_gives_an_error_that_names_the_new_one(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=f"{old}: .*renamed to {new}"):
        tile.CONFIG.of({"slides": "slides.csv", old: 64})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_masks_count_in_the_artifacts_name_and_a_bad_one_is_a_row_of_the_failures(tmp_path: Path, drawn: Write) -> None:
    names = ("own", "bad", "found")
    for name in names:
        drawn(tmp_path / f"{name}.png")
    (tmp_path / "slides.csv").write_text("slide,path,patient,mpp\n" + "".join(f"{n},{n}.png,P,0.5\n" for n in names))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "own.geojson").write_bytes(mask_of(SQUARE))
    (tmp_path / "masks" / "bad.geojson").write_bytes(b"[")

    def run(**more: Any) -> Artifact:
        values = {
            "slides": str(tmp_path / "slides.csv"),
            "tile_um": 16,
            "tile_px": 32,
            "run": {"store": str(tmp_path / "s")},
        }
        return tile.run(tile.CONFIG.of({**values, **more}))

    plain, masked = run(), run(masks=str(tmp_path / "masks"))
    assert masked.manifest.fingerprint != plain.manifest.fingerprint
    (failed,) = masked.failures().to_pylist()
    assert (failed["slide"], failed["stage"]) == ("bad", "tile")
    assert "is not JSON" in failed["reason"]
    assert {name: one["mask"] for name, one in masked.manifest.notes["quality"].items()} == {
        "own": "given", "found": "found",
    }  # fmt: skip
    slides = masked.table("slides.parquet", tables.SLIDES).to_pylist()
    assert [(one["slide"], one["tiles"]) for one in slides] == [("own", 6), ("found", slides[1]["tiles"])]
    assert masked.table("tiles/found.parquet", tables.TILES).equals(plain.table("tiles/found.parquet", tables.TILES))
    assert run(masks=str(tmp_path / "masks")).path == masked.path
    (tmp_path / "masks" / "own.geojson").write_bytes(mask_of([[1, *SQUARE[0][1:]], *SQUARE[1:4], [1, 0]]))
    assert run(masks=str(tmp_path / "masks")).path != masked.path
    again = run(masks=str(plain.path / "masks"))
    assert again.manifest.failures == 0
    for name in names:
        table = f"tiles/{name}.parquet"
        assert again.table(table, tables.TILES).equals(plain.table(table, tables.TILES))
    assert resolve(str(tmp_path / "s"), "tile/default", "tile").path == again.path
