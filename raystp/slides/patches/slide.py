"""A file of image patches as a slide: only its own patches can be read, each whole.

Level 0 is that of the slide which the patches were cut from. That slide's size is not known; `width` and `height` are
the extent of the patches.
"""

import contextlib
import threading
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import UInt8

from raystp.errors import SlideError
from raystp.slides.patches.header import IMAGES, PatchHeader, read_error, read_patch_header
from raystp.slides.patches.mosaic import draw_mosaic
from raystp.slides.patches.scale import PatchScale, patch_scale
from raystp.slides.readers.opened import NO_REGIONS, DamagedRegion
from raystp.slides.readers.resample import Box, resample
from raystp.slides.readers.scale import ScaleSources
from raystp.units import Level0Pixels, TilePixels

SIDE_TOLERANCE = 1e-6
"""A box with another side than the patch's, by more than this share, is not the patch."""

_READ_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError)
"""Exceptions of h5py on a damaged chunk."""


class PatchSlide:
    """An open file of image patches; implements `Slide`. Threads may share it."""

    reader, vendor = "patches", "image-patches"

    def __init__(self, name: str, where: str, path: Path, sources: ScaleSources) -> None:
        self.name, self.where = name, where
        self.header: PatchHeader = read_patch_header(where, path)
        self.scale: PatchScale = patch_scale(where, self.header, sources)
        self.mpp, self.mpp_from = self.scale.level0.mpp, self.scale.level0.source
        self.own_mpp = self.scale.level0.own
        right, bottom = np.ceil(self.header.corners.max(axis=0) + self.scale.side).astype(np.int64).tolist()
        self.width, self.height = max(1, right), max(1, bottom)
        self.bounds: tuple[int, int, int, int] | None = None
        self.warnings: list[str] = list(self.scale.warnings)
        self.empty, self.damaged = NO_REGIONS, list[DamagedRegion]()
        self._row_of = {(x, y): row for row, (x, y) in enumerate(self.header.corners.tolist())}
        self._lock = threading.Lock()
        self._resources = contextlib.ExitStack()
        self._file: h5py.File | None = h5py.File(path, "r")

    def keep(self, resources: contextlib.ExitStack) -> "PatchSlide":
        """Take over what is closed with the slide, such as a local copy; return the slide."""
        self._resources = resources
        return self

    def read(
        self, x: Level0Pixels, y: Level0Pixels, side: Level0Pixels, tile_px: TilePixels
    ) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the patch with this corner and side as `tile_px` x `tile_px`; see `Slide`.

        Without the attributes the file does not know its side, and any is taken.
        """
        row = self._row_of.get((float(x), float(y)))
        known = self.header.side
        if row is None or (known is not None and abs(side / known - 1.0) > SIDE_TOLERANCE):
            msg = (
                f"{self.where} is a file of {len(self._row_of)} image patches with a side of {self.scale.side:g} px, "
                f"and none is at x {x:g}, y {y:g} with a side of {side:g} px; only its own patches can be read"
            )
            raise SlideError(msg)
        return self.read_patch(row, tile_px)

    def read_patch(self, row: int, tile_px: TilePixels) -> UInt8[np.ndarray, "pixel pixel 3"]:
        """Return the image in a row of the file, resampled as a slide is; raises SlideError for a damaged one."""
        with self._lock:
            if self._file is None:
                msg = f"{self.where} is closed"
                raise SlideError(msg)
            try:
                pixels: UInt8[np.ndarray, "row col 3"] = self._file[IMAGES][row]
            except _READ_ERRORS as error:
                raise read_error(f"{self.where}, row {row},", error) from None
        px = float(self.header.px)
        return resample(pixels, Box(0.0, 0.0, px, px), tile_px, tile_px)

    def thumbnail(self, longest: int) -> UInt8[np.ndarray, "row col 3"]:
        """Return the patches at their places, white between them; see `draw_mosaic` for those that are drawn."""
        corners = self.header.corners
        boxes = np.concatenate([corners, np.full((len(corners), 1), float(self.scale.side))], axis=1)
        return draw_mosaic(self.read_patch, boxes, (self.width, self.height), longest)

    def close(self) -> None:
        """Close the file, and remove the local copy of a remote one."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None
        self._resources.close()

    def __enter__(self) -> "PatchSlide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
