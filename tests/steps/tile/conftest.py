"""Slides of 0.5 um/px that are tiled in the test's own process, without Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raystp.expression.schema import SectionInfo, SpotPositions, make_section, write_section
from raystp.slides.table import SlideRow
from raystp.steps.tile.checks import SectionScale
from raystp.steps.tile.config import TileConfig
from raystp.steps.tile.work import TileResult, TileTask, tile_slide
from raystp.storage import StoragePath
from tests.slides.tissue.glass import glass, stain

TileOne = Callable[..., TileResult | str]


@pytest.fixture
def tile_one(tmp_path: Path) -> TileOne:
    """Tile one slide with tiles of 56 um as 112 px: `tile_one(path, mpp=0.5, section=..., scale=..., mask=...)`."""

    def tile(
        path: Path,
        *,
        mpp: float | None = 0.5,
        section: Path | None = None,
        scale: SectionScale | None = None,
        mask: Path | None = None,
        **options: Any,
    ) -> TileResult | str:
        config = TileConfig.of({"slides": "slides.csv", "tile_um": 56, "tile_px": 112, "run": {}, **options})
        layout = None if section is None else "toy"
        row = SlideRow("S1", StoragePath.of(path), "P1", mpp, layout, None, None, "S1", None)
        places = [None if place is None else StoragePath.of(place) for place in (section, mask)]
        return tile_slide(TileTask(row, config, StoragePath.of(tmp_path / "out"), places[0], scale, places[1]))

    return tile


@pytest.fixture
def ellipse(tmp_path: Path) -> Path:
    """A slide of 1,200 x 1,000 px with an ellipse of tissue in its left half."""
    path = tmp_path / "S1.png"
    Image.fromarray(stain(glass(1200, 1000), (350, 450), (250, 350))).save(path)
    return path


@pytest.fixture
def spots_at(tmp_path: Path) -> Callable[..., Path]:
    """Write a section with spots of 55 um at the given places (x, y), 0.5 um/px."""

    def write(centres: np.ndarray, mpp: float = 0.5) -> Path:
        count = len(centres)
        info = SectionInfo("S1", "P1", "S1", mpp=mpp, spot_diameter_um=55.0, pitch_um=100.0, layout="toy")
        names, at = [f"s{number}" for number in range(count)], np.arange(float(count))
        section = make_section(np.ones((count, 2)), ["A", "B"], SpotPositions(names, centres, at, at), info)
        path = tmp_path / "S1.h5ad"
        write_section(StoragePath.of(path), section)
        return path

    return write


def hexagons() -> np.ndarray:
    """Places on the ellipse's tissue, 20 px apart."""
    x, y = np.meshgrid(np.arange(110.0, 600.0, 20.0), np.arange(110.0, 800.0, 20.0))
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    inside = ((centres - (350, 450)) / (240, 340)) ** 2
    on_tissue: np.ndarray = centres[inside.sum(axis=1) < 1.0]
    return on_tissue
