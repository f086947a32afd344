"""Two files of one image: a pyramidal tiled TIFF that OpenSlide opens, and a PNG that the flat reader opens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8
from PIL import Image

from tests.conftest import SHARED

Rgb = UInt8[np.ndarray, "row col 3"]


def halved(image: Rgb) -> Rgb:
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: rows * 2, : columns * 2].reshape(rows, 2, columns, 2, 3)
    half: Rgb = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return half


def write_pyramid(path: Path, image: Rgb, mpp: tuple[float, float] = (0.5, 0.5)) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        level = image
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


def write_png(path: Path, image: Rgb) -> Path:
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="session")
def numbers() -> Rgb:
    """An image whose pixels encode their position: red the column, green the row, blue the 256s of both. Not square."""
    row, column = np.mgrid[0:300, 0:500]
    return np.stack([column % 256, row % 256, (column // 256) * 16 + row // 256], axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def slope() -> Rgb:
    """An image that rises along x in red, along y in green, and falls along both in blue."""
    row, column = np.mgrid[0:384, 0:512]
    return np.stack([column / 2.5, row / 2.0, 250 - column / 4 - row / 4], axis=2).round().astype(np.uint8)


@pytest.fixture(scope="session", params=["openslide", "flat"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Rgb], Path]:
    """Write an image for each of the two readers in turn."""
    folder = tmp_path_factory.mktemp(request.param)

    def write(name: str, image: Rgb) -> Path:
        if request.param == "openslide":
            return write_pyramid(folder / f"{name}.tiff", image)
        return write_png(folder / f"{name}.png", image)

    return write


@pytest.fixture(scope="session")
def pyramid() -> Callable[..., Path]:
    """Write an image as a pyramidal tiled TIFF: (path, image, um/px along x and y)."""
    return write_pyramid


@pytest.fixture(scope="session")
def wsi() -> Path:
    folder = SHARED / "data" / "wsi"
    if not folder.is_dir():
        pytest.skip(f"the public test slides are not at {folder}")
    return folder
