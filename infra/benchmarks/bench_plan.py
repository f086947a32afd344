"""Cost and error of `raystp plan` for 30,000 slides; then driver time and memory to plan the units of `embed`.

`make bench-plan` prints a table of each. For the units, no slide is read and no unit runs. The cost grows with the
number of work units, slides x tiles / unit_tiles, and does not depend on the tiles' content.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from bench_plan_table import plan_table, report

from raystp.cluster.session import session
from raystp.cluster.streams.tiles import build_plan
from raystp.cluster.streams.units import StreamResources
from raystp.steps.embed.outputs import EncoderOutput
from raystp.steps.embed.reader import SlideTiles
from raystp.steps.embed.step import plan_units
from raystp.steps.embed.work import EmbedWork
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.storage import StoragePath
from raystp.units import TilePixels

COHORTS = ((100, 20_000), (1_000, 20_000), (10_000, 20_000))
UNIT_TILES = 2048


def main() -> None:
    """Plan cohorts of growing size, one after the other, and print the cost of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--table-only", action="store_true", help="leave out the work units, which start Ray")
    options = parser.parse_args()
    planned = plan_table()
    sys.stdout.write(f"{report(planned)}\n")
    if options.table_only:
        return
    with session():
        rows = [_plan(slides, tiles) for slides, tiles in COHORTS]
    sys.stdout.write(f"{'slides':>8} {'tiles each':>10} {'units':>8} {'units s':>8} {'plan s':>8} {'driver +MB':>10}\n")
    for row in rows:
        sys.stdout.write(
            f"{row['slides']:>8} {row['tiles']:>10} {row['units']:>8} {row['units_s']:>8.2f} {row['plan_s']:>8.2f} "
            f"{row['driver_mb']:>10.1f}\n"
        )
    if options.out:
        options.out.write_text(json.dumps([*planned, *rows], indent=1), encoding="utf-8")


def _plan(slides: int, tiles: int) -> dict[str, Any]:
    """Plan a cohort and discard the plan; memory is the growth of this process's peak."""
    table = {f"slide-{number:05d}": tiles for number in range(slides)}
    names = {slide: SlideTiles(f"/slides/{slide}.svs", 0.5, "") for slide in table}
    work = EmbedWork(
        StoragePath("/none"),
        (EncoderOutput(StoragePath("/none"), source_of(EncoderConfig(), "/none"), 64),),
        names,
        TilePixels(224),
        "float32",
    )
    before = _peak_mb()
    start = time.perf_counter()
    units = plan_units(table, UNIT_TILES)
    planned = time.perf_counter()
    plan = build_plan(work, units, StreamResources(encoders=1, batch_tiles=64, threads=1))
    done = time.perf_counter()
    del plan
    return {
        "slides": slides,
        "tiles": tiles,
        "units": len(units),
        "units_s": planned - start,
        "plan_s": done - planned,
        "driver_mb": _peak_mb() - before,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
