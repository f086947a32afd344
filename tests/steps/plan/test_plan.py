"""plan: a cohort that is opened whole is planned exactly, a sampled one with an interval that holds the truth."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raystp import cli
from raystp.digests import content_id
from raystp.encoders.registry import tokens_of
from raystp.errors import ConfigError
from raystp.slides.open import read_tiles
from raystp.slides.table import SlideRow, read_slide_table
from raystp.steps.embed.reader import SlideTiles, open_tiled
from raystp.steps.encoder_source import spec_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.plan import step as plan
from raystp.steps.plan.sample import SlideCost, choose, measure
from raystp.steps.plan.totals import total
from raystp.steps.tile.config import TileConfig
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.conftest import write_pyramid

TILING: dict[str, Any] = {"tile_um": 32, "tile_px": 64}
"""64 px of a slide at 0.5 um/px."""


def _slide(path: Path, tissue: int) -> Path:
    """Write a slide of 512 x 512 px in stored tiles of 64 px, with `tissue` rows of stored tiles of tissue."""
    pixels = np.full((512, 512, 3), 245, np.uint8)
    rng = np.random.default_rng(0)
    pixels[: tissue * 64] = rng.integers(80, 180, (tissue * 64, 512, 3), np.uint8) * np.array([1, 0.5, 1])
    return write_pyramid(path, pixels)


def _plan(slides: Path, **fields: Any) -> dict[str, Any]:
    config = {"slides": str(slides), "tile": TILING, "rate": {"tiny": 100}, "run": {"store": "/none"}, **fields}
    return plan.make_plan(plan.CONFIG.of(config))


def _row(name: str, suffix: str = ".svs") -> SlideRow:
    return SlideRow(name, StoragePath.of(f"/x/{name}{suffix}"), "P", None, None, None, None, name, None)


def test_tiles_and_their_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    _slide(tmp_path / "a.tif", 4)
    _slide(tmp_path / "b.tif", 4)
    (tmp_path / "c.tif").write_bytes(b"no slide")
    found = _plan(tmp_path)
    tile, embed = found["steps"]
    assert (found["slides"], list(found["problems"])) == (3, ["c"])
    tiles = embed["tiles"]["value"]
    assert tiles == tile["tiles"]["value"] > 0
    assert embed["written"]["value"] == pytest.approx(tiles * embed["dim"] * 4 * 0.85)
    assert embed["cpu_hours"]["value"] == pytest.approx(tiles / 100 / 3600)
    assert embed["reads"] == {"value": 0, "half_width": 0.0}  # no request for a file on this machine


def _read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().partition("rchar: ")[2].partition("\n")[0])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count the bytes that are read")
def test_the_bytes_to_read_are_those_that_embed_reads_with_ids_and_headers(tmp_path: Path) -> None:
    table = tmp_path / "s.csv"
    names = [_slide(tmp_path / "a.tif", 4).name, _slide(tmp_path / "b.tif", 8).name]
    table.write_text("\n".join(["path", *names]))
    config = TileConfig.of({"slides": str(table), **TILING})
    costs = measure(read_slide_table(str(table), None, "/none"), config, None, threads=1)
    read = []
    for cost in costs:
        assert cost.boxes is not None
        tiled = SlideTiles(cost.row.path.uri, cost.mpp, content_id(cost.row.path))
        before = _read_so_far()
        with open_tiled(cost.row.slide, tiled, None) as slide:
            read_tiles(slide, cost.boxes, TilePixels(64))
        read.append(_read_so_far() - before)
    planned = _plan(table)["steps"][1]["read"]["value"]
    assert planned == pytest.approx(sum(read), rel=0.05)
    assert planned > 2.5 * sum((tmp_path / name).stat().st_size for name in names)  # a small file has its id read twice


def test_several_sides_and_encoders_read_the_pixels_once(tmp_path: Path) -> None:
    _slide(tmp_path / "a.tif", 4)
    one = _plan(tmp_path)["steps"][1]
    also = {"other": {"name": "tiny", "seed": 1}}
    main, other = _plan(tmp_path, tile={**TILING, "tile_um": [32, 64]}, embed={"also": also})["steps"][1:]
    assert main["tiles"] == other["tiles"] == one["tiles"]
    assert main["dim"] == other["dim"] == 2 * one["dim"]
    assert main["written"]["value"] == pytest.approx(2 * one["written"]["value"])
    assert main["cpu_hours"]["value"] == pytest.approx(2 * one["cpu_hours"]["value"])
    assert main["read"]["value"] > one["read"]["value"]
    assert other["read"]["value"] == 0


def test_an_encoder_without_weights_has_no_hours_and_a_flat_file_is_read_whole(tmp_path: Path) -> None:
    pixels = np.full((512, 512, 3), 245, np.uint8)
    noise = np.random.default_rng(0).integers(80, 180, (300, 300, 1), np.uint8)
    pixels[100:400, 100:400] = noise * np.array([1, 0.5, 1])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    table = tmp_path / "s.csv"
    table.write_text("path,mpp\na.png,0.5\n")
    embed = _plan(table, encoder="uni_v2", tile={**TILING, "tile_px": 224}, rate={"tile": 2.0}, weights="/none.pt")
    assert embed["steps"][0]["cpu_hours"]["value"] == pytest.approx(0.5 / 3600)
    assert embed["steps"][1]["cpu_hours"] is None
    assert "/none.pt" in embed["steps"][1]["rate"]
    size = (tmp_path / "a.png").stat().st_size
    assert embed["steps"][1]["read"]["value"] == pytest.approx(3 * size, rel=0.3)  # its pixels, and its id at both ends


def test_a_sample_has_each_kind_and_gives_totals_with_an_interval() -> None:
    rng = np.random.default_rng(1)
    rows = [_row(f"a{n}") for n in range(900)] + [_row(f"b{n}", ".ndpi") for n in range(100)]
    truth = {row.slide: int(rng.poisson(1000 if row.path.name.endswith("svs") else 50)) for row in rows}
    chosen = choose(rows, 60, seed=0)
    assert sum(row.path.name.endswith(".ndpi") for row in chosen) == 8
    costs = [SlideCost(row, tiles=truth[row.slide]) for row in chosen]
    found = total({".svs": 900, ".ndpi": 100}, costs, lambda one: one.tiles)
    assert abs(found.value - sum(truth.values())) < found.half
    assert 0 < found.half < 0.02 * found.value
    whole = total(
        {".svs": 900, ".ndpi": 100}, [SlideCost(row, tiles=truth[row.slide]) for row in rows], lambda c: c.tiles
    )
    assert whole.value == pytest.approx(sum(truth.values()))
    assert whole.half == 0.0
    assert choose(rows[:5], 60, seed=0) == rows[:5]


def test_prices_become_dollars_and_a_wrong_one_is_a_sentence(tmp_path: Path) -> None:
    _slide(tmp_path / "a.tif", 4)
    prices = tmp_path / "prices.yaml"
    prices.write_text("cpu_hour: 3600\n")
    found = _plan(tmp_path, prices=str(prices), rate={"tiny": 100, "tile": 0.5})
    tiles = found["steps"][1]["tiles"]["value"]
    assert [one["dollars"]["value"] for one in found["steps"]] == [pytest.approx(2.0), pytest.approx(tiles / 100)]
    prices.write_text("cpu_hours: 1\n")
    with pytest.raises(
        ConfigError, match=r"prices: \S+ is not a valid table of prices:\n  cpu_hours: .*did you mean 'cpu_hour'"
    ):
        _plan(tmp_path, prices=str(prices))


def test_spatial_tokens_count_among_the_bytes_that_are_written(tmp_path: Path) -> None:
    _slide(tmp_path / "a.tif", 4)
    plain, kept = (_plan(tmp_path, embed={"tokens": tokens})["steps"][1] for tokens in (None, 2))
    grid = tokens_of(spec_of(EncoderConfig()), 2)
    more = kept["written"]["value"] - plain["written"]["value"]
    assert more == pytest.approx(plain["tiles"]["value"] * grid.values * 2)


def test_a_warning_about_the_slides_is_given_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _slide(tmp_path / "a.tif", 4)
    _plan(tmp_path)
    assert sum("1 of 1 slides have no `patient`" in one.message for one in caplog.records) == 1


def test_nodes_without_gpus_need_the_rate_of_a_cpu(tmp_path: Path) -> None:
    _slide(tmp_path / "a.tif", 4)
    nodes = {"nodes": [4], "gpus": 0}
    with pytest.raises(
        ConfigError, match=r"'tiny' is not known \(only the rate of a GPU is known\); pass gpu=false and"
    ):
        _plan(tmp_path, cluster=nodes, gpu=True)
    assert _plan(tmp_path, cluster=nodes)["cluster"]["nodes"][0]["nodes"] == 4


def test_nodes_for_slides_without_tiles_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _slide(tmp_path / "a.tif", 0)
    assert _plan(tmp_path, cluster={"nodes": [4]})["cluster"] is None
    assert "cluster.nodes: no tile is planned: no such section" in caplog.text


def test_the_command_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _slide(tmp_path / "a.tif", 4)
    shutil.copy(tmp_path / "a.tif", tmp_path / "b.tif")
    words = ["plan", str(tmp_path), "tile.tile_um=32", "tile.tile_px=64", "rate={tiny: 100}", "sample=2"]
    assert cli.main([*words, "json=true", "cluster.nodes=[1,2]", "cluster.gpus=0", "cluster.cpus=2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["slides"] == 2
    assert [(one["nodes"], one["encoders"]) for one in found["cluster"]["nodes"]] == [(1, 1), (2, 2)]
    assert found["cluster"]["outputs"]["dense float32"] == found["steps"][1]["tiles"]["value"] * 19_000 * 4
    assert cli.main([*words, "cluster.nodes=[4]"]) == 0
    out = capsys.readouterr().out
    assert "2 slides" in out
    assert "embed/default" in out
    assert "100 tiles/s, given" in out
    assert "assumed: gpus 4" in out
