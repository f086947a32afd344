"""Measure one pass over concentric tiles of several sides, beside a run for each side and the largest side alone.

Two slides: one of a single level, where all sides read the same pixels, and a pyramid, where large sides read coarse
levels. Pixels and stored bytes are those of each decoded stored tile, as often as it is decoded. They are counted in
this process with the reader, the units and the batches of `raystp embed`; rates are those of `raystp embed` on Ray.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_embed_slide import MPP, SIDE, make_slide, run_tile
from bench_embed_watch import watch

from raystp import tables
from raystp.artifacts import Artifact
from raystp.slides.tiled.decoders.tiles import StoredTile
from raystp.slides.tiled.reader import LevelReader, Pixels
from raystp.steps.embed.reader import SlideTiles, UnitReader
from raystp.steps.embed.step import plan_units
from raystp.units import TilePixels

SMALLEST_UM = 77.0
UNIT_PLACES, BATCH = 256, 64
GOAL = 1.3
"""Pixels of all sides at most, of those of the side that reads most alone."""


@dataclass(frozen=True)
class ScaleRow:
    """The cost of one run."""

    slide: str
    sides: str
    tiles: int
    seconds: float
    cpu_s: float
    megapixels: float
    megabytes: float

    @property
    def per_s(self) -> float:
        """Tiles per second."""
        return self.tiles / self.seconds


@dataclass
class _Decoded:
    pixels: int = 0
    content: int = 0


class _CountingReaders:
    """Counts what every level's reader decodes while it is open."""

    def __enter__(self) -> _Decoded:
        self._init, decoded = LevelReader.__init__, _Decoded()
        own = self._init

        def counting(reader: LevelReader, *arguments: Any) -> None:
            own(reader, *arguments)
            decode = reader.decode

            def counted(content: StoredTile, pixels: Pixels) -> None:
                decoded.pixels += pixels.shape[0] * pixels.shape[1]
                decoded.content += len(content)
                decode(content, pixels)

            reader.decode = counted

        LevelReader.__init__ = counting  # type: ignore[method-assign, assignment]  # counts, then calls its own
        return decoded

    def __exit__(self, *_: object) -> None:
        LevelReader.__init__ = self._init  # type: ignore[method-assign]


def run_scales(count: int, places: int, folder: Path, actors: int) -> list[ScaleRow]:
    """Print and return the cost of one pass over `count` sides, and of each side alone, on both slides."""
    sides = [SMALLEST_UM * 2**number for number in range(count)]
    rows: list[ScaleRow] = []
    for name, levels in (("one level", 1), ("pyramid", 3)):
        target = folder / name.replace(" ", "-")
        target.mkdir()
        slide = target / "bench.svs"
        make_slide(slide, round(places * (SMALLEST_UM / MPP / SIDE) ** 2), levels=levels)
        _say(f"\n{name}, about {places} places, {SIDE} px from sides of {', '.join(f'{s:g}' for s in sides)} um")
        _say(f"  {'':<28}{'tiles':>7}{'s':>8}{'tiles/s':>9}{'/CPU-s':>8}{'Mpx read':>10}{'MB read':>9}")
        for chosen in (sides, *([side] for side in sides)):
            rows.append(_measure(name, slide, chosen, actors))
            _print(rows[-1])
        _print_ratios(rows[-count - 1 :])
    return rows


def _measure(name: str, slide: Path, sides: Sequence[float], actors: int) -> ScaleRow:
    store = slide.parent / "-".join(f"{side:g}" for side in sides)
    tiles = run_tile(slide, store, sides=sides, stride=SMALLEST_UM)
    decoded = _count(tiles, len(sides))
    job = {
        "store": str(store),
        "tiles": f"tile/{tiles.path.name}",
        "encoder": {"name": "tiny"},
        "unit_tiles": UNIT_PLACES,
        "batch": BATCH,
        "actors": actors,
        "out": str(store / "out"),
    }
    path = store / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    run = watch([sys.executable, str(Path(__file__).parent / "bench_embed_runs.py"), "raystp", str(path)], {}, 600.0)
    if run.status:
        msg = f"the run of {sides} um failed: {run.output}"
        raise RuntimeError(msg)
    record = json.loads((store / "out.json").read_text(encoding="utf-8"))
    ends, rows = zip(*record["progress"], strict=True)
    first, last = ends[0], ends[-1]  # without the first unit, and so without the start of the actors
    return ScaleRow(
        name,
        "all, in one pass" if len(sides) > 1 else f"{sides[0]:g} um alone",
        (sum(rows) - rows[0]) * len(sides),
        last - first,
        run.cpu_at(last) - run.cpu_at(first),
        decoded.pixels / 1e6,
        decoded.content / 1e6,
    )


def _count(tiles: Artifact, scales: int) -> _Decoded:
    """Read every tile once, as an actor does, and return what was decoded."""
    rows = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    slides = {row["slide"]: SlideTiles(row["path"], row["mpp"], row["content"]) for row in rows}
    with _CountingReaders() as decoded:
        read = UnitReader(tiles.path, slides, TilePixels(SIDE), cache=None, buffers=1, scales=scales)
        for unit in plan_units({row["slide"]: row["tiles"] for row in rows}, UNIT_PLACES):
            for start in range(0, unit.rows, BATCH):
                read(unit, start, min(start + BATCH, unit.rows))
    return decoded


def _print(row: ScaleRow) -> None:
    _say(
        f"  {row.sides:<28}{row.tiles:>7}{row.seconds:>8.1f}{row.per_s:>9.0f}{row.tiles / row.cpu_s:>8.0f}"
        f"{row.megapixels:>10.1f}{row.megabytes:>9.2f}"
    )


def _print_ratios(rows: Sequence[ScaleRow]) -> None:
    together, alone = rows[0], rows[1:]
    separate = sum(row.megapixels for row in alone)
    largest, most = alone[-1].megapixels, max(row.megapixels for row in alone)
    _say(f"  {together.megapixels / largest:6.2f} x the pixels of the largest side alone")
    ratio = together.megapixels / most
    _say(f"  {ratio:6.2f} x those of the side that reads most (goal {GOAL}{'' if ratio <= GOAL else ', MISSED'})")
    _say(f"  {separate / together.megapixels:6.2f} x as many pixels in separate runs")
    cpu_s = sum(row.cpu_s / row.tiles for row in alone) / len(alone)
    _say(f"  {cpu_s / (together.cpu_s / together.tiles):6.2f} x as many CPU seconds a tile in separate runs")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
