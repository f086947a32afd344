"""The model of `raystp plan --cluster.nodes` beside measurements: 1, 2 and 4 nodes, and ten times the slides, twice.

    python infra/benchmarks/bench_capacity.py [--units 36] [--unit-s 1.5]

Each number of nodes is a run of `bench_simulated.py` on as many raylets of this machine, with one encoder each and
`--units` work units for each encoder, which sleep for `--unit-s`. The driver of 286, 2,866 and 28,664 slides runs until
its first unit would start. At the end the model is printed for the whole cohort on 4, 64 and 1,000 nodes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_simulated import ENVIRONMENT, UNIT_TILES, endpoint, simulate, store_at
from simulated import cluster as clusters
from simulated.cohort import SLIDES, TILES, make_tiles, tile_counts

from raystp.cluster.streams.units import MAX_BLOCKS
from raystp.steps.embed.config import EmbedRun
from raystp.steps.embed.step import plan_units
from raystp.steps.plan.capacity import CohortSize, Load, capacity, load_of
from raystp.steps.plan.config import ClusterConfig, Prices
from raystp.steps.plan.text import cluster_lines
from raystp.storage import StoragePath

NODES = (1, 2, 4)
STEPS = (SLIDES // 100, SLIDES // 10, SLIDES)
GOAL = 0.2
"""Most that the model may differ from a measurement."""
READ_BYTES_OF_TILE, TILES_OF_GET, VECTOR_BYTES = 10_000, 16, 1536 * 4 * 0.85
"""Assumed for the whole cohort: compressed pixels of a tile, tiles of a range request, a stored vector of `uni_v2`."""
PRICES = Prices(get_per_1000=0.0004, put_per_1000=0.005, gpu_hour=1.5)


def main() -> None:
    """Measure, compare, and print the model for the whole cohort."""
    options = _options()
    os.environ.update(ENVIRONMENT)
    rows = [row for nodes in NODES for row in _nodes(nodes, options)] + _drivers()
    _say(f"{'of':<32}{'model':>12}{'measured':>12}{'error':>8}")
    for row in rows:
        missed = " MISSED" if abs(row["error"]) > GOAL else ""
        _say(f"{row['of']:<32}{row['model']:>12.4g}{row['measured']:>12.4g}{row['error']:>+8.1%}{missed}")
    whole = _whole()
    _say("\n".join(["", *cluster_lines(whole)]))
    if options.out:
        options.out.write_text(json.dumps({"rows": rows, "whole": whole}, indent=1), encoding="utf-8")


def _nodes(nodes: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run on so many nodes; return the model and the measurement of each term."""
    slides = _slides_of(options.units * nodes)
    cohort = _cohort(slides)
    wanted = argparse.Namespace(slides=slides, kills=0, factor=1.0, encoders=nodes, nodes=nodes, sample=0, seed=0)
    wanted.batch_tiles = EmbedRun().batch_tiles
    wanted.tile_ms = 1000 * options.unit_s * cohort.units / cohort.tiles
    with tempfile.TemporaryDirectory(prefix="capacity-") as name:
        found = simulate(wanted, Path(name))
    cluster = ClusterConfig(gpus=1, request_ms=_request_ms())
    waited_s = wanted.batch_tiles * wanted.tile_ms / 1000 / 2  # the simulated reader takes half of the encoder's time
    model = load_of(replace(cohort, first_batch_s=waited_s), nodes, cluster, wanted.tile_ms / 1000)
    running = [line for line in found["series"] if line["units"]]
    first, last = running[0], next(line for line in running if line["units"] == running[-1]["units"])
    rate = (last["units"] - first["units"]) / (last["time"] - first["time"])
    requests = found["requests"]
    return [
        _row(f"{nodes} nodes: units/s", _rate(model, cohort), rate),
        _row(f"{nodes} nodes: driver, MB", model.driver_mb, max(line["private_mb"] for line in found["series"])),
        _row(f"{nodes} nodes: GCS, MB", model.gcs_mb, max(line["gcs_mb"] for line in found["series"])),
        _row(f"{nodes} nodes: PUTs and lists", model.puts, _count(requests, "PUT", "LIST")),
        _row(f"{nodes} nodes: GETs", model.gets, _count(requests, "GET", "HEAD")),
        _row(f"{nodes} nodes: DELETEs", model.deletes, _count(requests, "DELETE")),
    ]


def _rate(load: Load, cohort: CohortSize) -> float:
    return cohort.units / load.running_s


def _row(of: str, model: float, measured: float) -> dict[str, Any]:
    return {"of": of, "model": model, "measured": measured, "error": model / measured - 1}


def _count(requests: dict[str, int], *kinds: str) -> int:
    return sum(count for name, count in requests.items() if name.split()[0] in kinds)


def _slides_of(units: int) -> int:
    """Return how many of the first slides have so many units."""
    total = 0
    for number, tiles in enumerate(tile_counts(SLIDES, 0)):
        total += -(-tiles // UNIT_TILES)
        if total >= units:
            return number + 1
    return SLIDES


def _cohort(slides: int) -> CohortSize:
    counts = tile_counts(slides, 0)
    units = len(plan_units(dict(zip(map(str, range(slides)), counts, strict=True)), UNIT_TILES))
    return CohortSize(slides, float(sum(counts)), units, read_bytes=0.0, gets=0.0, vector_bytes=0.0)


def _request_ms() -> float:
    """Return the time of a small write to the endpoint, alone."""
    with tempfile.TemporaryDirectory(prefix="capacity-") as name, endpoint(Path(name)) as port:
        files = [store_at(port) / "embed" / f"{number}" for number in range(200)]
        began = time.perf_counter()
        for file in files:
            file.write_new(b"1")
        return (time.perf_counter() - began) / len(files) * 1000


def _drivers() -> list[dict[str, Any]]:
    """Measure the driver of each number of slides, until its first unit would start."""
    rows = []
    with clusters.running(1, 4) as cluster:
        for slides in STEPS:
            with tempfile.TemporaryDirectory(prefix="capacity-") as name:
                tiles = make_tiles(StoragePath.of(name), slides, 0, with_tables=False)
                run = {"store": name, "address": cluster.address, "encoders": 4}
                config = {"tiles": tiles.path.uri, "unit_tiles": UNIT_TILES, "run": run}
                command = [sys.executable, "-m", "capacity.driver_cost", json.dumps({"config": config})]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            model = load_of(_cohort(slides), 4, ClusterConfig(gpus=1), 1.0)
            rows.append(_row(f"{slides:,} slides: driver, MB", model.driver_mb, found["driver_mb"]))
            _say(f"{slides:,} slides: {found['units']:,} units, {found['seconds']:.1f} s, {found['cpu_s']:.1f} CPU-s")
    return rows


def _whole() -> dict[str, Any]:
    """Return the model of the whole cohort."""
    units, tiles = _cohort(SLIDES).units, float(TILES)
    cohort = CohortSize(SLIDES, tiles, units, tiles * READ_BYTES_OF_TILE, tiles / TILES_OF_GET, tiles * VECTOR_BYTES)
    cluster = ClusterConfig(nodes=(4, 64, 1000))
    assert units > MAX_BLOCKS
    return capacity(cohort, cluster, PRICES, 1 / cluster.tiles_per_gpu_s)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--units", type=int, default=36, help="work units for each encoder")
    parser.add_argument("--unit-s", type=float, default=1.5, help="seconds of a unit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
