"""Files of image patches as HEST writes them: `img`, `coords`, `barcode`, and the attributes of `img`.

Written from the description of the format, with h5py alone; the numbers are of a slide of 0.25 um/px whose spots have
patches of 112 um: 448 px, stored as 224 px.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SIDE, SOURCE_MPP = 448, 0.25
HEST: Mapping[str, Any] = {
    "patch_size_src": SIDE,
    "patch_size_target": 224,
    "downsample": 2.0,
    "pixel_size": SOURCE_MPP,
    "name": "img",
}


def images(count: int, px: int = 224, seed: int = 0) -> np.ndarray:
    """Coloured noise on a slope, another in each row."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 60, px)[:, None, None] + rng.integers(40, 160, (count, 1, 1, 3))
    return np.clip(slope + rng.integers(0, 30, (count, px, px, 3)), 0, 255).astype(np.uint8)


def centres(count: int) -> np.ndarray:
    """Spots 100 um apart, in rows of five, in px of 0.25 um."""
    row, column = np.divmod(np.arange(count), 5)
    return np.stack([600.0 + 400.0 * column, 500.0 + 400.0 * row], axis=1)


def names(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


def write_patches(
    path: Path,
    img: np.ndarray,
    *,
    coords: np.ndarray | None = None,
    barcodes: list[str] | None = None,
    attributes: Mapping[str, Any] = HEST,
) -> Path:
    """Write patches around `centres`; `coords` and `barcodes` replace the ones that fit, `[]` leaves barcodes out."""
    at = np.trunc(centres(len(img)) - SIDE // 2).astype(np.int64) if coords is None else coords
    found = names(len(img)) if barcodes is None else barcodes
    with h5py.File(path, "w") as file:
        data = file.create_dataset("img", data=img, chunks=(1, *img.shape[1:]), maxshape=(None, *img.shape[1:]))
        data.attrs.update(attributes)
        file.create_dataset("coords", data=at, chunks=(1, 2), maxshape=(None, 2))
        if found:
            column = np.array(found, dtype=object)[:, None]
            file.create_dataset("barcode", data=column, dtype=h5py.string_dtype("utf-8"))
    return path
