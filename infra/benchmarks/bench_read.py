"""Measure tiles read per CPU-second, against libjpeg-turbo alone on the same stored tiles.

    python infra/benchmarks/bench_read.py [--out read.json] [--peers SITE_PACKAGES] [--rounds 5] [--tiles 360]

The limit decodes every stored tile under the tiles once, from memory into one buffer in the processor's cache. The
buffer is one of the reader's own, at an address where libjpeg-turbo is fastest. At other addresses the limit is up to
6 % lower. Readers take turns in rounds, so that other load affects all. Each figure is the median over the rounds of a
ratio within one round. In each round a reader opens the slide again and reads elsewhere first,
so that no tile is cached from the round before. A speed counts only if the pixels equal OpenSlide's; otherwise the
largest difference is shown. Resampled tiles have a um/px between two levels; Pillow's share of their time is shown.
"""

import argparse
import json
import platform
import site
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from bench_readers import READERS, Boxes, Read, Tiles
from bench_slides import make_slides

from raystp.slides.open import open_slide, read_tiles
from raystp.slides.readers.headers import checked_tiff
from raystp.slides.readers.opened import SlideContext
from raystp.slides.readers.openslide_reader import OpenSlideSlide, open_handle
from raystp.slides.readers.resample import Box, resample, wide_window
from raystp.slides.readers.scale import SlideScale
from raystp.slides.tiled.buffers import new_buffer
from raystp.slides.tiled.decoders.tiles import complete_stream
from raystp.slides.tiled.levels import Level, find_pyramid
from raystp.slides.tiled.read_again import Windows, stored_tiles
from raystp.storage import StoragePath
from raystp.units import MicronsPerPixel, TilePixels


@dataclass(frozen=True)
class Case:
    """Tiles of one side, on a grid with an offset."""

    slide: str
    pixels: int
    offset: int
    grid: str


CASES = (
    Case("g256", 256, 0, "aligned"),
    Case("g256", 256, 128, "unaligned"),
    Case("g256", 224, 0, "unaligned"),
    Case("svs240", 240, 0, "aligned"),
    Case("svs240", 256, 0, "unaligned"),
    Case("svs240", 224, 0, "unaligned"),
    Case("real240", 240, 0, "aligned"),
    Case("real240", 256, 0, "unaligned"),
    Case("real240", 224, 0, "unaligned"),
)
BATCH = 64
"""Tiles of one request; all batches are read into the same memory, as for an encoder."""

WARM = 128
"""Tiles that are read elsewhere before each round."""

Work = Callable[[], object]

RESAMPLED = ("g256", "real240")
RESAMPLED_SIDE, RESAMPLED_PIXELS = 307.2, 256
"""0.6 um/px from a scan of 0.5."""


@dataclass(frozen=True)
class Row:
    """One reader's result in one case."""

    slide: str
    pixels: int
    grid: str
    reader: str
    tiles_per_cpu_s: float
    of_limit: float
    x_openslide: float
    off_by: int
    """Largest difference to OpenSlide's pixels; a speed counts only if it is 0."""


def main() -> None:
    """Make the slides, measure the readers in turns, and print one table per case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--peers", type=Path, help="a site-packages folder with the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=360, help="tiles per case, approximately")
    options = parser.parse_args()
    if options.peers:
        site.addsitedir(str(options.peers))
    with tempfile.TemporaryDirectory() as folder:
        slides = make_slides(Path(folder))
        show(f"slides: {', '.join(slides)}\n")
        rows = []
        for case in [case for case in CASES if case.slide in slides]:
            rows += run_case(case, slides[case.slide], tiles=options.tiles, rounds=options.rounds)
        resampled = [
            run_resampled(name, slides[name], tiles=options.tiles // 2, rounds=options.rounds)
            for name in RESAMPLED
            if name in slides
        ]
    if options.out:
        found = {"machine": platform.processor() or platform.machine(), "rounds": options.rounds}
        found |= {"rows": [asdict(row) for row in rows], "resampled": resampled}
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def show(line: str) -> None:
    """Write a line to stdout, and flush it."""
    sys.stdout.write(line)
    sys.stdout.flush()


def run_case(case: Case, path: Path, *, tiles: int, rounds: int) -> list[Row]:
    """Measure all readers that can be imported on one case."""
    level = level_0(path)
    boxes = boxes_of(level, case.pixels, case.offset, tiles)
    outs = np.zeros((len(boxes), case.pixels, case.pixels, 3), np.uint8)
    READERS["openslide"](path)(boxes, outs)
    truth, off_by = outs.copy(), {}
    for name in [name for name in READERS if can_open(name, path)]:
        outs[:] = 0
        READERS[name](path)(boxes, outs)
        off_by[name] = int(np.abs(outs.astype(np.int16) - truth).max())
    streams = streams_under(level, path, boxes)
    elsewhere = boxes_of(level, case.pixels, case.offset, 0, last=WARM)
    works: dict[str, Callable[[], Work]] = {"limit": lambda: partial(decode_all, level, streams)}
    for name in off_by:
        works[name] = partial(fresh, READERS[name], path, (boxes, elsewhere), outs[:BATCH])
    seconds = take_turns(works, rounds)
    rows = [
        Row(
            *(case.slide, case.pixels, case.grid, name),
            tiles_per_cpu_s=len(boxes) / statistics.median(seconds[name]),
            of_limit=ratio(seconds["limit"], seconds[name]),
            x_openslide=ratio(seconds["openslide"], seconds[name]),
            off_by=off_by.get(name, 0),
        )
        for name in works
    ]
    megapixels = len(streams) * level.tile_width * level.tile_height / 1e6
    show(
        f"\n{case.slide}: {len(boxes)} tiles of {case.pixels} px, {case.grid}; {len(streams)} stored tiles of "
        f"{level.tile_width} px, limit {megapixels / statistics.median(seconds['limit']):.0f} MPix per CPU-s\n"
    )
    print_rows(rows)
    return rows


def print_rows(rows: list[Row]) -> None:
    """Print a line per reader."""
    show(f"  {'reader':<12}{'tiles/CPU-s':>12}{'of limit':>10}{'x OpenSlide':>12}  pixels\n")
    for row in rows:
        pixels = "-" if row.reader == "limit" else "equal" if row.off_by == 0 else f"off by up to {row.off_by}"
        show(f"  {row.reader:<12}{row.tiles_per_cpu_s:>12.0f}{row.of_limit:>10.2f}{row.x_openslide:>12.2f}  {pixels}\n")


def run_resampled(name: str, path: Path, *, tiles: int, rounds: int) -> dict[str, float | str]:
    """Measure tiles that are resampled to an exact um/px, and Pillow's share of the time."""
    level = level_0(path)
    boxes = boxes_of(level, RESAMPLED_SIDE, 0.0, tiles).astype(np.float64)
    pixels = TilePixels(RESAMPLED_PIXELS)
    slide = open_slide("bench", StoragePath.of(path), given_mpp=0.5)
    reference = with_openslide(path)
    same = np.array_equal(read_tiles(slide, boxes[:50], pixels), read_tiles(reference, boxes[:50], pixels))
    side = wide_window(Box(0.0, 0.0, RESAMPLED_SIDE, RESAMPLED_SIDE), pixels, pixels).width
    window = np.zeros((side, side, 3), np.uint8)
    box = Box(2.1, 2.1, 2.1 + RESAMPLED_SIDE, 2.1 + RESAMPLED_SIDE)
    streams = streams_under(level, path, boxes.astype(np.int64))
    tiles_out = np.zeros((len(boxes), pixels, pixels, 3), np.uint8)
    works: dict[str, Work] = {
        "limit": lambda: decode_all(level, streams),
        "pillow": lambda: [resample(window, box, pixels, pixels) for _ in boxes],
        "raystp": lambda: read_tiles(slide, boxes, pixels, into=tiles_out),
        "openslide": lambda: read_tiles(reference, boxes, pixels, into=tiles_out),
    }
    seconds = take_turns({name: partial(same_again, work) for name, work in works.items()}, rounds)
    found: dict[str, float | str] = {
        "slide": name,
        "tiles_per_cpu_s": len(boxes) / statistics.median(seconds["raystp"]),
        "of_limit": ratio(seconds["limit"], seconds["raystp"]),
        "of_limit_with_resize": ratio(
            [a + b for a, b in zip(seconds["limit"], seconds["pillow"], strict=True)], seconds["raystp"]
        ),
        "x_openslide": ratio(seconds["openslide"], seconds["raystp"]),
        "share_of_resize": ratio(seconds["pillow"], seconds["raystp"]),
        "pixels": "equal" if same else "different",
    }
    show(
        f"\n{name}: {len(boxes)} tiles of {RESAMPLED_PIXELS} px resampled from {RESAMPLED_SIDE} (0.6 um/px of 0.5), "
        f"one filter for both, pixels {found['pixels']}\n"
        f"  raystp {found['tiles_per_cpu_s']:.0f} tiles/CPU-s, {found['of_limit']:.2f} of the limit, "
        f"{found['of_limit_with_resize']:.2f} of decoding and Pillow's resize alone, {found['x_openslide']:.2f} x "
        f"OpenSlide; {found['share_of_resize']:.0%} of the time is Pillow's resize\n"
    )
    return found


def with_openslide(path: Path) -> OpenSlideSlide:
    """Open a slide with OpenSlide."""
    handle = open_handle("bench", path)
    assert handle is not None  # the bench made this slide
    scale = SlideScale(MicronsPerPixel(0.5), "table")
    return OpenSlideSlide(handle, path, SlideContext("bench", "bench", scale, ExitStack()))


def in_batches(read: Read, boxes: Boxes, tiles: Tiles) -> None:
    """Read boxes in batches into the same memory."""
    for start in range(0, len(boxes), len(tiles)):
        part = boxes[start : start + len(tiles)]
        read(part, tiles[: len(part)])


def fresh(make: Callable[[Path], Read], path: Path, boxes_and_others: tuple[Boxes, Boxes], tiles: Tiles) -> Work:
    """Open a slide again and read elsewhere in it, so that no measured tile is cached."""
    boxes, elsewhere = boxes_and_others
    read = make(path)
    in_batches(read, elsewhere, tiles)
    return partial(in_batches, read, boxes, tiles)


def can_open(name: str, path: Path) -> bool:
    """Return whether a reader can be imported and opens the slide; print the reason if not."""
    try:
        READERS[name](path)
    except ImportError as error:
        show(f"  {name} is skipped: {error}\n")
    except (OSError, ValueError, RuntimeError) as error:
        show(f"  {name} is skipped: it does not open {path.name}: {error}\n")
    else:
        return True
    return False


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


def same_again(work: Work) -> Work:
    """Prepare nothing: the few tiles cached from the round before save little against resampling."""
    return work


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median over the rounds of a ratio within one round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


if __name__ == "__main__":
    main()
