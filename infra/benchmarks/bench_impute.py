"""How fast neighbours become expression, and expression becomes files, next to how it is usually done.

    python infra/benchmarks/bench_impute.py [--out impute.json] [--rows N --genes G] [--queries Q] [--rounds 5]

The reference procedure is the published one: for each query, `np.average` over the gathered rows of its 50 neighbours,
with their weights. Neighbours are drawn at random over the bank, which is the hardest for memory. Ours and theirs take
turns, round by round; each figure is the median over the rounds of a ratio within one round. The memory's bandwidth is
that of reading the same bank from end to end, in the same rounds, by as many threads as sum.

Expression is made up: log1p of counts per 10,000, 12 % of them not zero. What is written is means over 50 such rows.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from bench_impute_files import written
from numba import njit
from scipy import sparse

from raystp.index.expression.forms import DenseExpression, ExpressionRows, SparseExpression
from raystp.index.expression.shard import in_memory

K = 50
GOALS = {
    (100_000, 3_467, "float32"): 7.0,
    (100_000, 3_467, "float16"): 10.0,
    (10_000, 20_000, "csr"): 6.0,
    (40_000, 20_000, "csr"): 3.0,
}
"""Times the reference procedure, by rows, genes and form."""
BANDWIDTH_GOAL = 0.85
PATTERNS, REFERENCE = 500, 40  # distinct rows that a bank repeats; queries that the reference answers a round


@dataclass(frozen=True)
class Gathered:
    """How fast a form is summed."""

    rows: int
    genes: int
    form: str
    per_second: float
    times_reference: float
    per_cpu: float
    """The same by processor time: one thread's work against theirs, whatever else runs on the machine."""
    goal: float | None
    off: float
    """Largest difference from the reference, over the largest value."""
    of_bandwidth: float | None
    """Bytes of the rows that were read per second, as a share of the memory's."""


def made_up(rows: int, genes: int, *, seed: int = 0) -> sparse.csr_array:
    """Return log1p of counts per 10,000, 12 % dense: 500 rows drawn again and again."""
    random = np.random.default_rng(seed)
    rates = np.exp(random.normal(-3.4, 1.3, genes))
    counts = random.poisson(rates * random.lognormal(0, 0.3, (PATTERNS, 1))).astype(np.float32)
    patterns = sparse.csr_array(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4))
    return patterns[random.integers(0, PATTERNS, rows)]


def reference(expression: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Average one query after the other, as the published code does."""
    found = np.zeros((len(rows), expression.shape[1]))
    for query in range(len(rows)):
        found[query] = np.average(expression[rows[query], :], axis=0, weights=weights[query])
    return found


@njit(nogil=True, fastmath=True)
def _read(values: np.ndarray) -> Any:
    total = np.float32(0)
    for at in range(values.size):
        total += values[at]
    return total


def read_all(values: np.ndarray) -> None:
    """Read an array from end to end by as many threads as torch has."""
    parts = np.array_split(values.reshape(-1), torch.get_num_threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(_read, parts))


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return how long it took, by the wall clock and by the processors."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def gathered(rows: int, genes: int, forms: tuple[str, ...], *, queries: int, rounds: int) -> list[Gathered]:
    """Sum neighbours of each form and by the reference, in turns."""
    values, random = made_up(rows, genes), np.random.default_rng(1)
    dense = values.toarray()
    weights = random.random((queries, K), dtype=np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    near = random.integers(0, rows, (queries, K))
    ready = {form: _in_form(form, dense, values) for form in forms}
    few = slice(0, REFERENCE)
    truth = reference(dense, weights[few], near[few])
    read_all(dense)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ("reference", "read", *forms)}
    off = {}
    for form, one in ready.items():
        off[form] = float(np.abs(one.share_of_sum(weights, near)[few] - truth).max() / truth.max())
    for _ in range(rounds):
        times["reference"].append(seconds(lambda: reference(dense, weights[few], near[few])))
        times["read"].append(seconds(lambda: read_all(dense)))
        for form, one in ready.items():
            times[form].append(seconds(lambda one=one: one.share_of_sum(weights, near)))  # type: ignore[misc]
    found = []
    for form in forms:
        wall, cpu = (_ratio(times["reference"], times[form], by) * queries / REFERENCE for by in (0, 1))
        share = None
        if form in {"float32", "float16"}:
            read = queries * K * genes * (4 if form == "float32" else 2) / dense.nbytes
            share = _ratio(times["read"], times[form], 0) * read
        per_second = queries / statistics.median(taken[0] for taken in times[form])
        goal = GOALS.get((rows, genes, form))
        found.append(Gathered(rows, genes, form, per_second, wall, cpu, goal, off[form], share))
    return found


def _ratio(theirs: list[tuple[float, float]], ours: list[tuple[float, float]], by: int) -> float:
    """Return the median over the rounds of their time over ours."""
    return statistics.median(a[by] / b[by] for a, b in zip(theirs, ours, strict=True))


def _in_form(form: str, dense: np.ndarray, values: sparse.csr_array) -> ExpressionRows:
    if form in {"float32", "float16"}:
        return DenseExpression(dense.astype(form, copy=False))
    one = in_memory(values)
    assert isinstance(one, SparseExpression)  # of a csr_array
    return one if form == "csr" else SparseExpression(one.values.astype(np.float16), one.columns, one.starts, one.genes)


def _line(one: Gathered) -> str:
    goal = f"{one.goal:6.1f}" if one.goal else f"{'':6}"
    share = f"{one.of_bandwidth:9.2f}" if one.of_bandwidth else f"{'':9}"
    rate = f"{one.per_second:10.0f} {one.times_reference:8.1f} {goal} {one.per_cpu:8.1f}"
    return f"{one.rows:8d} {one.genes:7d} {one.form:>8} {rate} {share} {one.off:9.1e}\n"


def main() -> None:
    """Measure, print the figures beside the goals, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--rows", type=int, help="one bank of so many rows, in place of the three of the goals")
    parser.add_argument("--genes", type=int, default=3_467)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    every = ("float32", "float16", "csr", "csr16")
    cases = [(100_000, 3_467, every), (10_000, 20_000, every), (40_000, 20_000, ("csr", "csr16"))]
    if options.rows:
        cases = [(options.rows, options.genes, every)]
    sys.stdout.write(f"{torch.get_num_threads()} threads, {options.queries} queries, k = {K}\n")
    head = f"{'queries/s':>10} {'x theirs':>8} {'goal':>6} {'by CPU':>8} {'of memory':>9} {'off':>9}"
    sys.stdout.write(f"{'rows':>8} {'genes':>7} {'form':>8} {head}\n")
    sums: list[Gathered] = []
    for rows, genes, forms in cases:
        some = max(50, options.queries * 3_467 // genes)
        for one in gathered(rows, genes, forms, queries=some, rounds=options.rounds):
            sys.stdout.write(_line(one))
            sums.append(one)
    sys.stdout.write(f"goal: float32, {cases[0][1]} genes: {BANDWIDTH_GOAL} of the memory's bandwidth; off <= 1e-5\n\n")
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), made_up(4_000, options.genes), rounds=options.rounds)
    found: dict[str, Any] = {"sums": [asdict(one) for one in sums], "files": [asdict(one) for one in files]}
    if options.out:
        options.out.write_text(json.dumps({**found, "threads": torch.get_num_threads(), "pyarrow": pa.__version__}))


if __name__ == "__main__":
    main()
