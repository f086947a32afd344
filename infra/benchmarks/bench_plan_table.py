"""Time, memory and error of `raystp plan` for a table of many slides, beside the same work done for every slide.

The truth is what the steps themselves do without Ray: each of the `DRAWN` different slides is tiled, and its tiles are
read and encoded, in one thread. Its CPU time and the bytes that `embed` reads are compared with two plans: one
that opens all `DRAWN` slides, and one of a table of `ROWS` rows, in which each drawn slide has as many rows as any
other.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from raystp.digests import content_id
from raystp.encoders.encoder import encode
from raystp.encoders.registry import build
from raystp.slides.open import read_tiles_or_fail
from raystp.slides.synthetic.file import write_slide
from raystp.slides.synthetic.slide import draw_slide, draw_stain, tissue_map
from raystp.slides.table import read_slide_table
from raystp.steps.embed.reader import SlideTiles, open_tiled
from raystp.steps.encoder_source import spec_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.plan.sample import measure
from raystp.steps.tile.config import TileConfig
from raystp.units import MicronsPerPixel, TilePixels

DRAWN, ROWS = 40, 30_000
MPP, CELL = MicronsPerPixel(0.5), 64
READ_TILES, BATCH = 256, 16
"""Tiles that are read at once, and that are encoded at once."""
SIDES = (1024, 3072)
"""Smallest and largest side of a slide in px."""


def plan_table() -> list[dict[str, Any]]:
    """Plan the drawn slides, and `ROWS` of them, in processes of their own; return the figures beside the truth."""
    with tempfile.TemporaryDirectory(prefix="bench-plan-") as name:
        folder = Path(name)
        _draw(folder)
        tables = {rows: folder / f"{rows}.csv" for rows in (DRAWN, ROWS)}
        for rows, table in tables.items():
            _write_table(table, rows)
        truth = _truth(tables[DRAWN])
        return [_compared(rows, _planned(table), truth) for rows, table in tables.items()]


def _compared(rows: int, found: dict[str, Any], truth: dict[str, float]) -> dict[str, Any]:
    tile, embed = found.pop("plan")["steps"]
    planned = {"tiles": embed["tiles"], "bytes": embed["read"]}
    planned |= {"tile_h": tile["cpu_hours"], "embed_h": embed["cpu_hours"]}
    return {
        "rows": rows,
        **found,
        **{f"planned_{key}": one["value"] for key, one in planned.items()},
        **{f"interval_{key}": one["half_width"] / one["value"] for key, one in planned.items()},
        **{f"true_{key}": value * rows / DRAWN for key, value in truth.items()},
    }


def report(rows: list[dict[str, Any]]) -> str:
    """Return the figures as lines."""
    lines = []
    for row in rows:
        cost = f"{row['seconds']:.1f} s, {row['cpu_s']:.1f} CPU-s, peak {row['peak_mb']:.0f} MB"
        lines.append(f"{row['rows']:,} rows: {cost}")
        lines.append(f"{'':<10}{'planned':>12}{'interval':>10}{'done':>12}{'error':>8}")
        for key in ("tiles", "bytes", "tile_h", "embed_h"):
            planned, true = row[f"planned_{key}"], row[f"true_{key}"]
            interval, error = row[f"interval_{key}"], planned / true - 1
            lines.append(f"{key:<10}{planned:>12.4g}{interval:>9.1%}{true:>13.4g}{error:>+8.1%}")
    return "\n".join(lines) + "\n"


def _draw(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(DRAWN):
        side = int(rng.integers(SIDES[0] // CELL, SIDES[1] // CELL)) * CELL
        tissues = tissue_map(rng, width=side, height=side, mpp=MPP, cell=CELL)
        image = draw_slide(rng, tissues, cell=CELL, mpp=MPP, stain=draw_stain(rng))
        write_slide(folder / f"{number}.svs", image, mpp=MPP)


def _write_table(path: Path, rows: int) -> None:
    lines = [f"S{number:05d},{number % DRAWN}.svs" for number in range(rows)]
    path.write_text("\n".join(["slide,path", *lines]), encoding="utf-8")


def _planned(table: Path) -> dict[str, Any]:
    """Return the plan, and the time and peak memory of the command."""
    words = ["plan", str(table), "json=true", f"run.store={table.parent / 'store'}"]
    before, start = _cpu_of_children(), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "raystp.cli", *words], stdout=subprocess.PIPE, check=True)
    seconds, cpu_s = time.perf_counter() - start, _cpu_of_children() - before
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"plan": json.loads(done.stdout), "seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak_mb}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _truth(table: Path) -> dict[str, float]:
    """Tile, read and encode each drawn slide; return tiles, bytes read and CPU-hours."""
    config = TileConfig.of({"slides": str(table)})
    start = time.process_time()
    costs = measure(read_slide_table(str(table), None, "/none"), config, None, threads=1)
    tile_s = time.process_time() - start
    encoder = build(spec_of(EncoderConfig()))
    read, start = 0, time.process_time()
    for cost in costs:
        assert cost.boxes is not None
        tiled = SlideTiles(cost.row.path.uri, cost.mpp, content_id(cost.row.path))
        before = _bytes_read()
        with open_tiled(cost.row.slide, tiled, None) as slide:
            for at in range(0, len(cost.boxes), READ_TILES):
                pixels, _ = read_tiles_or_fail(slide, cost.boxes[at : at + READ_TILES], TilePixels(config.tile_px))
                encode(encoder, pixels, device="cpu", precision="float32", batch=BATCH)
            read += _bytes_read() - before
    embed_s = time.process_time() - start
    tiles = float(sum(cost.tiles for cost in costs))
    return {"tiles": tiles, "bytes": float(read), "tile_h": tile_s / 3600, "embed_h": embed_s / 3600}


def _bytes_read() -> int:
    """Return the bytes that this process has read so far, from Linux."""
    text = Path(f"/proc/{os.getpid()}/io").read_text(encoding="utf-8")
    return int(text.partition("rchar: ")[2].partition("\n")[0])
