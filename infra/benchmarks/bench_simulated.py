"""All 28,664 slides of the largest published cohort through `embed`, simulated: killed three times, and resumed.

    python infra/benchmarks/bench_simulated.py [--slides 28664] [--kills 3] [--factor 50]

The step is the product's: plan of units, Ray Data on a Ray cluster, attempt ledger, one parquet file and one commit
record for each unit in an S3 endpoint. Only reading and encoding are replaced: they sleep for `--tile-ms` a tile,
divided by `--factor`, and a vector has two numbers. The driver is killed at random places (SIGKILL) and run again. At
the end every record is counted and read.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from simulated import cluster as clusters
from simulated.cohort import SLIDES, make_tiles, tile_counts
from simulated.run import Plan, kill_places, per_thousand, run
from simulated.verify import computed, verified

from raystp.artifacts import resolve
from raystp.steps.embed.step import plan_units
from raystp.storage import StoragePath

BENCHMARKS = Path(__file__).parent
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(BENCHMARKS.parents[1]), str(BENCHMARKS)]),
    "RAY_AUTH_MODE": "disabled",  # a cluster on loopback that ends with the run
    "RAY_worker_niceness": "0",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Of all processes: the endpoint, the nodes and Ray's workers, the drivers."""

UNIT_TILES = 2048
FAULTS = (
    *(f"{kind}_{fault}" for kind in ("records", "files", "noted") for fault in ("lost", "doubled")),
    *("rows_wrong", "read_wrong", "markers_left", "failures"),
)
"""Counts of a finished run that must be 0."""


def main() -> None:
    """Simulate the cohort, run it with its kills, count, and print the figures."""
    options = _options()
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # all that was started ends too
    with tempfile.TemporaryDirectory(prefix="simulated-", dir=options.folder) as name:
        figures = simulate(options, Path(name))
    for row in figures["rows"]:
        _say(
            f"run {row['run']}, {row['slides']:>9,.0f} slides: {row['seconds']:.0f} s and {row['driver_cpu_s']:.0f} "
            f"CPU-s of driver for {figures['step']:,}; driver {row['private_mb']:.0f} MB, GCS {row['gcs_mb']:.0f} MB"
        )
    _say(f"records lost {figures['verified']['records_lost']}, doubled {figures['verified']['records_doubled']}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    if found := {name: figures["verified"][name] for name in FAULTS if figures["verified"][name]}:
        _say(f"FAULTS: {found}")
        sys.exit(1)


def simulate(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return all figures of a run."""
    counts = {f"slide-{number:05d}": tiles for number, tiles in enumerate(tile_counts(options.slides, options.seed))}
    units = len(plan_units(counts, UNIT_TILES))
    with endpoint(folder) as port:
        store = store_at(port)
        began = time.monotonic()
        tiles = make_tiles(store, options.slides, options.seed)
        made = f"made in {time.monotonic() - began:.0f} s"
        _say(f"{options.slides:,} slides, {sum(counts.values()):,} tiles, {units:,} units, {made}")
        before = _requests(port)
        (folder / "notes").mkdir()
        with clusters.running(options.nodes, max(1, options.encoders // options.nodes)) as cluster:
            plan = Plan(
                {
                    **_arguments(options, store, tiles.path, cluster.address),
                    "notes": str(folder / "notes"),
                    "units": units,
                },
                folder,
                units,
                options.slides,
                kill_places(units, options.kills, options.seed),
            )
            series = run(plan, cluster)
        requests = {name: count - before.get(name, 0) for name, count in _requests(port).items()}
        counted = verified(resolve(store.uri, "embed/simulated", "embed"), counts, UNIT_TILES, options.sample)
    again = computed(folder / "notes")
    step = 1000 if options.slides > 4000 else max(1, options.slides // 4)  # noqa: PLR2004 -- a shorter table of a small run
    return {
        **{key: getattr(options, key) for key in ("slides", "kills", "factor", "tile_ms", "encoders", "nodes", "seed")},
        "kill_at": plan.kill_at,
        "killed_at": series.killed_at,
        "seconds": series.seconds,
        "recomputed": sum(again.values()) - len(again),
        "requests": requests,
        "verified": counted,
        "step": step,
        "rows": per_thousand(series, plan, step),
        "series": series.lines[:: max(1, len(series.lines) // 500)],
    }


def _arguments(options: argparse.Namespace, store: StoragePath, tiles: StoragePath, address: str) -> dict[str, Any]:
    run = {"store": store.uri, "address": address, "encoders": options.encoders, "batch_tiles": options.batch_tiles}
    config = {"tiles": tiles.uri, "name": "simulated", "unit_tiles": UNIT_TILES, "run": run}
    return {"config": config, "tile_s": options.tile_ms / 1000 / options.factor}


@contextmanager
def endpoint(folder: Path) -> Iterator[int]:
    """Run the S3 endpoint in a process of its own; yield its port."""
    command = [sys.executable, "-m", "simulated.endpoint", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(cast("Any", process.stdout).readline())
    finally:
        process.terminate()
        process.wait()


def store_at(port: int) -> StoragePath:
    """Return the store in the endpoint."""
    return StoragePath(f"s3://cohort/store?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1")


def _requests(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/requests") as answer:
        found: dict[str, int] = json.load(answer)
        return found


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--slides", type=int, default=SLIDES)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--tile-ms", type=float, default=0.6, help="of the encoder, measured for `tiny` on one core")
    parser.add_argument("--factor", type=float, default=50.0, help="by which a tile is faster than that")
    parser.add_argument("--batch-tiles", type=int, default=UNIT_TILES // 2)
    parser.add_argument("--encoders", type=int, default=4)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--sample", type=int, default=2_000, help="units whose files are read at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the objects: 2 GB for all slides")
    return parser.parse_args()


if __name__ == "__main__":
    main()
