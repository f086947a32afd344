"""The tables of the embedding benchmark: rates and ratios of the runs, and the parts of a tile's time."""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RAY_DATA = "raystp, Ray Data"
"""Units by actors of Ray Data, as on a cluster."""
PEERS = ("lazyslide", "tiatoolbox", "trident")
BATCHES, LOADER_BATCHES = "raystp, no network", "DataLoader, no network"
"""Variants that read and normalise, and have no network."""
BATCH_GOALS = {"per_cpu_s": 5.0, "per_s": 4.0}


@dataclass(frozen=True)
class Case:
    """An encoder, and the number of tiles for it."""

    name: str
    encoder: dict[str, Any]
    tiles: int
    slow_tiles: int
    unit_tiles: int
    goals: dict[str, float]


@dataclass(frozen=True)
class Row:
    """The result of one run."""

    case: str
    variant: str
    tiles: int
    per_s: float
    """Tiles per second, without the first and the last unit."""
    per_cpu_s: float
    first_s: float
    """Seconds from the call to the first unit, without the start of Ray and imports."""
    max_difference: float
    """Largest difference from raystp's vectors, relative to their largest value."""
    version: str = ""


def say(line: str) -> None:
    """Print a line immediately."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def print_row(row: Row) -> None:
    """Print the result of one run."""
    agree = "equal" if row.max_difference == 0 else f"differ by {row.max_difference:.1e} of the largest value"
    name = f"{row.variant} {row.version}".strip()
    say(f"  {name:<40}{row.per_s:>9.0f}{row.per_cpu_s:>9.0f}{row.first_s:>10.1f} s  {agree}")


def print_goals(case: Case, rows: list[Row]) -> None:
    """Print raystp's rate relative to the others', and whether the goals are met."""
    ours, plain = ([row for row in rows if row.variant == name] for name in ("raystp", "plain"))
    if not ours:
        return
    for measure, words in (("per_cpu_s", "per CPU-second"), ("per_s", "in wall clock")):
        mine = statistics.median(getattr(row, measure) for row in ours)
        if plain:
            pairs = zip(ours, plain, strict=False)
            _print_ratio(
                f"x the plain loop's rate with Ray, {words}",
                statistics.median(getattr(a, measure) / getattr(b, measure) for a, b in pairs),
                0.95,
            )
        loops = [getattr(row, measure) for row in rows if row.variant.startswith(("DataLoader", "the same"))]
        if loops:
            _print_ratio(f"x the best DataLoader loop, {words}", mine / max(loops), case.goals[measure])
        for row in rows:
            if row.variant in PEERS:
                _print_ratio(f"x {row.variant}, {words}", mine / getattr(row, measure), 1.0)
    for name in ("raystp", RAY_DATA):
        first = statistics.median([row.first_s for row in rows if row.variant == name] or [math.nan])
        say(f"  cold start of {name}, with a running Ray: {first:.1f} s to a unit of {case.unit_tiles} tiles (goal 5)")


def _print_ratio(words: str, ratio: float, goal: float) -> None:
    say(f"  {ratio:6.2f} {words} (goal {goal:g}{'' if ratio >= goal else ', MISSED'})")


def print_batches(rows: Sequence[Row]) -> None:
    """Print the ratio of the runs without a network."""
    ours, loops = ([row for row in rows if row.variant.startswith(name)] for name in (BATCHES, LOADER_BATCHES))
    if not ours or not loops:
        return
    for measure, words in (("per_cpu_s", "per CPU-second"), ("per_s", "in wall clock")):
        mine, best = (max(getattr(row, measure) for row in some) for some in (ours, loops))
        _print_ratio(f"x the best DataLoader loop without a network, {words}", mine / best, BATCH_GOALS[measure])


def print_parts(parts: Mapping[str, Mapping[str, float]], rows: Sequence[Row]) -> None:
    """Print the CPU microseconds of each part of a tile's time, and what whole runs take beyond them."""
    before, after = parts["before"], parts["after"]
    say("  CPU microseconds per tile, one thread: before, and with the compiled loop and kept memory")
    for part in after:
        say(f"  {before[part]:9.1f}{after[part]:9.1f} {part}")
    known = sum(after.values())
    say(f"  {sum(before.values()):9.1f}{known:9.1f} all of these")
    plain, ours = (_microseconds(rows, name) for name in ("plain", "raystp"))
    if plain and ours:
        say(
            f"  {'':9}{plain - known:9.1f} the plain loop beyond these: threads, queues, two processes on shared caches"
        )
        say(f"  {'':9}{ours - plain:9.1f} Ray: raystp beyond the plain loop")
        say(f"  {'':9}{ours:9.1f} raystp")


def _microseconds(rows: Sequence[Row], variant: str) -> float:
    """Return the CPU microseconds per tile of a variant's median run; 0 without one."""
    found = [1e6 / row.per_cpu_s for row in rows if row.variant == variant]
    return statistics.median(found) if found else 0.0
