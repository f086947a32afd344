"""Two files of one picture: a pyramidal tiled TIFF that OpenSlide opens, and a PNG that the flat reader opens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8
from PIL import Image

type Rgb = UInt8[np.ndarray, "row col 3"]
type Writer = Callable[[Path, np.ndarray], Path]


def halved(picture: np.ndarray) -> np.ndarray:
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    blocks = picture[: rows * 2, : columns * 2].reshape(rows, 2, columns, 2, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def write_pyramid(path: Path, picture: np.ndarray, mpp: float = 0.5) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        level = picture
        for number in range(3):
            tiff.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="adobe_deflate",
                subfiletype=1 if number else 0,
                resolution=(1e4 / mpp / 2**number, 1e4 / mpp / 2**number),
                resolutionunit="centimeter",
                metadata=None,
            )
            level = halved(level)
    return path


def write_png(path: Path, picture: np.ndarray) -> Path:
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture(scope="session")
def numbers() -> np.ndarray:
    """A picture whose pixel tells its own place: red counts columns, green rows, blue 256s of both. Not square."""
    row, column = np.mgrid[0:300, 0:500]
    return np.stack([column % 256, row % 256, (column // 256) * 16 + row // 256], axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def slope() -> np.ndarray:
    """A picture that rises along x in red, along y in green, and falls along both in blue."""
    row, column = np.mgrid[0:384, 0:512]
    return np.stack([column / 2.5, row / 2.0, 250 - column / 4 - row / 4], axis=2).round().astype(np.uint8)


@pytest.fixture(scope="session", params=["openslide", "flat"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """Write a picture for each of the two readers in turn."""
    folder = tmp_path_factory.mktemp(request.param)

    def write(name: Path, picture: np.ndarray) -> Path:
        if request.param == "openslide":
            return write_pyramid(folder / f"{name}.tiff", picture)
        return write_png(folder / f"{name}.png", picture)

    return write


@pytest.fixture(scope="session")
def wsi() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "wsi"
    if not folder.is_dir():
        pytest.skip(f"the public test slides are not at {folder}")
    return folder
