"""Several sizes of tiles around each place: one artifact, whose parts equal the artifacts of each size alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, open_artifact
from raystp.cluster.streams.units import WorkUnit
from raystp.digests import content_id
from raystp.errors import ConfigError
from raystp.expression.embeddings.tokens import read_tokens
from raystp.expression.schema import write_section
from raystp.expression.sections import embeddings_of
from raystp.slides.open import read_tiles_or_fail
from raystp.slides.table import SlideRow
from raystp.steps.embed import step as embed
from raystp.steps.embed.outputs import EncoderOutput
from raystp.steps.embed.reader import SlideTiles, UnitReader
from raystp.steps.embed.work import EmbedWork
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.tile import step as tile
from raystp.steps.tile.work import TileTask, tile_slide
from raystp.storage import StoragePath
from raystp.units import TilePixels

SIDES = (16.0, 40.0, 30.0)
PX = 32
Write = Callable[[Path], Path]
Section = Callable[[str], ad.AnnData]


def _tile(folder: Path, slide: Path, tile_um: Any, spots: ad.AnnData | None = None, **more: Any) -> Artifact:
    """Tile one slide of 0.5 um/px without Ray: the first side is read without resampling."""
    config = tile.CONFIG.of({"slides": "s.csv", "tile_um": tile_um, "tile_px": PX, "allow_glass": 1, "run": {}, **more})
    name = "-".join(f"{side:g}" for side in config.scales)
    target, section = StoragePath.of(folder) / "tile" / f"{name}-0", StoragePath.of(folder / "section.h5ad")
    if spots is not None:
        write_section(section, spots)
    row = SlideRow("S1", StoragePath.of(slide), "P1", 0.5, None, None, None, "S1", None)
    result = tile_slide(TileTask(row, config, target, section=section if spots is not None else None))
    assert isinstance(result, dict), result
    columns = {**result, "content": content_id(StoragePath.of(slide))}
    (target / "slides.parquet").write_table(tables.of_rows([columns], tables.SLIDES))
    writer = ArtifactWriter(target, "tile", name, "0", {}, config.manifest_values())
    return writer.finish({"tiles": result["tiles"]}, [], tile._notes(config, [result], 0))


def _boxes(artifact: Artifact, kind: str = "tiles") -> np.ndarray:
    table = artifact.table(f"{kind}/S1.parquet", tables.SCALES if kind == "scales" else tables.TILES)
    return np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)


def _reader(artifact: Artifact, slide: Path, scales: int = 1) -> UnitReader:
    slides = {"S1": SlideTiles(str(slide), 0.5, content_id(StoragePath.of(slide)))}
    return UnitReader(artifact.path, slides, TilePixels(PX), cache=None, buffers=4, scales=scales)


def test_each_size_has_the_boxes_that_it_has_alone(tmp_path: Path, drawn: Write, section: Section) -> None:
    slide = drawn(tmp_path / "S1.png")
    spots = section("S1")
    spots.obsm["spatial"] = spots.obsm["spatial"] + 0.3  # between pixels: each size rounds by itself
    several = _tile(tmp_path / "all", slide, SIDES, spots)
    alone = [_boxes(_tile(tmp_path / str(side), slide, side, spots)) for side in SIDES]
    np.testing.assert_array_equal(_boxes(several, "scales").reshape(-1, 3, 3), np.stack(alone, axis=1))
    np.testing.assert_array_equal(_boxes(several), alone[0])
    assert several.manifest.notes["scales"] == list(SIDES)


def test_a_single_size_is_written_as_ever(tmp_path: Path, drawn: Write) -> None:
    slide = drawn(tmp_path / "S1.png")
    single, listed = (_tile(tmp_path / name, slide, side) for name, side in (("a", 16), ("b", [16])))
    for artifact in (single, listed):
        assert not (artifact.path / "scales").exists()
        assert "scales" not in artifact.manifest.notes
        assert artifact.manifest.config["tile_um"] == 16.0
    file = Path("tiles") / "S1.parquet"
    assert (single.path / str(file)).read_bytes() == (listed.path / str(file)).read_bytes()


def test_places_of_a_grid_are_those_of_the_first_size_and_concentric(tmp_path: Path, drawn: Write) -> None:
    slide = drawn(tmp_path / "S1.png")
    several = _tile(tmp_path, slide, SIDES)
    np.testing.assert_array_equal(_boxes(several), _boxes(_tile(tmp_path, slide, SIDES[0])))
    boxes = _boxes(several, "scales").reshape(-1, 3, 3)
    centres = boxes[:, :, :2] + boxes[:, :, 2:] / 2
    np.testing.assert_allclose(centres, np.repeat(centres[:, :1], 3, axis=1), atol=1.0)
    assert np.unique(boxes[:, :, 2], axis=0).tolist() == [[32.0, 80.0, 60.0]]


def test_pixels_of_a_place_are_those_of_each_size_and_one_failure_costs_the_place(
    tmp_path: Path, drawn: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = drawn(tmp_path / "S1.png")
    several = _tile(tmp_path, slide, SIDES)
    unit = WorkUnit("S1.00000", "S1", 1, 6)
    read = _reader(several, slide, 3)(unit, 2, 5).pixels.reshape(3, 3, PX, PX, 3)
    first = _reader(_tile(tmp_path, slide, SIDES[0]), slide)(unit, 2, 5).pixels
    np.testing.assert_array_equal(read[:, 0], first)
    assert not np.array_equal(read[:, 1], first)

    def one_fails(*args: Any, **options: Any) -> Any:
        return read_tiles_or_fail(*args, **options)[0], {4: "tile 4 (x 1) is damaged", 5: "tile 5 (x 2) is damaged"}

    monkeypatch.setattr("raystp.steps.embed.reader.read_tiles_or_fail", one_fails)
    partial = _reader(several, slide, 3)(unit, 2, 5)
    assert partial.failed == {3: "tile 4 (x 1) is damaged"}  # place 1 of the batch: row 3 of the unit, 4 of the slide
    np.testing.assert_array_equal(partial.pixels.reshape(2, 3, PX, PX, 3), read[[0, 2]])


def test_places_of_which_none_can_be_read_have_no_rows(tmp_path: Path) -> None:
    output = EncoderOutput(StoragePath.of(tmp_path), source_of(EncoderConfig(), str(tmp_path)), 2 * 128)
    work = EmbedWork(StoragePath.of(tmp_path), (output,), {}, TilePixels(224), "float32", scales=2)
    assert work.make_encoder()(np.empty((0, 224, 224, 3), np.uint8))[0].shape == (0, 256)
    assert work.make_encoder()(np.zeros((6, 224, 224, 3), np.uint8))[0].shape == (3, 256)


@pytest.mark.parametrize(
    ("sides", "match"), [([16, 16], "listed twice"), ([], "at least 1"), ([16, 0], "greater than 0")]
)
def test_wrong_sizes_are_refused(sides: list[float], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        tile.CONFIG.of({"slides": "s.csv", "tile_um": sides, "run": {}})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_embeddings_and_tokens_of_several_sizes_are_those_of_each_side_by_side(tmp_path: Path, drawn: Write) -> None:
    slide = drawn(tmp_path / "S1.png")
    options = {"layers": ["middle", "last"], "views": "rotations", "tokens": 2, "unit_tiles": 5, "tile_px": 224}
    tile_px = {"tile_px": options.pop("tile_px")}

    def run(tiles: Artifact, name: str, **run: Any) -> Artifact:
        values = {"tiles": tiles.path.uri, "run": {"store": str(tmp_path / name), **run}, **options}
        return embed.run(embed.CONFIG.of(values))

    several = _tile(tmp_path, slide, SIDES, **tile_px)
    found = run(several, "all", encoders=1, batch_tiles=2)
    vectors = tables.matrix(embeddings_of(found, "S1")["vector"])
    first = run(_tile(tmp_path, slide, SIDES[0], **tile_px), "first", encoders=1)
    alone = tables.matrix(embeddings_of(first, "S1")["vector"])
    assert vectors.shape == (len(alone), 3 * alone.shape[1])
    np.testing.assert_allclose(vectors[:, : alone.shape[1]], alone, atol=1e-5)
    tokens = read_tokens(found, "S1")
    assert tokens.shape == (len(alone), 3 * 4, 32)
    np.testing.assert_array_equal(tokens[:, :4], read_tokens(first, "S1"))
    assert found.manifest.notes["layers"] == ["middle", "last"]
    assert (found.manifest.notes["views"], found.manifest.notes["scales"]) == ("rotations", list(SIDES))

    # As after a kill: no manifest, and one unit without its commit record and one of its tables.
    (found.path / "manifest.json").remove()
    unit = found.manifest.notes["units"]["S1"][1]
    (found.path / "commits" / f"{unit}.json").remove()
    (found.path / "embeddings" / "S1" / f"{unit}.parquet").remove()
    again = run(several, "all", encoders=2, readers=1, batch_tiles=3)
    assert again.path == found.path
    np.testing.assert_allclose(tables.matrix(embeddings_of(again, "S1")["vector"]), vectors, atol=1e-5)
    np.testing.assert_allclose(read_tokens(again, "S1"), tokens, rtol=1e-3)  # one unit of the last place of float16
    assert open_artifact(again.path, "embed").manifest.notes == found.manifest.notes
