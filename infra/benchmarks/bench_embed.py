"""Measure the speed of embedding: raystp on Ray, the same units in a plain loop, a DataLoader loop, and other tools.

    python infra/benchmarks/bench_embed.py [--peers lazyslide=/path/to/its/python] [--tiles 50000] [--out FILE]
    python infra/benchmarks/bench_embed.py --scales 4 [--places 1500] [--out FILE]  (bench_embed_scales.py)

Each run is a process of its own on the same slide, the same tiles and the same weights, and its vectors are compared
with raystp's. Rates exclude the tiles of the first and the last unit, and so the cost of start and end. CPU seconds are
those of all processes of a run, including Ray's own (bench_embed_watch.py). The DataLoader loops and the peers embed
only the first `--slow-tiles`, since their rate is constant and they would take long; raystp and the plain loop,
which alternate, embed all. The DataLoader's rate is the best of several settings.
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_embed_scales import ScaleRow, run_scales
from bench_embed_slide import SIDE, make_slide, run_tile, tile_corners
from bench_embed_table import (
    BATCHES,
    LOADER_BATCHES,
    PEERS,
    RAY_DATA,
    Case,
    Row,
    print_batches,
    print_goals,
    print_parts,
    print_row,
    say,
)
from bench_embed_watch import WatchedRun, watch

from raystp.artifacts import Artifact
from raystp.cluster.memory import KEPT_BYTES
from raystp.encoders.registry import build
from raystp.steps.encoder_source import spec_of
from raystp.steps.input_config import EncoderConfig

HERE = Path(__file__).parent
TIMEOUT_S = 600.0
BATCH = 64
MIN_UNITS = 4
"""A rate without the first and the last unit needs some between them."""


@dataclass(frozen=True)
class Variant:
    """One variant to measure: script, Python, and settings."""

    name: str
    script: str
    python: str = sys.executable
    settings: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def embeds_all(self) -> bool:
        """Whether it embeds all tiles."""
        return self.name in {"raystp", "plain", RAY_DATA, BATCHES}


KEPT = {f"MALLOC_{name}_THRESHOLD_": str(KEPT_BYTES) for name in ("TRIM", "MMAP")}
"""What raystp sets in its own processes, see `cluster/memory.py`."""
LOADERS = (
    Variant("DataLoader, 2 workers", "loader", settings={"workers": 2}),
    Variant("DataLoader, 1 worker", "loader", settings={"workers": 1}),
    Variant("DataLoader, 2 workers, 1 torch thread", "loader", settings={"workers": 2, "torch_threads": 1}),
    Variant("the same, freed memory kept", "loader", settings={"workers": 2, "torch_threads": 1}, environment=KEPT),
)
OURS = Variant("raystp", "raystp")
BY_RAY_DATA = Variant(RAY_DATA, "by_ray_data")
# Ray gives an actor as many threads as it has CPUs: the plain loop's processes have one, too.
PLAIN = Variant("plain", "plain", environment={"OMP_NUM_THREADS": "1"})
WITHOUT_NETWORK = (
    Variant(BATCHES, "batches", environment={"OMP_NUM_THREADS": "1"}),
    Variant(f"{LOADER_BATCHES}, 2 workers", "loader_batches", settings={"workers": 2, "torch_threads": 1}),
    Variant(f"{LOADER_BATCHES}, 1 worker", "loader_batches", settings={"workers": 1, "torch_threads": 1}),
)
PARTS = Variant("parts", "parts", environment={"OMP_NUM_THREADS": "1"})


def main() -> None:
    """Make the slide, run all variants on it, and print one table per encoder."""
    options = _options()
    rows: list[Row] | list[ScaleRow] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.scales:
            rows = run_scales(options.scales, options.places, Path(folder), options.actors)
        else:
            rows = [row for case in _cases(options) for row in run_case(case, Path(folder) / case.name, options)]
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON", help=f"any of {', '.join(PEERS)}")
    parser.add_argument("--cases", nargs="*", default=["tiny", "resnet18"])
    parser.add_argument("--tiles", type=int, default=50_000, help="tiles for the tiny encoder")
    parser.add_argument("--deep-tiles", type=int, default=1_500, help="tiles for resnet18")
    parser.add_argument("--slow-tiles", type=int, default=16_384, help="most tiles for the loops and the peers")
    parser.add_argument(
        "--turns", type=int, default=3, help="number of runs of raystp and of the plain loop, alternating"
    )
    parser.add_argument("--actors", type=int, default=os.cpu_count() or 1, help="encoders of raystp and the plain loop")
    parser.add_argument("--scales", type=int, default=0, help="measure only one pass over so many concentric sides")
    parser.add_argument("--places", type=int, default=1_500, help="places of the tiles of --scales")
    parser.add_argument("--folder", help="folder for the slide (400 MB); the default is the folder of temporary files")
    return parser.parse_args()


def _cases(options: argparse.Namespace) -> list[Case]:
    tiny = Case(
        "tiny",
        {"name": "tiny"},
        tiles=options.tiles,
        slow_tiles=max(options.slow_tiles, MIN_UNITS * 2048),
        unit_tiles=2048,
        goals={"per_cpu_s": 5.0, "per_s": 4.0},
    )
    deep = Case(
        "resnet18",
        {"name": "timm:resnet18", "random": True},
        tiles=options.deep_tiles,
        slow_tiles=max(options.slow_tiles, MIN_UNITS * 64),
        unit_tiles=64,
        goals={"per_cpu_s": 1.5, "per_s": 1.5},
    )
    return [case for case in (tiny, deep) if case.name in options.cases]


def run_case(case: Case, folder: Path, options: argparse.Namespace) -> list[Row]:
    """Run every variant, and print the results and which goals are met."""
    folder.mkdir()
    slide, store = folder / "bench.svs", folder / "store"
    make_slide(slide, case.tiles)
    tiles = run_tile(slide, store)
    job = _job(case, slide, tiles, options.actors)
    say(f"\n{case.name}: {job['tiles_all']} tiles of {SIDE} px; units of {case.unit_tiles}; {options.actors} encoders")
    say(f"  {'':<40}{'tiles/s':>9}{'/CPU-s':>9}{'first unit':>12}  vectors")
    rows = []
    for variant in _variants(options):
        row = run_variant(variant, job, case, folder)
        if row is not None:
            rows.append(row)
            print_row(row)
    print_goals(case, rows)
    return [*rows, *_without_network(job, case, folder, rows)]


def _without_network(job: dict[str, Any], case: Case, folder: Path, rows: list[Row]) -> list[Row]:
    """Run the loops without a network, and print the parts of a tile's time; both for the first case only."""
    if case.name != "tiny":
        return []
    found = [row for one in WITHOUT_NETWORK if (row := run_variant(one, job, case, folder)) is not None]
    for row in found:
        print_row(row)
    print_batches(found)
    run = _run(PARTS, job, folder)
    if run.status:
        say(f"  {PARTS.name} failed: {run.output}")
    else:
        print_parts(json.loads((folder / "parts.json").read_text(encoding="utf-8"))["parts"], rows)
    return found


def _variants(options: argparse.Namespace) -> Iterator[Variant]:
    """Yield raystp and the plain loop alternately, the others in between: a busy machine slows all equally."""
    pythons = dict(peer.partition("=")[::2] for peer in options.peers)
    for name in PEERS:
        if name not in pythons:
            say(f"  {name} is skipped: give its Python with --peers {name}=PYTHON")
    hub = {"HF_HUB_OFFLINE": "1"}
    given = [Variant(name, name, pythons[name], {"workers": 2}, hub) for name in PEERS if name in pythons]
    others = [*LOADERS, *given]
    share = math.ceil(len(others) / options.turns)
    for turn in range(options.turns):
        yield from (OURS, BY_RAY_DATA, PLAIN, *others[turn * share : (turn + 1) * share])


def _job(case: Case, slide: Path, tiles: Artifact, actors: int) -> dict[str, Any]:
    """Save the tile corners and the network, and return the job, which every run gets."""
    corners = tile_corners(tiles, slide.stem)
    folder = slide.parent
    np.save(folder / "corners.npy", corners)
    np.save(folder / "first.npy", corners[: case.slow_tiles])
    encoder = build(spec_of(EncoderConfig(**case.encoder)))
    with torch.no_grad():
        blank = torch.zeros(2, 3, SIDE, SIDE)
        traced = torch.jit.trace(encoder.network.eval(), blank)  # type: ignore[no-untyped-call]  # untyped in torch
    traced.save(str(folder / "network.pt"))
    return {
        "slide": str(slide),
        "store": str(folder / "store"),
        "tiles": f"tile/{tiles.path.name}",
        "tiles_all": len(corners),
        "network": str(folder / "network.pt"),
        "encoder": case.encoder,
        "mean": encoder.mean,
        "std": encoder.std,
        "side": SIDE,
        "batch": BATCH,
        "unit_tiles": case.unit_tiles,
        "actors": actors,
        "torch_threads": 0,
    }


def run_variant(variant: Variant, job: dict[str, Any], case: Case, folder: Path) -> Row | None:
    """Run one variant in a process of its own; print a failure and return None."""
    run = _run(variant, job, folder)
    if run.status:
        say(f"  {variant.name} failed: {run.output}")
        return None
    return _row(variant, case, run, folder / variant.script)


def _run(variant: Variant, job: dict[str, Any], folder: Path) -> WatchedRun:
    for name in ("embed", "plain"):
        shutil.rmtree(folder / "store" / name, ignore_errors=True)
    arguments = {
        **job,
        **variant.settings,
        "out": str(folder / variant.script),
        "corners": str(folder / ("corners.npy" if variant.embeds_all else "first.npy")),
    }
    (folder / "job.json").write_text(json.dumps(arguments), encoding="utf-8")
    script = HERE / ("bench_embed_peers.py" if variant.name in PEERS else "bench_embed_runs.py")
    command = [variant.python, str(script), variant.script, str(folder / "job.json")]
    return watch(command, variant.environment, TIMEOUT_S)


def _row(variant: Variant, case: Case, run: WatchedRun, out: Path) -> Row:
    record = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    vectors = np.load(out.with_suffix(".npy"))
    reference = "batches.npy" if variant in WITHOUT_NETWORK else "raystp.npy"
    ours = np.load(out.parent / reference, mmap_mode="r")[: len(vectors)]
    times, done = (
        np.array([entry[0] for entry in record["progress"]]),
        np.cumsum([entry[1] for entry in record["progress"]]),
    )
    first = int(np.argmax(done >= case.unit_tiles))
    last = int(np.flatnonzero(done <= done[-1] - case.unit_tiles)[-1])
    tiles = int(done[last] - done[first])
    return Row(
        case.name,
        variant.name,
        len(vectors),
        per_s=tiles / (times[last] - times[first]),
        per_cpu_s=tiles / (run.cpu_at(times[last]) - run.cpu_at(times[first])),
        first_s=float(times[first]) - record["began"],
        max_difference=float(np.abs(vectors - ours).max() / np.abs(ours).max())
        if vectors.shape == ours.shape
        else float("nan"),
        version=record.get("version", ""),
    )


if __name__ == "__main__":
    main()
