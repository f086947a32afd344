"""Memory of the loss of a large gathered batch on each of several ranks: the published form and raystp's.

    python infra/benchmarks/bench_train_memory.py [--rows 4096] [--ranks 4]

`naive` is the published formula on gathered embeddings: every rank holds the logits, similarities and targets of all
rows. The growth is measured in a new process per rank: the peak of resident memory over forward and backward, with
gathered embeddings and their gradients. The C library returns freed memory at once, since memory that it keeps would
count too; raystp's loss is also shown with the default malloc.
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
from raystp.models.contrastive.loss import contrastive_loss_part
from raystp.models.bleep.options import BleepOptions
from raystp.models.training.plan import RankLayout
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
    other_rows = torch.randn(rows - rows // parts, joint)
    def gather(mine):  # the other ranks' rows, without their processes
        return torch.cat([mine, other_rows]) if mine.shape[1] == joint else mine.expand(parts, -1)
    own = [torch.randn(rows // parts, joint, requires_grad=True) for _ in range(2)]
    before, start = peak(), time.perf_counter()
    if form == "naive":
        naive(*own, gather).backward()
    else:
        contrastive_loss_part(*own, BleepOptions(), RankLayout(0, parts, gather)).backward()
    return peak() - before, time.perf_counter() - start

torch.manual_seed(0)
run(64)  # warm-up: torch loads libraries at the first loss
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
print(*run(rows))
"""


def loss_memory(form: str, rows: int, ranks: int, *, default: bool = False) -> tuple[float, float]:
    """Return the growth of one rank's peak memory in MB, and the seconds of its loss."""
    command = [sys.executable, "-c", PROGRAM, form, str(rows), str(ranks), str(JOINT)]
    environment = dict(os.environ) | ({} if default else {"MALLOC_MMAP_THRESHOLD_": "65536"})
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    grown, seconds = out.split()
    return float(grown), float(seconds)


def measure(rows: int, ranks: int) -> dict[str, tuple[float, float]]:
    """Return MB and seconds of each form."""
    return {
        "naive": loss_memory("naive", rows, ranks),
        "raystp": loss_memory("raystp", rows, ranks),
        "raystp, default malloc": loss_memory("raystp", rows, ranks, default=True),
        "raystp, all rows on one": loss_memory("raystp", rows, 1),
    }


def lines(rows: int, ranks: int, found: dict[str, tuple[float, float]]) -> list[str]:
    """Return the printed lines."""
    naive = found["naive"][0]
    printed = [
        f"loss of {rows} gathered rows x {JOINT} on each of {ranks} ranks, forward and backward, growth of the peak"
    ]
    for name, (grown, seconds) in found.items():
        printed.append(f"  {name:<28}{grown:>8.0f} MB, {grown / naive:.2f} of naive; {seconds:>6.2f} s")
    return printed


def main() -> None:
    """Print one line per form."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--ranks", type=int, default=4)
    options = parser.parse_args()
    found = measure(options.rows, options.ranks)
    sys.stdout.write("\n".join(lines(options.rows, options.ranks, found)) + "\n")


if __name__ == "__main__":
    main()
