"""Speed of summing neighbours' expression and of writing predictions, beside the usual procedures.

    python infra/benchmarks/bench_impute.py [--out impute.json] [--rows N --genes G] [--queries Q] [--rounds 5]

The reference procedure is the published one: for each query, `np.average` over the gathered rows of its 50 neighbours,
with their weights. Neighbours are drawn at random over the index, which is the hardest case for memory. Both
procedures alternate, round by round; each figure is the median over the rounds of a ratio within one round. The
memory's bandwidth is that of reading the same expression from end to end, in the same rounds, on the same threads.

Expression is simulated: log1p of counts per 10,000, 12 % of them not zero. Means over 50 such rows are written.
"""

import argparse
import functools
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
from bench_impute_files import time_files
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
"""Speed over the reference procedure, by rows, genes and form."""
BANDWIDTH_GOAL = 0.85
PATTERNS, REFERENCE = 500, 40  # distinct rows, which repeat; queries of the reference procedure per round


@dataclass(frozen=True)
class SumSpeed:
    """Speed of summing one form."""

    rows: int
    genes: int
    form: str
    per_second: float
    times_reference: float
    per_cpu: float
    """The same by CPU time, which other load on the machine affects less."""
    goal: float | None
    error: float
    """Largest difference from the reference, over the largest value."""
    of_bandwidth: float | None
    """Bytes of rows read per second, as a share of the memory bandwidth."""


def simulate(rows: int, genes: int, *, seed: int = 0) -> sparse.csr_array:
    """Return log1p of counts per 10,000, 12 % dense: rows drawn with replacement from 500."""
    random = np.random.default_rng(seed)
    rates = np.exp(random.normal(-3.4, 1.3, genes))
    counts = random.poisson(rates * random.lognormal(0, 0.3, (PATTERNS, 1))).astype(np.float32)
    patterns = sparse.csr_array(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4))
    return patterns[random.integers(0, PATTERNS, rows)]


def reference(expression: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Average one query after the other, as the published code does."""
    averages = np.zeros((len(rows), expression.shape[1]))
    for query in range(len(rows)):
        averages[query] = np.average(expression[rows[query], :], axis=0, weights=weights[query])
    return averages


@njit(nogil=True, fastmath=True)
def _read(values: np.ndarray) -> Any:
    total = np.float32(0)
    for at in range(values.size):
        total += values[at]
    return total


def read_all(values: np.ndarray) -> None:
    """Read an array from end to end on torch's number of threads."""
    parts = np.array_split(values.reshape(-1), torch.get_num_threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(_read, parts))


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Return the wall-clock seconds and the CPU seconds of a run."""
    start, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - cpu


def time_sums(rows: int, genes: int, forms: tuple[str, ...], *, queries: int, rounds: int) -> list[SumSpeed]:
    """Time the sums of each form and of the reference procedure, alternating."""
    values, random = simulate(rows, genes), np.random.default_rng(1)
    dense = values.toarray()
    weights = random.random((queries, K), dtype=np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    near = random.integers(0, rows, (queries, K))
    expressions = {form: _in_form(form, dense, values) for form in forms}
    few = slice(0, REFERENCE)
    truth = reference(dense, weights[few], near[few])
    read_all(dense)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ("reference", "read", *forms)}
    errors = {}
    for form, expression in expressions.items():
        errors[form] = float(np.abs(expression.share_of_sum(weights, near)[few] - truth).max() / truth.max())
    for _ in range(rounds):
        times["reference"].append(seconds(lambda: reference(dense, weights[few], near[few])))
        times["read"].append(seconds(lambda: read_all(dense)))
        for form, expression in expressions.items():
            times[form].append(seconds(functools.partial(expression.share_of_sum, weights, near)))
    speeds = []
    for form in forms:
        wall, cpu = (_ratio(times["reference"], times[form], by) * queries / REFERENCE for by in (0, 1))
        share = None
        if form in {"float32", "float16"}:
            read = queries * K * genes * (4 if form == "float32" else 2) / dense.nbytes
            share = _ratio(times["read"], times[form], 0) * read
        per_second = queries / statistics.median(taken[0] for taken in times[form])
        goal = GOALS.get((rows, genes, form))
        speeds.append(SumSpeed(rows, genes, form, per_second, wall, cpu, goal, errors[form], share))
    return speeds


def _ratio(theirs: list[tuple[float, float]], ours: list[tuple[float, float]], by: int) -> float:
    """Return the median over the rounds of the reference's time over ours; `by` is 0 for wall clock, 1 for CPU."""
    return statistics.median(a[by] / b[by] for a, b in zip(theirs, ours, strict=True))


def _in_form(form: str, dense: np.ndarray, values: sparse.csr_array) -> ExpressionRows:
    if form in {"float32", "float16"}:
        return DenseExpression(dense.astype(form, copy=False))
    rows = in_memory(values)
    assert isinstance(rows, SparseExpression)  # from a csr_array
    half = SparseExpression(rows.values.astype(np.float16), rows.columns, rows.starts, rows.genes)
    return rows if form == "csr" else half


def _line(speed: SumSpeed) -> str:
    goal = f"{speed.goal:6.1f}" if speed.goal else f"{'':6}"
    share = f"{speed.of_bandwidth:9.2f}" if speed.of_bandwidth else f"{'':9}"
    rate = f"{speed.per_second:10.0f} {speed.times_reference:8.1f} {goal} {speed.per_cpu:8.1f}"
    return f"{speed.rows:8d} {speed.genes:7d} {speed.form:>8} {rate} {share} {speed.error:9.1e}\n"


def main() -> None:
    """Measure, print the figures beside the goals, and write them as JSON with --out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--rows", type=int, help="measure this number of rows only, not the three sizes of the goals")
    parser.add_argument("--genes", type=int, default=3_467)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    every = ("float32", "float16", "csr", "csr16")
    cases = [(100_000, 3_467, every), (10_000, 20_000, every), (40_000, 20_000, ("csr", "csr16"))]
    if options.rows:
        cases = [(options.rows, options.genes, every)]
    sys.stdout.write(f"{torch.get_num_threads()} threads, {options.queries} queries, k = {K}\n")
    head = f"{'queries/s':>10} {'speed-up':>8} {'goal':>6} {'by CPU':>8} {'of memory':>9} {'error':>9}"
    sys.stdout.write(f"{'rows':>8} {'genes':>7} {'form':>8} {head}\n")
    sums: list[SumSpeed] = []
    for rows, genes, forms in cases:
        queries = max(50, options.queries * 3_467 // genes)
        for speed in time_sums(rows, genes, forms, queries=queries, rounds=options.rounds):
            sys.stdout.write(_line(speed))
            sums.append(speed)
    sys.stdout.write(f"goal: float32, {cases[0][1]} genes: {BANDWIDTH_GOAL} of memory bandwidth; error <= 1e-5\n\n")
    with tempfile.TemporaryDirectory() as folder:
        files = time_files(Path(folder), simulate(4_000, options.genes), rounds=options.rounds)
    found: dict[str, Any] = {"sums": [asdict(one) for one in sums], "files": [asdict(one) for one in files]}
    if options.out:
        options.out.write_text(json.dumps({**found, "threads": torch.get_num_threads(), "pyarrow": pa.__version__}))


if __name__ == "__main__":
    main()
