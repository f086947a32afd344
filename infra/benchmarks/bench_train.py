"""What training through Ray Train costs beside a plain loop, and what the loss of a large gathered set holds in memory.

    python infra/benchmarks/bench_train.py [--out train.json] [--spots 16384] [--epochs 6]

The same model on the same cached features, set by set: BLEEP's heads, once by a loop as people write it, once through
`TrainWork` on one worker, and on two. An epoch's seconds are its own; the first is left out. The memory of the loss is
the growth of a process's peak over forward and backward: all rows against all, and a quarter of the rows against all,
as one of four workers holds it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from raystp.cluster.delivery import Logbook
from raystp.cluster.session import session
from raystp.cluster.tracking import NOWHERE
from raystp.cluster.train_workers import Width, Worker, train
from raystp.models.bleep import Bleep, seeded_bleep
from raystp.models.bleep_loss import BleepOptions
from raystp.models.fit import FitOptions
from raystp.models.pairs import Pairs
from raystp.models.plan import epoch_plan
from raystp.steps.train_work import Lesson, TrainWork
from raystp.storage import Place

FEATURES, GENES, CONTRAST, STEP = 512, 1000, 128, 4
GLOBAL, RANKS, JOINT = 4096, 4, 256
MEMORY = """
import re, sys, torch
from pathlib import Path
from raystp.models.bleep_loss import BleepOptions, bleep_loss, bleep_loss_part
from raystp.models.plan import Ranks
rows, parts, joint = (int(word) for word in sys.argv[1:])
torch.manual_seed(0)
own = [torch.randn(rows // parts, joint, requires_grad=True) for _ in range(2)]
others = torch.randn(rows - rows // parts, joint)
def gather(mine):
    rest = others if mine.shape[1] == joint else others[:, :1]
    return torch.cat([mine, rest.to(mine.dtype)])
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
small = [torch.randn(64, joint, requires_grad=True) for _ in range(2)]
bleep_loss(*small, BleepOptions()).backward()  # what torch loads at the first loss
Path("/proc/self/clear_refs").write_text("5")  # what was imported had a peak of its own
before = peak()
options = BleepOptions()
loss = bleep_loss(*own, options) if parts == 1 else bleep_loss_part(*own, options, Ranks(0, parts, gather))
loss.backward()
print(peak() - before)
"""


@dataclass(frozen=True)
class ArrayLearner:
    """BLEEP on made-up features: each worker makes the same."""

    kind: ClassVar[str] = "bleep"

    spots: int

    def prepare(self, worker: Worker) -> Lesson:
        """Return the model and the pairs."""
        model, features, expression = made(self.spots)
        return Lesson(model.to(worker.device), Pairs.of(features, expression))


def made(spots: int) -> tuple[Bleep, torch.Tensor, torch.Tensor]:
    """Return a model, features, and an expression that follows from them."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((spots, FEATURES), dtype=np.float32)
    weights = rng.standard_normal((FEATURES, GENES), dtype=np.float32) / FEATURES**0.5
    expression = features @ weights
    model = seeded_bleep(FEATURES, GENES, BleepOptions(), seed=0)
    return model, torch.from_numpy(features), torch.from_numpy(expression)


def main() -> None:
    """Take turns, and print one line a way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--spots", type=int, default=16_384)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, Any] = {"plain": [], "one": [], "two": []}
    torch.set_num_threads(1)
    with session(), tempfile.TemporaryDirectory() as folder:
        for turn in range(options.turns):
            found["plain"] += plain(options.spots, options.epochs)
            for name, workers in (("one", 1), ("two", 2)):
                found[name] += through_ray(Path(folder) / f"{name}{turn}", options, workers)
    rates = {name: options.spots / statistics.median(seconds) for name, seconds in found.items()}
    say(f"cached features: {options.spots} spots x {FEATURES}, {GENES} genes, {STEP} sets of {CONTRAST} a step")
    say(f"  plain torch loop            {rates['plain']:>10.0f} samples/s")
    say(f"  Ray Train, 1 worker         {rates['one']:>10.0f} samples/s, {rates['one'] / rates['plain']:.3f} of plain")
    say(f"  Ray Train, 2 workers        {rates['two']:>10.0f} samples/s, {rates['two'] / rates['one']:.2f} x one")
    memory = {parts: loss_memory(parts) for parts in (1, RANKS)}
    say(f"loss of {GLOBAL} rows x {JOINT}, forward and backward, growth of the peak")
    say(f"  all against all             {memory[1]:>10.0f} MB")
    say(f"  one of {RANKS} workers' rows       {memory[RANKS]:>10.0f} MB, {memory[RANKS] / memory[1]:.2f} of it")
    if options.out:
        options.out.write_text(json.dumps({"rates": rates, "memory_mb": memory}, indent=1), encoding="utf-8")


def plain(spots: int, epochs: int) -> list[float]:
    """Train as people write it; return the seconds of each epoch but the first."""
    model, features, expression = made(spots)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    model.train()
    seconds = []
    for epoch in range(epochs):
        began = time.perf_counter()
        for sets in epoch_plan(spots, contrast=CONTRAST, step=STEP, seed=0, epoch=epoch):
            optimizer.zero_grad(set_to_none=True)
            for rows in sets:
                chosen = torch.from_numpy(rows)
                loss = model.loss(*model(features[chosen], expression[chosen])) / STEP
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def through_ray(folder: Path, options: argparse.Namespace, workers: int) -> list[float]:
    """Train through Ray Train; return the seconds of each epoch but the first."""
    fit = FitOptions(epochs=options.epochs, contrast=CONTRAST, step=STEP)
    place = Place.of(folder)
    work = TrainWork(
        learner=ArrayLearner(options.spots),
        fit=fit,
        spread_sets=False,
        checkpoint_every=options.epochs,
        target=place / "model",
        meta={"genes": [str(number) for number in range(GENES)], "d_image": FEATURES, "options": {}},
        tracker=NOWHERE,
        book=Logbook("bench", "bench", "train/bench", place),
        parameters={},
    )
    answer = train(work, Width(workers), folder=place / "training", name="bench")
    return [float(row["seconds"]) for row in answer["epochs"]][1:]


def loss_memory(parts: int) -> float:
    """Return by how many MB the peak of a fresh process grows."""
    words = [sys.executable, "-c", MEMORY, str(GLOBAL), str(parts), str(JOINT)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
