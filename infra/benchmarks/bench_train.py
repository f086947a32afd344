"""What training through Ray Train costs beside a plain loop, from cached features and pixels; the loss's memory.

    python infra/benchmarks/bench_train.py [--out train.json] [--spots 16384] [--tiles 512] [--tower tiny] [--turns 3]

The same BLEEP model on the same sets, one thread of torch each: by a loop as people write it (bench_train_plain.py),
through `TrainWork` on one worker, and on two. An epoch's seconds are its own, the first is left out, and the ways take
turns: their ratio is the median over turns. The one by CPU time holds on a busy machine too, but counts no DataLoader's
process. Ray's workers give way to all other processes unless told otherwise; here they do not. For the memory see
bench_train_memory.py.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_worker_niceness", "0")  # read when Ray is imported

import torch
from bench_train_made import FEATURES, GENES, SIDE, Made, make_tiles
from bench_train_memory import lines, measured
from bench_train_plain import Make, arrays, loader, looped

from raystp.cluster.session import session
from raystp.cluster.tracking.delivery import RunRef
from raystp.cluster.tracking.outbox import NO_TRACKING
from raystp.cluster.training.workers import TrainResources, train
from raystp.models.training.options import FitOptions
from raystp.steps.train.work import TrainWork
from raystp.storage import StoragePath

RANKS = 4


@dataclass
class Way:
    """Seconds, waiting and CPU of the epochs of one way to train; a list for each turn."""

    seconds: list[list[float]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def add(self, seconds: list[float], log: Path) -> None:
        """Take a turn, its first epoch left out."""
        notes = [json.loads(line) for line in log.read_text().splitlines()]
        self.seconds.append(seconds[1:])
        later = [one for one in notes if one["epoch"] > 0]
        self.waited += [one["waited"] / seconds[one["epoch"]] for one in later]
        self.cpu += [one["cpu"] for one in later]
        self.threads |= {one["threads"] for one in notes}

    def against(self, other: "Way") -> float:
        """Return how much faster than another way this is: the median over turns."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(statistics.median(b) / statistics.median(a) for a, b in pairs)

    def cpu_against(self, other: "Way") -> float:
        """Return how much less CPU time than another way this takes: true on a busy machine too."""
        return statistics.median(other.cpu) / statistics.median(self.cpu)

    def line(self, name: str, samples: int) -> str:
        """Return what is printed of it."""
        rate = samples / statistics.median(one for turn in self.seconds for one in turn)
        waited, cpu = statistics.median(self.waited), statistics.median(self.cpu) / samples
        return f"  {name:<24}{rate:>9.0f} samples/s, waits {waited:>6.1%}, CPU {cpu * 1e6:>7.0f} us a sample"


def main() -> None:
    """Take turns, and print one line a way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--spots", type=int, default=16_384)
    parser.add_argument("--tiles", type=int, default=512, help="0 leaves the pixels out")
    parser.add_argument("--tower", default="tiny")
    parser.add_argument("--rows", type=int, default=4096, help="of the loss whose memory is measured; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with session(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.spots:
            made, fit = (
                Made(options.spots, folder / "log"),
                FitOptions(epochs=options.epochs, batch_size=128, accumulate_batches=4),
            )
            say(f"cached features: {options.spots} spots x {FEATURES}, {GENES} genes, 4 sets of 128 a step")
            found["cached"] = compared(made, fit, options.turns, {"plain": arrays})
        if options.tiles:
            made = Made(options.tiles, folder / "log", make_tiles(folder), options.tower)
            say(f"pixels: {options.tiles} tiles of {SIDE} px, {options.tower} trained along, 2 sets of 64 a step")
            plain = {"plain": loader, "same input": None}
            found["pixels"] = compared(
                made, FitOptions(epochs=options.epochs, batch_size=64, accumulate_batches=2), options.turns, plain
            )
    if options.rows:
        found["memory"] = measured(options.rows, RANKS)
        say("\n".join(lines(options.rows, RANKS, found["memory"])))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def compared(made: Made, fit: FitOptions, turns: int, plain: Mapping[str, Make | None]) -> dict[str, Any]:
    """Take turns; print and return the figures."""
    ways = {name: Way() for name in (*plain, "one", "two")}
    for turn in range(turns):
        for name, way in ways.items():
            made.log.unlink(missing_ok=True)
            if name in plain:
                way.add(looped(made, fit, plain[name]), made.log)
            else:
                way.add(
                    through_ray(made, fit, made.log.parent / f"{name}{turn}{made.spots}", 1 + (name == "two")), made.log
                )
    for name, way in ways.items():
        say(
            way.line(
                {"one": "Ray Train, 1 worker", "two": "Ray Train, 2 workers"}.get(name, f"{name} loop"), made.spots
            )
        )
    ratios = {f"one to {name}": ways["one"].against(ways[name]) for name in plain}
    ratios |= {f"one to {name} by CPU time": ways["one"].cpu_against(ways[name]) for name in plain}
    ratios["two to one"] = ways["two"].against(ways["one"])
    say("  " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()) + f"; threads {ways['one'].threads}")
    return {"ratios": ratios} | {name: vars(way) | {"threads": sorted(way.threads)} for name, way in ways.items()}


def through_ray(made: Made, fit: FitOptions, folder: Path, workers: int) -> list[float]:
    """Train through Ray Train; return the seconds of each epoch."""
    place = StoragePath.of(folder)
    work = TrainWork(
        learner=made,
        fit=fit,
        split_batches=False,
        checkpoint_every=fit.epochs,
        target=place / "model",
        meta={"genes": [str(number) for number in range(GENES)], "d_image": FEATURES, "options": {}},
        tracker=NO_TRACKING,
        run_ref=RunRef("bench", "bench", "train/bench", place),
        parameters={},
    )
    answer = train(work, TrainResources(workers), folder=place / "training", name="bench")
    return [float(row["seconds"]) for row in answer["epochs"]]


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
