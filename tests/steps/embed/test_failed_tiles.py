"""Tiles that cannot be read: rows of the failures table; the other tiles are embedded, whatever the resources."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jaxtyping import Float64

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.cluster.streams.units import WorkUnit
from raystp.digests import content_id
from raystp.errors import ArtifactError
from raystp.expression.sections import embeddings_of
from raystp.slides.open import open_slide
from raystp.slides.tiled.slide import TiledSlide
from raystp.steps.embed import step as embed
from raystp.steps.embed.failed_tiles import MAX_SHARE, read_failed_tiles, slide_error, write_failed_tiles
from raystp.storage import StoragePath
from tests.slides.tiled.tiled_files import write

STORED_PX, SIDE_PX, WIDTH, HEIGHT = 128, 64, 1280, 1024
DAMAGED = 22
"""A stored tile in the middle of the file, at x 256 and y 256: the content id does not cover it."""
OVER = [row * 20 + column for row in (3, 4, 5, 6) for column in (3, 4, 5, 6)]
"""The tiles that need it: two by two are over it, a row has twenty, and the filter needs a margin around a tile."""


def _grid() -> Float64[np.ndarray, "tile 3"]:
    x, y = np.meshgrid(np.arange(0.0, WIDTH, SIDE_PX), np.arange(0.0, HEIGHT, SIDE_PX))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, SIDE_PX)], axis=1)


def _slide(path: Path) -> Path:
    """Write a slide of noise with one level."""
    pixels = np.random.default_rng(5).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return write(path, pixels, "deflate", side=STORED_PX, levels=1)


def _spoil(path: Path, stored: list[int]) -> dict[int, bytes]:
    """Damage stored tiles; return what they were, by offset."""
    with open_slide("A", StoragePath.of(path), given_mpp=0.5) as slide:
        assert isinstance(slide, TiledSlide)
        level = slide._readers[0].level
    places = [(int(level.offsets[tile]), int(level.counts[tile])) for tile in stored]
    before = content_id(StoragePath.of(path))
    with path.open("r+b") as file:
        was = {}
        for start, count in places:
            file.seek(start)
            was[start] = file.read(count)
            file.seek(start)
            file.write(b"\xa5" * count)
    assert content_id(StoragePath.of(path)) == before
    return was


def _repair(path: Path, was: dict[int, bytes]) -> None:
    with path.open("r+b") as file:
        for start, content in was.items():
            file.seek(start)
            file.write(content)


def _tiles(store: Path, slides: dict[str, Path], boxes: dict[str, Float64[np.ndarray, "tile 3"]]) -> Artifact:
    """Write the tiles of slides, as `tile` writes them."""
    writer = ArtifactWriter(StoragePath.of(store) / "tile" / "toy-0", "tile", "toy", "0", {}, {})
    rows = []
    for name, path in slides.items():
        x, y, side = boxes[name].T
        columns = [[name] * len(x), np.arange(len(x)), x, y, side, [None] * len(x)]
        (writer.path / "tiles" / f"{name}.parquet").write_table(tables.of_columns(columns, tables.TILES))
        about = {"slide": name, "path": str(path), "patient": name, "content": content_id(StoragePath.of(path))}
        rows.append(
            {**about, "mpp": 0.5, "mpp_from": "table", "width": WIDTH, "height": HEIGHT}
            | {"native": False, "tissue": 1.0, "tiles": len(x)}
        )
    (writer.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    return writer.finish({}, [], {"side": 32.0, "pixels": 224})


def _embed(tiles: Artifact, store: Path, **values: Any) -> Artifact:
    run = {"store": str(store), **values.pop("run", {})}
    return embed.run(embed.CONFIG.of({"tiles": str(tiles.path), "unit_tiles": 100, "run": run, **values}))


def _check(found: Artifact, expected: pa.Table, numbers: list[int]) -> None:
    """Check that the spoiled slide has the rows of these tiles, with the vectors of an undamaged slide."""
    table = embeddings_of(found, "spoiled")
    assert table["tile"].to_pylist() == numbers
    vectors, wanted = (tables.matrix(one["vector"]) for one in (table, expected.take(numbers)))
    np.testing.assert_allclose(vectors, wanted, atol=1e-5, rtol=0)


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_damaged_tiles_are_rows_of_failures_and_the_others_are_embedded_with_any_resources(tmp_path: Path) -> None:
    names = ["good", "spoiled", "lost", "empty"]
    slides = {name: _slide(tmp_path / f"{name}.tiff") for name in names}
    boxes = {name: _grid() for name in names} | {"empty": _grid()[:0]}
    tiles = _tiles(tmp_path, slides, boxes)
    was = _spoil(slides["spoiled"], [DAMAGED])
    _spoil(slides["lost"], list(range(30, 50)))
    kept = [tile for tile in range(320) if tile not in OVER]

    first = _embed(tiles, tmp_path / "first", run={"encoders": 1, "batch_tiles": 64})
    expected = embeddings_of(first, "good")
    assert expected["tile"].to_pylist() == list(range(320))
    _check(first, expected, kept)
    rows = first.failures().to_pylist()
    assert [row["slide"] for row in rows] == ["empty", "lost", *["spoiled"] * len(OVER)]
    assert rows[0]["reason"] == f"it has no tile in {tiles.path}"
    assert rows[1]["reason"].startswith(
        "120 of its 320 tiles cannot be read, and at most 10% may be lost; the first: tile 100 (x 0.0, y 320.0, "
    )
    assert rows[2]["reason"].startswith("tile 63 (x 192.0, y 192.0, side 64.0 px) of slide 'spoiled': ")
    assert [int(row["reason"].split()[1]) for row in rows[2:]] == OVER
    assert first.manifest.rows == {"slides": 2, "tiles": 640 - len(OVER)}
    assert first.manifest.notes["failed_tiles"] == {"spoiled": len(OVER)}

    for number, run in enumerate([{"encoders": 2, "batch_tiles": 7}, {"encoders": 1, "batch_tiles": 33, "readers": 1}]):
        other = _embed(tiles, tmp_path / str(number), run=run)
        assert other.failures().to_pylist() == rows
        assert other.manifest.notes == first.manifest.notes
        _check(other, expected, kept)
    larger = _embed(tiles, tmp_path / "larger", unit_tiles=4096)
    assert larger.failures().to_pylist() == rows
    _check(larger, expected, kept)

    # A killed run that resumes: the failed tiles of units that are committed already are listed again.
    Path(first.path.uri, "manifest.json").unlink()
    Path(first.path.uri, "commits", "good.00001.json").unlink()
    again = _embed(tiles, tmp_path / "first")
    assert (again.failures().to_pylist(), again.manifest.notes) == (rows, first.manifest.notes)

    _repair(slides["spoiled"], was)
    assert _embed(tiles, tmp_path / "first").manifest.failures == 2 + len(OVER)
    retried = _embed(tiles, tmp_path / "first", run={"retry_failed": True})
    assert retried.failures().to_pylist() == rows[:2]
    _check(retried, expected, list(range(320)))


def test_tiles_without_any_tile_are_refused(tmp_path: Path) -> None:
    tiles = _tiles(tmp_path, {"empty": _slide(tmp_path / "a.tiff")}, {"empty": _grid()[:0]})
    with pytest.raises(ArtifactError, match=r"none of the 1 slides of .*toy-0 has a tile, so there is nothing to"):
        _embed(tiles, tmp_path)


@pytest.mark.parametrize(
    ("failed", "tiles", "fails"),
    [(1, 5, False), (2, 5, True), (1, 1, True), (10, 100, False), (11, 100, True), (100, 100, True)],
)
def test_a_slide_fails_as_a_whole_above_a_share_of_its_tiles_and_above_one(
    failed: int, tiles: int, *, fails: bool
) -> None:
    assert pytest.approx(0.1) == MAX_SHARE
    assert bool(slide_error(["tile 3: damaged"] * failed, tiles)) is fails


def test_the_failed_tiles_of_a_slide_are_read_in_order_and_a_repaired_unit_has_none(tmp_path: Path) -> None:
    store, units = StoragePath.of(tmp_path), [WorkUnit("A.0", "A", 0, 9), WorkUnit("A.1", "A", 9, 9)]
    write_failed_tiles(store, "A.1", {3: "tile 12"})
    write_failed_tiles(store, "A.0", {7: "tile 7", 2: "tile 2"})
    assert read_failed_tiles(store, units) == {"A": ["tile 2", "tile 7", "tile 12"]}
    write_failed_tiles(store, "A.0", {})
    assert read_failed_tiles(store, units) == {"A": ["tile 12"]}
