"""Training through Ray Train compared with a plain loop, from cached features and from pixels; memory of the loss.

    python infra/benchmarks/bench_train.py [--out train.json] [--spots 16384] [--tiles 512] [--tower tiny] [--turns 3]

The same BLEEP model on the same batches, with one torch thread each: in a plain loop (bench_train_plain.py), through
`TrainWork` on one worker, and on two workers. The first epoch is excluded. The variants run in turns; a ratio is the
median over turns. Ratios by CPU time hold on a busy machine too, but do not count a DataLoader's process. Ray's workers
run with normal priority here, not at Ray's default niceness. For the memory see bench_train_memory.py.
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
from bench_train_made import FEATURES, GENES, TILE_PX, SyntheticLearner, make_tiles
from bench_train_memory import lines, measure
from bench_train_plain import MakeBatches, array_batches, loader_batches, plain_loop

from raystp.cluster.session import session
from raystp.cluster.tracking.outbox import NO_TRACKING
from raystp.cluster.tracking.runs import RunRef
from raystp.cluster.training.workers import TrainResources, train
from raystp.models.training.options import FitOptions
from raystp.steps.train.work import TrainWork
from raystp.storage import StoragePath

RANKS = 4


@dataclass
class Variant:
    """Seconds, waiting and CPU of the epochs of one variant; a list for each turn."""

    seconds: list[list[float]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def add(self, seconds: list[float], log: Path) -> None:
        """Add a turn, without its first epoch."""
        notes = [json.loads(line) for line in log.read_text().splitlines()]
        self.seconds.append(seconds[1:])
        later = [one for one in notes if one["epoch"] > 0]
        self.waited += [one["waited"] / seconds[one["epoch"]] for one in later]
        self.cpu += [one["cpu"] for one in later]
        self.threads |= {one["threads"] for one in notes}

    def speedup(self, other: "Variant") -> float:
        """Return the other variant's time divided by this one's: the median over turns."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(statistics.median(b) / statistics.median(a) for a, b in pairs)

    def cpu_speedup(self, other: "Variant") -> float:
        """Return the other variant's CPU time divided by this one's."""
        return statistics.median(other.cpu) / statistics.median(self.cpu)

    def line(self, name: str, samples: int) -> str:
        """Return the printed line."""
        rate = samples / statistics.median(one for turn in self.seconds for one in turn)
        waited, cpu = statistics.median(self.waited), statistics.median(self.cpu) / samples
        return f"  {name:<24}{rate:>9.0f} samples/s, waits {waited:>6.1%}, CPU {cpu * 1e6:>7.0f} us a sample"


def main() -> None:
    """Run the comparisons; print one line per variant."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--spots", type=int, default=16_384)
    parser.add_argument("--tiles", type=int, default=512, help="0 skips the pixels")
    parser.add_argument("--tower", default="tiny")
    parser.add_argument("--rows", type=int, default=4096, help="rows of the loss whose memory is measured; 0 skips it")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with session(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.spots:
            made, fit = (
                SyntheticLearner(options.spots, folder / "log"),
                FitOptions(epochs=options.epochs, batch_size=128, accumulate_batches=4),
            )
            print_line(f"cached features: {options.spots} spots x {FEATURES}, {GENES} genes, 4 batches of 128 per step")
            found["cached"] = compare(made, fit, options.turns, {"plain": array_batches})
        if options.tiles:
            made = SyntheticLearner(options.tiles, folder / "log", make_tiles(folder), options.tower)
            tiles = f"{options.tiles} tiles of {TILE_PX} px"
            print_line(f"pixels: {tiles}, with the tower {options.tower}, 2 batches of 64 per step")
            plain = {"plain": loader_batches, "same input": None}
            found["pixels"] = compare(
                made, FitOptions(epochs=options.epochs, batch_size=64, accumulate_batches=2), options.turns, plain
            )
    if options.rows:
        found["memory"] = measure(options.rows, RANKS)
        print_line("\n".join(lines(options.rows, RANKS, found["memory"])))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def compare(
    made: SyntheticLearner, fit: FitOptions, turns: int, plain: Mapping[str, MakeBatches | None]
) -> dict[str, Any]:
    """Run the variants in turns; print and return their figures."""
    variants = {name: Variant() for name in (*plain, "one", "two")}
    for turn in range(turns):
        for name, variant in variants.items():
            made.log.unlink(missing_ok=True)
            if name in plain:
                variant.add(plain_loop(made, fit, plain[name]), made.log)
            else:
                variant.add(
                    through_ray(made, fit, made.log.parent / f"{name}{turn}{made.spots}", 1 + (name == "two")), made.log
                )
    for name, variant in variants.items():
        print_line(
            variant.line(
                {"one": "Ray Train, 1 worker", "two": "Ray Train, 2 workers"}.get(name, f"{name} loop"), made.spots
            )
        )
    ratios = {f"one to {name}": variants["one"].speedup(variants[name]) for name in plain}
    ratios |= {f"one to {name} by CPU time": variants["one"].cpu_speedup(variants[name]) for name in plain}
    ratios["two to one"] = variants["two"].speedup(variants["one"])
    print_line(
        "  "
        + ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        + f"; threads {variants['one'].threads}"
    )
    return {"ratios": ratios} | {
        name: vars(variant) | {"threads": sorted(variant.threads)} for name, variant in variants.items()
    }


def through_ray(made: SyntheticLearner, fit: FitOptions, folder: Path, workers: int) -> list[float]:
    """Train through Ray Train; return the seconds of each epoch."""
    path = StoragePath.of(folder)
    work = TrainWork(
        learner=made,
        fit=fit,
        split_batches=False,
        checkpoint_every=fit.epochs,
        target=path / "model",
        meta={
            "genes": [str(number) for number in range(GENES)],
            "d_image": FEATURES,
            "options": {},
            "protocol": "patient",
        },
        tracker=NO_TRACKING,
        run_ref=RunRef("bench", "bench", "train/bench", path),
        parameters={},
        inputs={},
    )
    returned = train(work, TrainResources(workers), folder=path / "training", name="bench")
    return [float(row["seconds"]) for row in returned["epochs"]]


def print_line(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
