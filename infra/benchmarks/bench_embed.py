"""How fast tiles become vectors: raystp on Ray, the same units in a plain loop, a DataLoader loop, and other tools.

    python infra/benchmarks/bench_embed.py [--peers lazyslide=/path/to/its/python] [--tiles 50000] [--out FILE]

Each run is a process of its own on the same slide, the same places and the same weights, and its vectors are compared
with raystp's. Rates are steady: the tiles of the first and of the last unit are left out, with whatever start and end
cost. CPU seconds are those of all processes of a run, Ray's own among them (bench_embed_watch.py). The loops and the
peers take the first `--slow-tiles` of the places, since their rate does not change and they would run for long;
raystp and the plain loop, which take turns, take all. A run of a DataLoader is the best of several ways to set it up.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_embed_slide import SIDE, make_slide, places, tiled
from bench_embed_watch import Watched, watch

from raystp.artifacts import Artifact
from raystp.encoders.registry import build
from raystp.steps.encoder_source import EncoderConfig, spec_of

HERE = Path(__file__).parent
TIMEOUT_S = 600.0
BATCH = 64
LEAST_UNITS = 4
"""A rate without the first and the last unit needs some between."""


@dataclass(frozen=True)
class Case:
    """An encoder, and how much it is given."""

    name: str
    encoder: dict[str, Any]
    tiles: int
    slow_tiles: int
    unit_tiles: int
    goals: dict[str, float]


@dataclass(frozen=True)
class Way:
    """One way to embed: what runs, with which Python, and what is set."""

    name: str
    script: str
    python: str = sys.executable
    settings: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether it takes all tiles."""
        return self.name in {"raystp", "plain"}


LOADERS = (
    Way("DataLoader, 2 workers", "loader", settings={"workers": 2}),
    Way("DataLoader, 1 worker", "loader", settings={"workers": 1}),
    Way("DataLoader, 2 workers, 1 torch thread", "loader", settings={"workers": 2, "torch_threads": 1}),
)
OURS = Way("raystp", "raystp")
# Ray gives its actors as many threads as they hold CPUs: the plain loop's processes have one too.
PLAIN = Way("plain", "plain", environment={"OMP_NUM_THREADS": "1"})
PEERS = ("lazyslide", "tiatoolbox", "trident")


@dataclass(frozen=True)
class Row:
    """What one run did."""

    case: str
    way: str
    tiles: int
    per_s: float
    """Tiles per second, first and last unit left out."""
    per_cpu_s: float
    first_s: float
    """From its call to the first unit, Ray and imports not counted."""
    off_by: float
    """Largest difference to raystp's vectors, as a part of their largest value."""
    version: str = ""


def main() -> None:
    """Make the slide, let all ways run on it, and print one table an encoder."""
    options = _options()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for case in _cases(options):
            rows += run_case(case, Path(folder) / case.name, options)
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON", help=f"any of {', '.join(PEERS)}")
    parser.add_argument("--cases", nargs="*", default=["tiny", "resnet18"])
    parser.add_argument("--tiles", type=int, default=50_000, help="tiles for the tiny encoder")
    parser.add_argument("--deep-tiles", type=int, default=1_500, help="tiles for resnet18")
    parser.add_argument("--slow-tiles", type=int, default=16_384, help="tiles for the loops and the peers, at most")
    parser.add_argument("--turns", type=int, default=3, help="how often raystp and the plain loop take turns")
    parser.add_argument("--actors", type=int, default=os.cpu_count() or 1, help="encoders of raystp and the plain loop")
    parser.add_argument("--folder", help="where the slide is drawn (400 MB); by default the folder of temporary files")
    return parser.parse_args()


def _cases(options: argparse.Namespace) -> list[Case]:
    tiny = Case(
        "tiny",
        {"name": "tiny"},
        tiles=options.tiles,
        slow_tiles=max(options.slow_tiles, LEAST_UNITS * 2048),
        unit_tiles=2048,
        goals={"per_cpu_s": 5.0, "per_s": 4.0},
    )
    deep = Case(
        "resnet18",
        {"name": "timm:resnet18", "random": True},
        tiles=options.deep_tiles,
        slow_tiles=max(options.slow_tiles, LEAST_UNITS * 64),
        unit_tiles=64,
        goals={"per_cpu_s": 1.5, "per_s": 1.5},
    )
    return [case for case in (tiny, deep) if case.name in options.cases]


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_case(case: Case, folder: Path, options: argparse.Namespace) -> list[Row]:
    """Run every way, and print what it did and which goals are met."""
    folder.mkdir()
    slide, store = folder / "bench.svs", folder / "store"
    make_slide(slide, case.tiles)
    tiles = tiled(slide, store)
    job = _job(case, slide, tiles, options.actors)
    say(f"\n{case.name}: {job['tiles_all']} tiles of {SIDE} px; units of {case.unit_tiles}; {options.actors} encoders")
    say(f"  {'':<40}{'tiles/s':>9}{'/CPU-s':>9}{'first unit':>12}  vectors")
    rows = []
    for way in _ways(options):
        row = run_way(way, job, case, folder)
        if row is not None:
            rows.append(row)
            say_row(row)
    say_goals(case, rows)
    return rows


def _ways(options: argparse.Namespace) -> Iterator[Way]:
    """Yield raystp and the plain loop in turns, the others between them: a busy machine weighs on all alike."""
    pythons = dict(peer.partition("=")[::2] for peer in options.peers)
    for name in PEERS:
        if name not in pythons:
            say(f"  {name} is left out: give its Python by --peers {name}=PYTHON")
    hub = {"HF_HUB_OFFLINE": "1"}
    given = [Way(name, name, pythons[name], {"workers": 2}, hub) for name in PEERS if name in pythons]
    others = [*LOADERS, *given]
    share = math.ceil(len(others) / options.turns)
    for turn in range(options.turns):
        yield from (OURS, PLAIN, *others[turn * share : (turn + 1) * share])


def _job(case: Case, slide: Path, tiles: Artifact, actors: int) -> dict[str, Any]:
    """Write down the places and the network, and return what every run is told."""
    corners = places(tiles, slide.stem)
    folder = slide.parent
    np.save(folder / "places.npy", corners)
    np.save(folder / "first.npy", corners[: case.slow_tiles])
    encoder = build(spec_of(EncoderConfig(**case.encoder)))
    with torch.no_grad():
        blank = torch.zeros(2, 3, SIDE, SIDE)
        traced = torch.jit.trace(encoder.network.eval(), blank)  # type: ignore[no-untyped-call]  # torch gives it no types
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


def run_way(way: Way, job: dict[str, Any], case: Case, folder: Path) -> Row | None:
    """Run one way in a process of its own; a failure is said aloud."""
    for made in ("embed", "plain"):
        shutil.rmtree(folder / "store" / made, ignore_errors=True)
    out = folder / way.script
    told = {
        **job,
        **way.settings,
        "out": str(out),
        "places": str(folder / ("places.npy" if way.is_whole else "first.npy")),
    }
    (folder / "job.json").write_text(json.dumps(told), encoding="utf-8")
    script = HERE / ("bench_embed_peers.py" if way.name in PEERS else "bench_embed_runs.py")
    ran = watch([way.python, str(script), way.script, str(folder / "job.json")], way.environment, TIMEOUT_S)
    if ran.status:
        say(f"  {way.name} failed: {ran.said}")
        return None
    return _row(way, case, ran, out)


def _row(way: Way, case: Case, ran: Watched, out: Path) -> Row:
    note = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    vectors = np.load(out.with_suffix(".npy"))
    ours = np.load(out.parent / "raystp.npy", mmap_mode="r")[: len(vectors)]
    times, done = np.array([mark[0] for mark in note["marks"]]), np.cumsum([mark[1] for mark in note["marks"]])
    first = int(np.argmax(done >= case.unit_tiles))
    last = int(np.flatnonzero(done <= done[-1] - case.unit_tiles)[-1])
    tiles = int(done[last] - done[first])
    return Row(
        case.name,
        way.name,
        len(vectors),
        per_s=tiles / (times[last] - times[first]),
        per_cpu_s=tiles / (ran.cpu_at(times[last]) - ran.cpu_at(times[first])),
        first_s=float(times[first]) - note["began"],
        off_by=float(np.abs(vectors - ours).max() / np.abs(ours).max())
        if vectors.shape == ours.shape
        else float("nan"),
        version=note.get("version", ""),
    )


def say_row(row: Row) -> None:
    """Print what one run did."""
    agree = "equal" if row.off_by == 0 else f"off by {row.off_by:.1e} of the largest value"
    name = f"{row.way} {row.version}".strip()
    say(f"  {name:<40}{row.per_s:>9.0f}{row.per_cpu_s:>9.0f}{row.first_s:>10.1f} s  {agree}")


def say_goals(case: Case, rows: list[Row]) -> None:
    """Print what raystp's rate is of the others', and whether that is what was aimed at."""
    ours, plain = ([row for row in rows if row.way == name] for name in ("raystp", "plain"))
    if not ours:
        return
    for measure, words in (("per_cpu_s", "per CPU-second"), ("per_s", "in wall clock")):
        mine = statistics.median(getattr(row, measure) for row in ours)
        if plain:
            pairs = zip(ours, plain, strict=False)
            _say_ratio(
                f"Ray's rate of the plain loop's, {words}",
                statistics.median(getattr(a, measure) / getattr(b, measure) for a, b in pairs),
                0.95,
            )
        loops = [getattr(row, measure) for row in rows if row.way.startswith("DataLoader")]
        if loops:
            _say_ratio(f"x the best DataLoader loop, {words}", mine / max(loops), case.goals[measure])
        for row in rows:
            if row.way in PEERS:
                _say_ratio(f"x {row.way}, {words}", mine / getattr(row, measure), 1.0)
    first = statistics.median(row.first_s for row in ours)
    say(f"  cold start, Ray up: {first:.1f} s to the first unit of {case.unit_tiles} tiles (goal 5)")


def _say_ratio(words: str, ratio: float, goal: float) -> None:
    say(f"  {ratio:6.2f} {words} (goal {goal:g}{'' if ratio >= goal else ', MISSED'})")


if __name__ == "__main__":
    main()
