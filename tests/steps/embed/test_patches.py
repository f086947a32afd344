"""Embeddings of image patches: those of the same images in memory, whatever the units, and after a kill."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.cluster.streams.units import WorkUnit
from raystp.digests import content_id
from raystp.encoders.encoder import BatchEncoder
from raystp.expression.sections import embeddings_of
from raystp.slides.table import SlideRow
from raystp.steps.embed import step as embed
from raystp.steps.embed.outputs import EncoderOutput
from raystp.steps.embed.reader import SlideTiles
from raystp.steps.embed.step import plan_units
from raystp.steps.embed.work import EmbedWork
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.tile import step as tile
from raystp.steps.tile.config import TileConfig
from raystp.steps.tile.work import TileTask, tile_slide
from raystp.steps.train.spots.pixels import TileRows
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.patches.files import images, write_patches

COUNTS = {"A": 5, "B": 8}
CONFIG = {"slides": "slides.csv", "run": {}}


def _images(slide: str) -> np.ndarray:
    return images(COUNTS[slide], seed=ord(slide))


def _encode(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    encoder = source_of(EncoderConfig(seed=seed), "/none").build()
    return BatchEncoder(encoder, device="cpu", precision="float32")(pixels)


@pytest.fixture
def tiled(tmp_path: Path) -> dict[str, SlideTiles]:
    """Tile two files of patches in this process."""
    found = {}
    for name in COUNTS:
        path = StoragePath.of(write_patches(tmp_path / f"{name}.h5", _images(name)))
        row = SlideRow(name, path, "P", None, None, None, None, name, None)
        result = tile_slide(TileTask(row, TileConfig.of(CONFIG), StoragePath.of(tmp_path / "tile")))
        assert isinstance(result, dict), result
        found[name] = SlideTiles(path.uri, result["mpp"], content_id(path))
    return found


def _work(folder: Path, tiled: dict[str, SlideTiles], seeds: Sequence[int] = (0,)) -> EmbedWork:
    outputs = []
    for seed in seeds:
        source = source_of(EncoderConfig(seed=seed), "/none")
        outputs.append(EncoderOutput(StoragePath.of(folder / f"embed-{seed}"), source, source.build().dim))
    return EmbedWork(StoragePath.of(folder / "tile"), tuple(outputs), tiled, TilePixels(224), "float32")


def _embed(work: EmbedWork, units: Sequence[WorkUnit], batch: int) -> None:
    """Read, encode and commit the units that are not committed, as an actor does."""
    read, encode, done = work.make_reader(2), work.make_encoder(), work.committed()
    for unit in units:
        if unit.unit not in done:
            batches = []
            for start in range(0, unit.rows, batch):
                found = read(unit, start, min(start + batch, unit.rows))
                assert not found.failed
                batches.append(encode(found.pixels))
            work.commit(unit, batches, {})


def _vectors(folder: Path, slide: str, seed: int = 0) -> np.ndarray:
    files = sorted((folder / f"embed-{seed}" / "embeddings" / slide).glob("*.parquet"))
    return np.concatenate([tables.matrix(StoragePath.of(file).read_table()["vector"]) for file in files])


@pytest.mark.parametrize(("unit_tiles", "batch", "seeds"), [(100, 64, (0,)), (3, 2, (0, 1)), (1, 1, (1, 0))])
def test_patches_have_the_vectors_of_the_same_images_in_memory(
    tmp_path: Path, tiled: dict[str, SlideTiles], *, unit_tiles: int, batch: int, seeds: tuple[int, ...]
) -> None:
    _embed(_work(tmp_path, tiled, seeds), plan_units(COUNTS, unit_tiles), batch)
    for slide in COUNTS:
        for seed in seeds:
            expected = _encode(_images(slide), seed)
            np.testing.assert_allclose(_vectors(tmp_path, slide, seed), expected, atol=1e-5, rtol=0)


def test_after_a_kill_only_the_other_units_are_read_and_the_vectors_are_the_same(
    tmp_path: Path, tiled: dict[str, SlideTiles]
) -> None:
    units = plan_units(COUNTS, 3)
    _embed(_work(tmp_path, tiled), units[:3], 2)
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "embed-0").rglob("*.parquet")}
    with h5py.File(tmp_path / "A.h5", "r+") as file:
        file["img"][...] = np.zeros((COUNTS["A"], 224, 224, 3), np.uint8)  # its units are committed: not read again
    _embed(_work(tmp_path, tiled), units, 2)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    for slide in COUNTS:
        np.testing.assert_allclose(_vectors(tmp_path, slide), _encode(_images(slide)), atol=1e-5, rtol=0)


def test_training_from_pixels_reads_patches_by_row(tmp_path: Path, tiled: dict[str, SlideTiles]) -> None:
    writer = ArtifactWriter(StoragePath.of(tmp_path / "tile"), "tile", "tile", "0", {}, {})
    about = {"patient": "P", "mpp": 0.25, "mpp_from": "slide", "width": 1, "height": 1, "native": False, "tissue": 1.0}
    rows = [{"slide": one, "path": t.path, "content": t.content, "tiles": 5, **about} for one, t in tiled.items()]
    (writer.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    tiles = writer.finish({}, [], {"pixels": 224})
    table = tiles.table("tiles/B.parquet", tables.TILES)
    boxes = np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)
    read = TileRows(tiles, ("B",), np.zeros(len(boxes), np.int64), boxes)
    np.testing.assert_array_equal(read(np.array([6, 2, 2])), _images("B")[[6, 2, 2]])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_slide_table_of_patches_is_tiled_and_embedded_by_two_encoders(tmp_path: Path) -> None:
    for name in COUNTS:
        write_patches(tmp_path / f"{name}.h5", _images(name))
    (tmp_path / "lost.h5").write_bytes((tmp_path / "A.h5").read_bytes()[:200_000])
    (tmp_path / "slides.csv").write_text("slide,path,patient\nA,A.h5,P\nB,B.h5,Q\nlost,lost.h5,R\n")
    run = {"store": str(tmp_path / "store")}
    tiles = tile.run(tile.CONFIG.of({"slides": str(tmp_path / "slides.csv"), "run": run}))
    assert tiles.manifest.rows == {"slides": 2, "tiles": 13}
    (failure,) = tiles.failures().to_pylist()
    assert "lost.h5) is not a readable HDF5 file" in failure["reason"]
    values = {"tiles": str(tiles.path), "unit_tiles": 4, "run": {**run, "encoders": 2, "batch_tiles": 3}}
    found: Artifact = embed.run(embed.CONFIG.of(values))
    assert found.manifest.notes["readers"] == {"A": "patches", "B": "patches"}
    for slide, count in COUNTS.items():
        table = embeddings_of(found, slide)
        assert table["spot"].to_pylist() == [f"s{number}" for number in range(count)]
        np.testing.assert_allclose(tables.matrix(table["vector"]), _encode(_images(slide)), atol=1e-5, rtol=0)
