"""What all parts of `bench-read` share: boxes, the limit, and turns."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import simplejpeg
from bench_readers import Boxes

from raystp.slides.readers import resample
from raystp.slides.readers.headers import checked_tiff
from raystp.slides.readers.kernels import LateKernel
from raystp.slides.tiled.buffers import new_buffer
from raystp.slides.tiled.decoders.tiles import complete_stream
from raystp.slides.tiled.levels import Level, find_pyramid
from raystp.slides.tiled.outputs import copies
from raystp.slides.tiled.read_again import Windows, stored_tiles

Work = Callable[[], object]


def show(line: str) -> None:
    """Write a line to stdout, and flush it."""
    sys.stdout.write(line)
    sys.stdout.flush()


def level_0(path: Path) -> Level:
    """Return the finest level of a slide."""
    with checked_tiff("bench", path) as pages:
        pyramid = find_pyramid(pages)
    assert pyramid is not None
    return pyramid.levels[0]


def boxes_of(level: Level, side: float, offset: float, tiles: int, *, last: int = 0) -> Boxes:
    """Return about `tiles` boxes in rows of the full width, from the top, or about `last` ones from the bottom."""
    x = np.arange(offset, level.width - side, side)
    y = np.arange(offset, level.height - side, side)
    y = y[-round(last / len(x)) :] if last else y[: max(1, round(tiles / len(x)))]
    boxes = np.stack([*(axis.ravel() for axis in np.meshgrid(x, y)), np.full(len(x) * len(y), side)], axis=1)
    return boxes.astype(np.int64) if float(side).is_integer() else boxes


def streams_under(level: Level, path: Path, boxes: Boxes) -> list[bytes]:
    """Return the JPEG streams of all stored tiles under the boxes, each once."""
    left, top = boxes[:, 0], boxes[:, 1]
    side = np.full(len(boxes), int(np.ceil(boxes[:, 2].max())))
    tiles = np.unique(stored_tiles(level, Windows(np.arange(len(boxes)), left, top, side, side))).tolist()
    content = memoryview(path.read_bytes())
    ranges = [(int(level.offsets[tile]), int(level.counts[tile])) for tile in tiles]
    return [complete_stream(level, content[offset : offset + count]) for offset, count in ranges]


def decode_all(level: Level, streams: list[bytes]) -> None:
    """Decode all streams: the work that every reader has to do."""
    buffer = new_buffer((level.tile_height, level.tile_width, 3))
    for stream in streams:
        simplejpeg.decode_jpeg(stream, "RGB", buffer=buffer)


def take_turns(works: dict[str, Callable[[], Work]], rounds: int) -> dict[str, list[float]]:
    """Return CPU seconds, of all threads, of each work in each round, without its preparation."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, prepare in works.items():
            work = prepare()
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median over the rounds of a ratio within one round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def without_kernels(work: Work) -> None:
    """Work as in the first tiles of a process."""
    copy, resize = (LateKernel(late.load, after=sys.maxsize) for late in (copies.COPY_KERNEL, resample.FILTER))
    with mock.patch.object(copies, "COPY_KERNEL", copy), mock.patch.object(resample, "FILTER", resize):
        work()
