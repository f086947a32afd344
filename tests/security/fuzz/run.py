"""Run the fuzzers: `python -m tests.security.fuzz.run --executions 1000000 --out fuzz.json` (`make fuzz`).

Executions are dealt to the targets by their share. Each target runs in a process of its own with a limit of memory, so
a crash of a C library, a bomb or an endless loop is a find with its seed, and the next seed follows. `--target NAME
--seed N` repeats one execution. The file has for each target how many executions were read, refused or are finds.
"""

import argparse
import json
import logging
import mmap
import os
import resource
import signal
import struct
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.security.fuzz.target import Execute, Find, Target, outcome, scratch, seeded
from tests.security.fuzz.targets import TARGETS

HANG_S = 30.0
"""An execution that takes longer has entered a loop, or does work out of proportion to a file of some kB."""

MEMORY = 4 << 30
"""Bytes that a target may allocate beyond those of the process before it starts."""

KEPT = 50
"""Finds of one target after which it stops."""


@dataclass
class Count:
    """What came of a target's executions."""

    group: str
    executions: int = 0
    read: int = 0
    refused: int = 0
    finds: list[Find] = field(default_factory=list)
    seconds: float = 0.0
    """CPU seconds."""


class Progress:
    """Numbers that a child shares with its parent: the seed at work, and how many were read and refused."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 40)

    def put(self, *numbers: int) -> None:
        """Store seed, read, refused and CPU milliseconds."""
        self._memory[:32] = struct.pack("<4q", *numbers)

    def get(self) -> tuple[int, int, int, int]:
        """Return what was stored last."""
        seed, read, refused, milliseconds = struct.unpack("<4q", self._memory[:32])
        return seed, read, refused, milliseconds


def run_target(target: Target, seeds: range) -> Count:
    """Execute a target for each seed in processes of its own; return the counts."""
    count, start = Count(target.group), seeds.start
    while start < seeds.stop and len(count.finds) < KEPT:
        progress, found = Progress(), scratch()
        with found as folder:
            pid = os.fork()
            if pid == 0:
                _child(target, range(start, seeds.stop), progress, folder)
            ended = _wait(pid, progress)
            seed, read, refused, milliseconds = progress.get()
            lines = (folder / "finds").read_text().splitlines() if (folder / "finds").exists() else []
        count.read += read
        count.refused += refused
        count.seconds += milliseconds / 1000
        count.finds += [Find(target.name, *json.loads(line)) for line in lines]
        if ended:
            count.finds.append(Find(target.name, seed, ended))
        start = seed + 1
    count.executions = start - seeds.start
    return count


def _child(target: Target, seeds: range, progress: Progress, folder: Path) -> None:
    """Execute the seeds and leave; finds are lines of a file in the folder."""
    status, began = 1, time.process_time()
    try:
        _limit_memory()
        (folder / "files").mkdir()
        execute, read, refused, finds = target.prepare(folder / "files"), 0, 0, 0
        progress.put(seeds.start, 0, 0, 0)
        for seed in seeds:
            ended, what = outcome(execute, seeded(target.name, seed))
            read, refused = read + (ended == "read"), refused + (ended == "refused")
            if ended == "find":
                finds += 1
                with (folder / "finds").open("a") as file:
                    file.write(json.dumps([seed, what]) + "\n")
            progress.put(seed, read, refused, int(1000 * (time.process_time() - began)))
            if finds >= KEPT:
                break
        status = 0
    except BaseException as error:  # noqa: BLE001 -- a child must not return into the parent's code
        sys.stderr.write(f"{target.name}: {type(error).__name__}: {error}\n")
    os._exit(status)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def _wait(pid: int, progress: Progress) -> str:
    """Wait for a child; return how it ended, empty for a good end. A child without progress is killed."""
    last, since, pause = progress.get(), time.monotonic(), 0.01
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return "" if code == 0 else f"the process ended with {code}"
        now = progress.get()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > HANG_S:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"no end within {HANG_S:g} s"
        time.sleep(pause)
        pause = min(0.5, 2 * pause)


def deal(executions: int, targets: Sequence[Target]) -> dict[str, int]:
    """Return how many executions each target gets; one of share 0 gets a quarter of one of share 1."""
    shares = {one.name: one.share or 0.25 for one in targets}
    return {name: max(1, round(executions * share / sum(shares.values()))) for name, share in shares.items()}


def _one(target: Target, seed: int) -> None:
    with scratch() as folder:
        execute: Execute = target.prepare(folder)
        execute(seeded(target.name, seed))
        sys.stdout.write("read\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz the readers of foreign files.")
    parser.add_argument("--executions", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--target", action="append", default=[], help="a part of a name; default: all")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="repeat this execution of the one target, with its traceback")
    parser.add_argument("--out", type=Path, help="JSON with the counts")
    return parser.parse_args()


def main() -> int:
    """Run what the command line says; return 1 if there are finds."""
    given = _arguments()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    chosen = [one for name, one in TARGETS.items() if not given.target or any(part in name for part in given.target)]
    if given.seed is not None:
        _one(chosen[0], given.seed)
        return 0
    counts: dict[str, Any] = {}
    for name, executions in deal(given.executions, chosen).items():
        count = run_target(TARGETS[name], range(given.first, given.first + executions))
        counts[name] = asdict(count)
        sys.stdout.write(f"{name}: {count.executions:,} ({count.read:,} read, {count.refused:,} refused, ")
        sys.stdout.write(f"{len(count.finds)} finds) {count.seconds:.0f} s\n")
        sys.stdout.writelines(f"    seed {one.seed}: {one.what}\n" for one in count.finds[:5])
        sys.stdout.flush()
        if given.out:
            given.out.write_text(json.dumps(counts, indent=1))
    return int(any(count["finds"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
