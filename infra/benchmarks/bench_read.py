"""Measure tiles read per CPU-second, against libjpeg-turbo alone on the same stored tiles.

    python infra/benchmarks/bench_read.py [--out read.json] [--peers SITE_PACKAGES] [--rounds 5] [--tiles 360]

The limit decodes every stored tile under the tiles once, from memory into one buffer in the processor's cache. The
buffer is one of the reader's own, at an address where libjpeg-turbo is fastest. At other addresses the limit is up to
6 % lower. Readers take turns in rounds, so that other load affects all. Each figure is the median over the rounds of a
ratio within one round. In each round a reader opens the slide again and reads elsewhere first,
so that no tile is cached from the round before. A speed counts only if the pixels equal OpenSlide's; otherwise the
largest difference is shown. Resampled tiles have a um/px between two levels; OpenSlide's are resampled by Pillow.
`raystp` is as in a long run, with compiled kernels; `first` is as in the first tiles of a process, without them.
"""

import argparse
import json
import platform
import site
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from bench_read_resampled import RESAMPLED, run_resampled
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
from bench_readers import READERS, Boxes, Read, Tiles
from bench_slides import make_slides

from raystp.slides.readers import resample
from raystp.slides.tiled.outputs import copies


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
    copies.COPY_KERNEL.load()
    resample.FILTER.load()
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
    again = partial(fresh, READERS["raystp"], path, (boxes, elsewhere), outs[:BATCH])
    works["first"] = lambda: partial(without_kernels, again())
    off_by["first"] = off_by["raystp"]
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


if __name__ == "__main__":
    main()
