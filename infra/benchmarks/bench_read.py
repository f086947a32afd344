"""How fast tiles are read, per second of CPU time, next to what libjpeg-turbo alone needs for the same stored tiles.

    python infra/benchmarks/bench_read.py [--out read.json] [--peers SITE_PACKAGES] [--rounds 5] [--tiles 360]

The limit is every stored tile that the tiles touch, decoded once from memory into one buffer that is in the cache, and
that begins where libjpeg-turbo is fastest (a slot of the reader's own): elsewhere the limit is up to 6 % lower.
Readers take turns, round by round, and each figure is the median over the rounds of a ratio within one round, so that
a busy machine weighs on all alike. In each round a reader opens the slide anew and reads elsewhere first: tiles that it
holds from the round before would pass for speed. A speed counts where the pixels are OpenSlide's; else it says how far
they are off. Resampling is to an exact um/px that is no level's; next to it stands what of it is Pillow's own resize.
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
from bench_readers import READERS, Read, Squares, Tiles
from bench_slides import make_slides

from raystp.slides.open import open_slide, read_tiles
from raystp.slides.readers.headers import checked_tiff
from raystp.slides.readers.openslide_reader import OpenSlideSlide, open_handle
from raystp.slides.readers.resample import Box, resample, wide_window
from raystp.slides.readers.scale import SlideScale
from raystp.slides.tiled.buffers import slot
from raystp.slides.tiled.decoders import whole_stream
from raystp.slides.tiled.levels import Level, pyramid
from raystp.slides.tiled.read_plan import Windows, read_plan
from raystp.storage import StoragePath
from raystp.units import MicronsPerPixel, TilePixels


@dataclass(frozen=True)
class Case:
    """Tiles of one side, on a grid that begins at an offset."""

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
"""Tiles that a reader is asked for at a time; all batches go into the same memory, as in front of an encoder."""

WARM = 128
"""Tiles that are read elsewhere before each round."""

Work = Callable[[], object]

RESAMPLED = ("g256", "real240")
RESAMPLED_SIDE, RESAMPLED_PIXELS = 307.2, 256
"""0.6 um/px from a scan of 0.5."""


@dataclass(frozen=True)
class Row:
    """What one reader did in one case."""

    slide: str
    pixels: int
    grid: str
    reader: str
    tiles_per_cpu_s: float
    of_limit: float
    x_openslide: float
    off_by: int
    """Largest difference to OpenSlide's pixels; a speed counts where it is 0."""


def main() -> None:
    """Make the slides, let the readers take turns, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--peers", type=Path, help="a site-packages folder in which peers are installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=360, help="tiles a case, about")
    options = parser.parse_args()
    if options.peers:
        site.addsitedir(str(options.peers))
    with tempfile.TemporaryDirectory() as folder:
        slides = make_slides(Path(folder))
        say(f"slides: {', '.join(slides)}\n")
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


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line)
    sys.stdout.flush()


def run_case(case: Case, path: Path, *, tiles: int, rounds: int) -> list[Row]:
    """Measure all readers that import on one case."""
    level = level_0(path)
    squares = squares_of(level, case.pixels, case.offset, tiles)
    outs = np.zeros((len(squares), case.pixels, case.pixels, 3), np.uint8)
    READERS["openslide"](path)(squares, outs)
    truth, off_by = outs.copy(), {}
    for name in [name for name in READERS if can_open(name, path)]:
        outs[:] = 0
        READERS[name](path)(squares, outs)
        off_by[name] = int(np.abs(outs.astype(np.int16) - truth).max())
    streams = touched(level, path, squares)
    elsewhere = squares_of(level, case.pixels, case.offset, 0, last=WARM)
    works: dict[str, Callable[[], Work]] = {"limit": lambda: partial(decode_all, level, streams)}
    for name in off_by:
        works[name] = partial(fresh, READERS[name], path, (squares, elsewhere), outs[:BATCH])
    seconds = take_turns(works, rounds)
    rows = [
        Row(
            *(case.slide, case.pixels, case.grid, name),
            tiles_per_cpu_s=len(squares) / statistics.median(seconds[name]),
            of_limit=ratio(seconds["limit"], seconds[name]),
            x_openslide=ratio(seconds["openslide"], seconds[name]),
            off_by=off_by.get(name, 0),
        )
        for name in works
    ]
    megapixels = len(streams) * level.tile_width * level.tile_height / 1e6
    say(
        f"\n{case.slide}: {len(squares)} tiles of {case.pixels} px, {case.grid}; {len(streams)} stored tiles of "
        f"{level.tile_width} px, limit {megapixels / statistics.median(seconds['limit']):.0f} MPix per CPU-s\n"
    )
    say_rows(rows)
    return rows


def say_rows(rows: list[Row]) -> None:
    """Print a line per reader."""
    say(f"  {'reader':<12}{'tiles/CPU-s':>12}{'of limit':>10}{'x OpenSlide':>12}  pixels\n")
    for row in rows:
        pixels = "-" if row.reader == "limit" else "equal" if row.off_by == 0 else f"off by up to {row.off_by}"
        say(f"  {row.reader:<12}{row.tiles_per_cpu_s:>12.0f}{row.of_limit:>10.2f}{row.x_openslide:>12.2f}  {pixels}\n")


def run_resampled(name: str, path: Path, *, tiles: int, rounds: int) -> dict[str, float | str]:
    """Measure tiles at an exact um/px that has to be resampled, and Pillow's part of the time."""
    level = level_0(path)
    squares = squares_of(level, RESAMPLED_SIDE, 0.0, tiles).astype(np.float64)
    pixels = TilePixels(RESAMPLED_PIXELS)
    slide = open_slide("bench", StoragePath.of(path), given_mpp=0.5)
    handle = open_handle("bench", path)
    assert handle is not None  # the bench drew it
    truth = OpenSlideSlide("bench", handle, where="bench", scale=SlideScale(MicronsPerPixel(0.5), ""), keep=ExitStack())
    same = np.array_equal(read_tiles(slide, squares[:50], pixels), read_tiles(truth, squares[:50], pixels))
    side = wide_window(Box(0.0, 0.0, RESAMPLED_SIDE, RESAMPLED_SIDE), pixels, pixels).width
    window = np.zeros((side, side, 3), np.uint8)
    box = Box(2.1, 2.1, 2.1 + RESAMPLED_SIDE, 2.1 + RESAMPLED_SIDE)
    streams = touched(level, path, squares.astype(np.int64))
    tiles_out = np.zeros((len(squares), pixels, pixels, 3), np.uint8)
    works: dict[str, Work] = {
        "limit": lambda: decode_all(level, streams),
        "pillow": lambda: [resample(window, box, pixels, pixels) for _ in squares],
        "raystp": lambda: read_tiles(slide, squares, pixels, into=tiles_out),
        "openslide": lambda: read_tiles(truth, squares, pixels, into=tiles_out),
    }
    seconds = take_turns({name: partial(same_again, work) for name, work in works.items()}, rounds)
    found: dict[str, float | str] = {
        "slide": name,
        "tiles_per_cpu_s": len(squares) / statistics.median(seconds["raystp"]),
        "of_limit": ratio(seconds["limit"], seconds["raystp"]),
        "of_limit_with_resize": ratio(
            [a + b for a, b in zip(seconds["limit"], seconds["pillow"], strict=True)], seconds["raystp"]
        ),
        "x_openslide": ratio(seconds["openslide"], seconds["raystp"]),
        "share_of_resize": ratio(seconds["pillow"], seconds["raystp"]),
        "pixels": "equal" if same else "different",
    }
    say(
        f"\n{name}: {len(squares)} tiles of {RESAMPLED_PIXELS} px resampled from {RESAMPLED_SIDE} (0.6 um/px of 0.5), "
        f"one filter for both, pixels {found['pixels']}\n"
        f"  raystp {found['tiles_per_cpu_s']:.0f} tiles/CPU-s, {found['of_limit']:.2f} of the limit, "
        f"{found['of_limit_with_resize']:.2f} of decoding and Pillow's resize alone, {found['x_openslide']:.2f} x "
        f"OpenSlide; {found['share_of_resize']:.0%} of the time is Pillow's resize\n"
    )
    return found


def in_batches(read: Read, squares: Squares, tiles: Tiles) -> None:
    """Read squares batch by batch into the same memory."""
    for start in range(0, len(squares), len(tiles)):
        part = squares[start : start + len(tiles)]
        read(part, tiles[: len(part)])


def fresh(make: Callable[[Path], Read], path: Path, places: tuple[Squares, Squares], tiles: Tiles) -> Work:
    """Open a slide anew and read elsewhere in it, so that nothing of what is measured was read before."""
    squares, elsewhere = places
    read = make(path)
    in_batches(read, elsewhere, tiles)
    return partial(in_batches, read, squares, tiles)


def can_open(name: str, path: Path) -> bool:
    """Say whether a reader's package imports and opens the slide; if not, why not is said aloud."""
    try:
        READERS[name](path)
    except ImportError as error:
        say(f"  {name} is left out: {error}\n")
    except (OSError, ValueError, RuntimeError) as error:
        say(f"  {name} is left out: it does not open {path.name}: {error}\n")
    else:
        return True
    return False


def level_0(path: Path) -> Level:
    """Return the finest level of a slide."""
    with checked_tiff("bench", path) as pages:
        seen = pyramid(pages)
    assert seen is not None
    return seen.levels[0]


def squares_of(level: Level, side: float, offset: float, tiles: int, *, last: int = 0) -> Squares:
    """Return about so many squares in rows over all of the width, row by row from the top, or the `last` of all."""
    x = np.arange(offset, level.width - side, side)
    y = np.arange(offset, level.height - side, side)
    y = y[-round(last / len(x)) :] if last else y[: max(1, round(tiles / len(x)))]
    places = np.stack([*(axis.ravel() for axis in np.meshgrid(x, y)), np.full(len(x) * len(y), side)], axis=1)
    return places.astype(np.int64) if float(side).is_integer() else places


def touched(level: Level, path: Path, squares: Squares) -> list[bytes]:
    """Return the JPEG streams of all stored tiles under the squares, each once."""
    left, top = squares[:, 0], squares[:, 1]
    side = np.full(len(squares), int(np.ceil(squares[:, 2].max())))
    tiles = read_plan(level, Windows(np.arange(len(squares)), left, top, side, side)).tiles
    content = memoryview(path.read_bytes())
    places = [(int(level.offsets[tile]), int(level.counts[tile])) for tile in tiles]
    return [whole_stream(level, content[offset : offset + count]) for offset, count in places]


def decode_all(level: Level, streams: list[bytes]) -> None:
    """Do what no reader can do without."""
    buffer = slot((level.tile_height, level.tile_width, 3))
    for stream in streams:
        simplejpeg.decode_jpeg(stream, "RGB", buffer=buffer)


def take_turns(works: dict[str, Callable[[], Work]], rounds: int) -> dict[str, list[float]]:
    """Return CPU seconds, of all threads, of each work in each round; preparing it does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, prepare in works.items():
            work = prepare()
            began = time.process_time()
            work()
            seconds[name].append(time.process_time() - began)
    return seconds


def same_again(work: Work) -> Work:
    """Prepare nothing: what a few slots keep from the round before weighs nothing beside resampling."""
    return work


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median over the rounds of a ratio within one round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


if __name__ == "__main__":
    main()
