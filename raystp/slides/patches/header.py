"""What a file of image patches says before an image of it is read.

HEST and hest-bench have `patches/<id>.h5`: `img` (N x 224 x 224 x 3, RGB), `coords` (N x 2, the top-left corner in
level-0 px of the slide that the patches were cut from) and `barcode` (N x 1, the spot). Attributes of `img` give the
side of a patch in level-0 px (`patch_size_src`) and the um/px of that slide (`pixel_size`). Files of other origin lack
some of these. Sizes are checked before anything is read.
"""

import contextlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float64

from raystp.errors import SlideError, some
from raystp.hdf5 import check_hdf5

IMAGES, CORNERS, BARCODES = "img", "coords", "barcode"
SIDE, DOWNSAMPLE, MPP, TARGET_PX = "patch_size_src", "downsample", "pixel_size", "patch_size_target"

MAX_PATCHES = 10_000_000
MAX_PATCH_PX = 4096
MAX_CHUNK = 1 << 28
"""Bytes that one read may have to decode: HEST stores an image in a chunk."""

MAX_BARCODE = 256
"""Characters of a barcode; Visium's have 18."""

SLAB = 4096
"""Rows that are read at once."""


@dataclass(frozen=True)
class PatchHeader:
    """Everything in a file of patches but the images; row i is patch i."""

    px: int
    """Side of an image in px."""
    corners: Float64[np.ndarray, "patch 2"]
    """Top-left corners (x, y) in level-0 px; no two are equal."""
    barcodes: tuple[str, ...] | None
    """Names of the spots, each once; None if the file has none."""
    side: float | None
    """Side of a patch in level-0 px; None if the attributes do not give it."""
    mpp: float | None
    """um/px of level 0; None if the attributes do not give it."""

    @property
    def patch_mpp(self) -> float | None:
        """um/px of the images; None if the attributes do not give it."""
        return None if self.side is None or self.mpp is None else self.mpp * self.side / self.px

    @property
    def has_no_scale(self) -> bool:
        """Whether the attributes give nothing about the um/px."""
        return self.side is None and self.mpp is None

    @property
    def missing(self) -> list[str]:
        """Names of the attributes that are needed for the um/px and missing."""
        return [name for name, value in ((SIDE, self.side), (MPP, self.mpp)) if value is None]


def read_patch_header(where: str, path: Path) -> PatchHeader:
    """Return the header of a local file of patches.

    Raises:
        SlideError: the file has no images of this form, its parts do not fit each other, or it is not safe to read.
            The message begins with `where`.
    """
    check_hdf5(path, where, SlideError)
    try:
        with h5py.File(path, "r") as file:
            images = _images(where, file)
            count, px = int(images.shape[0]), int(images.shape[1])
            side, mpp = _attributes(where, images, px)
            corners = _corners(where, file, count)
            barcodes = _barcodes(where, file, count)
    except (OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
        raise read_error(where, error) from None
    _check_once(where, corners, barcodes)
    return PatchHeader(px, corners, barcodes, side, mpp)


def read_error(where: str, error: BaseException) -> SlideError:
    """Return the error for a file that HDF5 cannot read."""
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return SlideError(f"{where} cannot be read ({reason}); copy the file again from its source")


def _images(where: str, file: h5py.File) -> h5py.Dataset:
    """Return the dataset of images after the checks of its shape."""
    found = file.get(IMAGES)
    if not isinstance(found, h5py.Dataset):
        msg = (
            f"{where} is an HDF5 file without images '{IMAGES}' (it has {some(sorted(file))}): image patches have "
            f"'{IMAGES}', '{CORNERS}' and '{BARCODES}'; give such a file, or the slide itself"
        )
        raise SlideError(msg)
    shape = tuple(found.shape or ())
    is_square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3  # noqa: PLR2004 -- the axes, and RGB
    if found.dtype != np.uint8 or not is_square or not 1 <= shape[1] <= MAX_PATCH_PX:
        msg = (
            f"{where}: '{IMAGES}' has shape {shape} of {found.dtype}; patches are N x px x px x 3 of uint8, with up "
            f"to {MAX_PATCH_PX} px"
        )
        raise SlideError(msg)
    if not 1 <= shape[0] <= MAX_PATCHES:
        msg = f"{where} has {shape[0]} patches; allowed are 1 to {MAX_PATCHES}"
        raise SlideError(msg)
    if math.prod(found.chunks or (1,)) > MAX_CHUNK:
        msg = f"{where}: '{IMAGES}' has chunks of {found.chunks}, more than {MAX_CHUNK} bytes: store an image in each"
        raise SlideError(msg)
    return found


def _attributes(where: str, images: h5py.Dataset, px: int) -> tuple[float | None, float | None]:
    """Return side of a patch and um/px, both of level 0, as the attributes give them."""
    values = {name: _number(images.attrs.get(name)) for name in (SIDE, DOWNSAMPLE, MPP, TARGET_PX)}
    side, downsample, target = values[SIDE], values[DOWNSAMPLE], values[TARGET_PX]
    if target is not None and round(target) != px:
        msg = (
            f"{where}: its images have {px} px, and the attribute {TARGET_PX} says {target:g}: they were resized "
            "without it, so their um/px is not known; make the file again"
        )
        raise SlideError(msg)
    if side is None and downsample is not None:
        side = downsample * px
    return side, values[MPP]


def _number(value: object) -> float | None:
    """Return an attribute as a number above 0; None for anything else, such as the text `None`."""
    with contextlib.suppress(TypeError, ValueError):
        number = float(np.asarray(value).reshape(()).item())
        return number if math.isfinite(number) and number > 0 else None
    return None


def _corners(where: str, file: h5py.File, count: int) -> Float64[np.ndarray, "patch 2"]:
    found = file.get(CORNERS)
    shape = tuple(found.shape or ()) if isinstance(found, h5py.Dataset) else ()
    if not isinstance(found, h5py.Dataset) or shape != (count, 2) or found.dtype.kind not in "iuf":
        has = f"has shape {shape} of {found.dtype}" if isinstance(found, h5py.Dataset) else "is missing"
        msg = f"{where} has {count} patches, and '{CORNERS}' {has}; wanted is a corner (x, y) for each patch"
        raise SlideError(msg)
    slabs = [np.asarray(found[row : row + SLAB], np.float64) for row in range(0, count, SLAB)]
    corners = np.concatenate(slabs)
    lost = np.flatnonzero(~np.isfinite(corners).all(axis=1))
    if len(lost):
        msg = f"{where}: '{CORNERS}' of {len(lost)} of {count} patches are not numbers, the first in row {lost[0]}"
        raise SlideError(msg)
    return corners


def _barcodes(where: str, file: h5py.File, count: int) -> tuple[str, ...] | None:
    found = file.get(BARCODES)
    if found is None:
        return None
    shape = tuple(found.shape or ()) if isinstance(found, h5py.Dataset) else ()
    is_text = isinstance(found, h5py.Dataset) and (h5py.check_string_dtype(found.dtype) is not None)
    if not is_text or shape not in ((count,), (count, 1)):
        msg = f"{where} has {count} patches, and '{BARCODES}' has shape {shape}; wanted is a text for each patch"
        raise SlideError(msg)
    texts = [text for row in range(0, count, SLAB) for text in np.asarray(found[row : row + SLAB]).ravel().tolist()]
    names = tuple(text.decode() if isinstance(text, bytes) else str(text) for text in texts)
    wrong = next((row for row, name in enumerate(names) if not 0 < len(name) <= MAX_BARCODE), None)
    if wrong is not None:
        msg = f"{where}: '{BARCODES}' of row {wrong} has {len(names[wrong])} characters; allowed are 1 to {MAX_BARCODE}"
        raise SlideError(msg)
    return names


def _check_once(where: str, corners: Float64[np.ndarray, "patch 2"], barcodes: tuple[str, ...] | None) -> None:
    """Raise SlideError for a barcode, or a corner, of two patches: which one is meant cannot be known."""
    if barcodes is not None and len(set(barcodes)) < len(barcodes):
        twice = [name for name, times in Counter(barcodes).items() if times > 1]
        msg = f"{where}: {len(twice)} of {len(set(barcodes))} barcodes have several patches: {some(twice)}"
        raise SlideError(msg)
    _, first, times = np.unique(corners, axis=0, return_index=True, return_counts=True)
    if len(first) < len(corners):
        x, y = corners[first[times > 1][0]].tolist()
        msg = (
            f"{where}: {len(corners) - len(first)} patches have the corner of another one, such as x {x:g}, y {y:g}; "
            "a file has the patches of one slide, each once"
        )
        raise SlideError(msg)
