from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter

from raystp.slides.open import open_slide
from raystp.slides.tissue.quality import laplacian_variance, sharpness
from raystp.storage import StoragePath
from tests.slides.tiled.test_damaged import spoiled

Rgb = UInt8[np.ndarray, "row col 3"]


def test_a_lone_pixel_has_the_laplacian_that_can_be_counted() -> None:
    image = np.full((5, 5, 3), 100, np.uint8)
    assert laplacian_variance(image) == 0.0
    image[2, 2] = 110  # the Laplacian is -40 there, and 10 at its four neighbours
    assert laplacian_variance(image) == pytest.approx((40**2 + 4 * 10**2) / 25)


def test_out_of_focus_is_less_sharp(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    crisp = np.clip(gaussian_filter(rng.normal(128, 400, (600, 600, 1)), (1.5, 1.5, 0)), 0, 255).repeat(3, axis=2)
    boxes = np.array([[x, y, 224.0] for y in (0.0, 224.0) for x in (0.0, 224.0)])
    found: list[float] = []
    for sigma in (0.0, 2.0, 4.0):
        path = tmp_path / f"{sigma}.png"
        Image.fromarray(gaussian_filter(crisp, (sigma, sigma, 0)).astype(np.uint8)).save(path)
        with open_slide("A1", StoragePath.of(path), given_mpp=0.5) as slide:
            found.append(sharpness(slide, boxes, 3) or 0.0)
            assert sharpness(slide, boxes[:0], 3) is None
            assert sharpness(slide, boxes, 0) is None
    assert found[0] > 3 * found[1] > 3 * found[2] > 0.0


def test_sharpness_is_that_of_the_tiles_that_can_be_read(tmp_path: Path) -> None:
    path = spoiled(tmp_path / "a.tiff", (14,))  # the stored tile at (192, 64)
    boxes = np.array([[192.0, 64.0, 64.0], [448.0, 320.0, 64.0]])
    with open_slide("A1", StoragePath.of(path), given_mpp=0.5) as slide:
        assert sharpness(slide, boxes, 2) == sharpness(slide, boxes[1:], 1)
        assert sharpness(slide, boxes[:1], 1) is None
