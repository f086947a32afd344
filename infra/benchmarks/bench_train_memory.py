"""What the loss of a large gathered set holds in memory, on each of several ranks: naive, and as raystp takes it.

    python infra/benchmarks/bench_train_memory.py [--rows 4096] [--ranks 4]

`naive` is the formula as it is published, on gathered embeddings: every rank holds all rows' logits, similarities and
target. A rank's own growth is measured in a fresh process: the peak of its resident memory over forward and backward,
gathered embeddings and their gradients included. The C library is told to give freed memory back at once: what it keeps
and cannot use again would count as well, and depends on the sizes alone. raystp's is shown without that too.
"""

import argparse
import os
import subprocess
import sys

JOINT = 256
PROGRAM = """
import re, sys, time, torch
from pathlib import Path
from torch.nn import functional
from raystp.models.bleep.loss import BleepOptions, bleep_loss_part
from raystp.models.training.plan import Ranks
form, rows, parts, joint = sys.argv[1], *(int(word) for word in sys.argv[2:])
torch.set_num_threads(1)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def naive(images, spots, gather):
    images, spots = gather(images), gather(spots)
    logits = spots @ images.T
    targets = functional.softmax((images @ images.T + spots @ spots.T) / 2, dim=-1)
    of_spots = (-targets * functional.log_softmax(logits, dim=-1)).sum(1)
    of_images = (-targets.T * functional.log_softmax(logits.T, dim=-1)).sum(1)
    return ((of_spots + of_images) / 2).mean()

def run(rows):
    others = torch.randn(rows - rows // parts, joint)
    def gather(mine):  # the other ranks' rows, without their processes
        return torch.cat([mine, others]) if mine.shape[1] == joint else mine.expand(parts, -1)
    own = [torch.randn(rows // parts, joint, requires_grad=True) for _ in range(2)]
    before, began = peak(), time.perf_counter()
    if form == "naive":
        naive(*own, gather).backward()
    else:
        bleep_loss_part(*own, BleepOptions(), Ranks(0, parts, gather)).backward()
    return peak() - before, time.perf_counter() - began

torch.manual_seed(0)
run(64)  # what torch loads at the first loss
Path("/proc/self/clear_refs").write_text("5")  # what was imported had a peak of its own
print(*run(rows))
"""


def loss_memory(form: str, rows: int, ranks: int, *, default: bool = False) -> tuple[float, float]:
    """Return by how many MB the peak of one rank's process grows, and the seconds that its loss takes."""
    words = [sys.executable, "-c", PROGRAM, form, str(rows), str(ranks), str(JOINT)]
    environment = dict(os.environ) | ({} if default else {"MALLOC_MMAP_THRESHOLD_": "65536"})
    out = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    grown, seconds = out.split()
    return float(grown), float(seconds)


def measured(rows: int, ranks: int) -> dict[str, tuple[float, float]]:
    """Return MB and seconds of each form."""
    return {
        "naive": loss_memory("naive", rows, ranks),
        "raystp": loss_memory("raystp", rows, ranks),
        "raystp, default malloc": loss_memory("raystp", rows, ranks, default=True),
        "raystp, all rows on one": loss_memory("raystp", rows, 1),
    }


def lines(rows: int, ranks: int, found: dict[str, tuple[float, float]]) -> list[str]:
    """Return what is printed."""
    naive = found["naive"][0]
    said = [
        f"loss of {rows} gathered rows x {JOINT} on each of {ranks} ranks, forward and backward, growth of the peak"
    ]
    for name, (grown, seconds) in found.items():
        said.append(f"  {name:<28}{grown:>8.0f} MB, {grown / naive:.2f} of naive; {seconds:>6.2f} s")
    return said


def main() -> None:
    """Print one line a form."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--ranks", type=int, default=4)
    options = parser.parse_args()
    found = measured(options.rows, options.ranks)
    sys.stdout.write("\n".join(lines(options.rows, options.ranks, found)) + "\n")


if __name__ == "__main__":
    main()
