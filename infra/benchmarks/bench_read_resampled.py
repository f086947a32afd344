"""The part of `bench-read` with tiles that are resampled to an exact um/px."""

import statistics
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from bench_read_turns import (
    Work,
    boxes_of,
    decode_all,
    level_0,
    ratio,
    show,
    streams_under,
    take_turns,
    without_kernels,
)
from bench_readers import Tiles
from jaxtyping import UInt8

from raystp.slides.open import open_slide, read_tiles
from raystp.slides.readers.opened import SlideContext
from raystp.slides.readers.openslide_reader import OpenSlideSlide, open_handle
from raystp.slides.readers.resample import Box, resample_into, wide_window
from raystp.slides.readers.scale import SlideScale
from raystp.storage import StoragePath
from raystp.units import MicronsPerPixel, TilePixels

RESAMPLED = ("g256", "real240")
RESAMPLED_SIDE, RESAMPLED_PIXELS = 307.2, 256
"""0.6 um/px from a scan of 0.5."""


def run_resampled(name: str, path: Path, *, tiles: int, rounds: int) -> dict[str, float | str]:
    """Measure tiles that are resampled to an exact um/px, and the filter's share of the time."""
    level = level_0(path)
    boxes = boxes_of(level, RESAMPLED_SIDE, 0.0, tiles).astype(np.float64)
    pixels = TilePixels(RESAMPLED_PIXELS)
    slide = open_slide("bench", StoragePath.of(path), given_mpp=0.5)
    reference = with_openslide(path)
    tiles_out = np.zeros((len(boxes), pixels, pixels, 3), np.uint8)
    read = partial(read_tiles, slide, boxes, pixels, into=tiles_out)
    with_pillow = partial(without_kernels, partial(read_tiles, reference, boxes, pixels, into=tiles_out))
    with_pillow()
    truth = tiles_out.copy()
    side = wide_window(Box(0.0, 0.0, RESAMPLED_SIDE, RESAMPLED_SIDE), pixels, pixels).width
    window = np.zeros((side, side, 3), np.uint8)
    box = Box(2.1, 2.1, 2.1 + RESAMPLED_SIDE, 2.1 + RESAMPLED_SIDE)
    streams = streams_under(level, path, boxes.astype(np.int64))
    works: dict[str, Work] = {
        "limit": lambda: decode_all(level, streams),
        "resize": partial(resample_all, tiles_out, window, box),
        "raystp": read,
        "first": partial(without_kernels, read),
        "openslide": with_pillow,
    }
    seconds = take_turns({name: partial(same_again, work) for name, work in works.items()}, rounds)
    read()
    found: dict[str, float | str] = {
        "slide": name,
        "tiles_per_cpu_s": len(boxes) / statistics.median(seconds["raystp"]),
        "of_limit": ratio(seconds["limit"], seconds["raystp"]),
        "of_limit_with_resize": ratio(
            [a + b for a, b in zip(seconds["limit"], seconds["resize"], strict=True)], seconds["raystp"]
        ),
        "x_openslide": ratio(seconds["openslide"], seconds["raystp"]),
        "first_x_openslide": ratio(seconds["openslide"], seconds["first"]),
        "share_of_resize": ratio(seconds["resize"], seconds["raystp"]),
        "pixels": "equal" if np.array_equal(tiles_out, truth) else "different",
    }
    show(
        f"\n{name}: {len(boxes)} tiles of {RESAMPLED_PIXELS} px resampled from {RESAMPLED_SIDE} (0.6 um/px of 0.5), "
        f"pixels {found['pixels']} to OpenSlide's resampled by Pillow\n"
        f"  raystp {found['tiles_per_cpu_s']:.0f} tiles/CPU-s, {found['of_limit']:.2f} of the limit, "
        f"{found['of_limit_with_resize']:.2f} of decoding and the filter alone, {found['x_openslide']:.2f} x "
        f"OpenSlide ({found['first_x_openslide']:.2f} in the first tiles of a process, by Pillow); "
        f"{found['share_of_resize']:.0%} of the time is the filter\n"
    )
    return found


def resample_all(tiles: Tiles, window: UInt8[np.ndarray, "height width 3"], box: Box) -> None:
    """Resample the same window to all tiles."""
    for tile in tiles:
        resample_into(tile, window, box)


def with_openslide(path: Path) -> OpenSlideSlide:
    """Open a slide with OpenSlide."""
    handle = open_handle("bench", path)
    assert handle is not None  # the bench made this slide
    scale = SlideScale(MicronsPerPixel(0.5), "table")
    return OpenSlideSlide(handle, path, SlideContext("bench", "bench", scale, ExitStack()))


def same_again(work: Work) -> Work:
    """Prepare nothing: the few tiles cached from the round before save little against resampling."""
    return work
