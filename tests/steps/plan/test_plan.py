"""plan: a cohort that is opened whole is planned exactly, a sampled one with an interval that holds the truth."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raystp import cli
from raystp.encoders.registry import tokens_of
from raystp.errors import ConfigError
from raystp.slides.table import SlideRow
from raystp.steps.encoder_source import spec_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.plan import step as plan
from raystp.steps.plan.sample import SlideCost, choose
from raystp.steps.plan.totals import total
from raystp.storage import StoragePath
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
    assert embed["written"]["value"] == tiles * embed["dim"] * 4
    assert embed["cpu_hours"]["value"] == pytest.approx(tiles / 100 / 3600)
    size = (tmp_path / "a.tif").stat().st_size
    assert 0.5 * size < embed["read"]["value"] / 2 < size  # noise is stored raw: tissue is most of the file
    assert embed["reads"] == {"value": 0, "half_width": 0.0}  # no request for a file on this machine


def test_an_encoder_without_weights_has_no_hours_and_a_flat_file_is_read_whole(tmp_path: Path) -> None:
    pixels = np.full((512, 512, 3), 245, np.uint8)
    pixels[100:400, 100:400] = (150, 80, 160)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    table = tmp_path / "s.csv"
    table.write_text("path,mpp\na.png,0.5\n")
    embed = _plan(table, encoder="uni_v2", tile={**TILING, "tile_px": 224}, rate={"tile": 2.0}, weights="/none.pt")
    assert embed["steps"][0]["cpu_hours"]["value"] == pytest.approx(0.5 / 3600)
    assert embed["steps"][1]["cpu_hours"] is None
    assert "/none.pt" in embed["steps"][1]["rate"]
    assert embed["steps"][1]["read"]["value"] == (tmp_path / "a.png").stat().st_size


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
        ConfigError, match=r"prices: \S+ is not a valid Prices:\n  cpu_hours: .*did you mean 'cpu_hour'"
    ):
        _plan(tmp_path, prices=str(prices))


def test_spatial_tokens_count_among_the_bytes_that_are_written(tmp_path: Path) -> None:
    _slide(tmp_path / "a.tif", 4)
    plain, kept = (_plan(tmp_path, embed={"tokens": tokens})["steps"][1] for tokens in (None, 2))
    grid = tokens_of(spec_of(EncoderConfig()), 2)
    assert kept["written"]["value"] - plain["written"]["value"] == plain["tiles"]["value"] * grid.values * 2


def test_the_command_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _slide(tmp_path / "a.tif", 4)
    shutil.copy(tmp_path / "a.tif", tmp_path / "b.tif")
    words = ["plan", str(tmp_path), "tile.tile_um=32", "tile.tile_px=64", "rate={tiny: 100}", "sample=2"]
    assert cli.main([*words, "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["slides"] == 2
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "2 slides" in out
    assert "embed/default" in out
    assert "100 tiles/s, given" in out
