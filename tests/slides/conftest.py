"""Two files of one picture: a pyramidal tiled TIFF that OpenSlide opens, and a PNG that the flat reader opens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8
from PIL import Image

from tests.conftest import SHARED

Rgb = UInt8[np.ndarray, "row col 3"]


def halved(picture: Rgb) -> Rgb:
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    blocks = picture[: rows * 2, : columns * 2].reshape(rows, 2, columns, 2, 3)
    half: Rgb = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return half


def write_pyramid(path: Path, picture: Rgb, mpp: tuple[float, float] = (0.5, 0.5)) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        level = picture
        for number in range(3):
            tiff.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="adobe_deflate",
                subfiletype=1 if number else 0,
                resolution=(1e4 / mpp[0] / 2**number, 1e4 / mpp[1] / 2**number),
                resolutionunit="centimeter",
                metadata=None,
            )
            level = halved(level)
    return path


def write_png(path: Path, picture: Rgb) -> Path:
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture(scope="session")
def numbers() -> Rgb:
    """A picture whose pixel tells its own place: red counts columns, green rows, blue 256s of both. Not square."""
    row, column = np.mgrid[0:300, 0:500]
    return np.stack([column % 256, row % 256, (column // 256) * 16 + row // 256], axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def slope() -> Rgb:
    """A picture that rises along x in red, along y in green, and falls along both in blue."""
    row, column = np.mgrid[0:384, 0:512]
    return np.stack([column / 2.5, row / 2.0, 250 - column / 4 - row / 4], axis=2).round().astype(np.uint8)


@pytest.fixture(scope="session", params=["openslide", "flat"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Rgb], Path]:
    """Write a picture for each of the two readers in turn."""
    folder = tmp_path_factory.mktemp(request.param)

    def write(name: str, picture: Rgb) -> Path:
        if request.param == "openslide":
            return write_pyramid(folder / f"{name}.tiff", picture)
        return write_png(folder / f"{name}.png", picture)

    return write


@pytest.fixture(scope="session")
def pyramid() -> Callable[..., Path]:
    """Write a picture as a pyramidal tiled TIFF: (path, picture, um/px along x and y)."""
    return write_pyramid


@pytest.fixture(scope="session")
def wsi() -> Path:
    folder = SHARED / "data" / "wsi"
    if not folder.is_dir():
        pytest.skip(f"the public test slides are not at {folder}")
    return folder
