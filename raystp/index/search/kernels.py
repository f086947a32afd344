# ruff: noqa: ANN001, ANN201, ANN202, ARG001, PLR0913, PLR0917 -- numba compiles these functions; plain arguments
"""Loops of the search, compiled by numba at first use: the exact score of a pair, and the best k of some candidates.

Kernels take plain arrays, release the GIL, and write only the lines from `start` to `end` of their output. Callers
divide the queries among threads; results are equal for any number of threads. Without fast-math, a sum is added in the
order of the source on every machine. The one exception, a fused multiply-add of two float32 values in float64, rounds
as the separate operations do, because their product is exact.
"""

import functools
import itertools
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from raystp.compiled import compiled
from raystp.index.expression.kernels import Kernel, fetch
from raystp.index.search import threads

_LANES = 32
"""Partial sums of a pair's score, added up at the end."""
_AHEAD, _LINE = 4, 16
"""Candidates by which rows are prefetched ahead (1.5 times as fast at 100,000 rows), and floats in a cache line."""
_ONE_THREAD_BELOW = 1 << 14
"""Values read, below which a second thread costs more than it saves."""


@no_type_check
def _lane_sums(*, squared):
    """Return the function that fills `sums` with the partial sums over the first `blocks` blocks of 32 dimensions.

    The sums are of products, or of minus the squared differences. They stay in vector registers, which numba's own
    loops do not achieve (25 ns rather than 100 ns for a pair of 256 dimensions).
    """

    @intrinsic
    @no_type_check
    def lane_sums(context, query, row, blocks, sums):
        @no_type_check
        def emit(context, builder, signature, given):
            wide = ir.VectorType(ir.DoubleType(), _LANES)
            narrow = ir.VectorType(ir.FloatType(), _LANES)
            zero = ir.Constant(wide, [ir.Constant(ir.DoubleType(), 0.0)] * _LANES)
            total = cgutils.alloca_once_value(builder, zero)
            left, right, out = (
                arrayobj.make_array(signature.args[at])(context, builder, given[at]).data for at in (0, 1, 3)
            )
            with cgutils.for_range(builder, given[2]) as loop:
                at = [builder.mul(loop.index, ir.Constant(ir.IntType(64), _LANES))]
                x = builder.load(builder.bitcast(builder.gep(left, at), wide.as_pointer()), align=8)
                y = builder.load(builder.bitcast(builder.gep(right, at), narrow.as_pointer()), align=4)
                y = builder.fpext(y, wide)
                if squared:
                    difference = builder.fsub(x, y)
                    added = builder.fsub(builder.load(total), builder.fmul(difference, difference))
                else:
                    product = builder.fmul(x, y, flags=["contract"])
                    added = builder.fadd(builder.load(total), product, flags=["contract"])
                builder.store(added, total)
            builder.store(builder.load(total), builder.bitcast(out, wide.as_pointer()), align=8)
            return context.get_dummy_value()

        return types.void(query, row, types.int64, sums), emit

    return lane_sums


_products, _squares = _lane_sums(squared=False), _lane_sums(squared=True)


@no_type_check
def pair_score(query, row, squared, sums):
    """Return the dot product of a float64 query and a float32 row, or minus their squared distance, as float32."""
    blocks = query.size // _LANES
    if squared:
        _squares(query, row, blocks, sums)
    else:
        _products(query, row, blocks, sums)
    for at in range(blocks * _LANES, query.size):
        value = np.float64(row[at])
        difference = query[at] - value
        sums[at - blocks * _LANES] += -difference * difference if squared else query[at] * value
    for half in (16, 8, 4, 2, 1):
        for at in range(half):
            sums[at] += sums[at + half]
    return np.float32(sums[0]) + np.float32(0)  # 0 and -0 are one score


@no_type_check
def score_pairs(reference, queries, row, query, squared, scores, start, end):
    """Score the pairs (query[i], row[i])."""
    sums, values = np.empty(_LANES, np.float64), np.empty(queries.shape[1], np.float64)
    for at in range(start, end):
        values[:] = queries[query[at]]
        scores[at] = _pair_score(values, reference[row[at]], squared, sums)


@no_type_check
def score_rows(reference, queries, rows, first, squared, scores, start, end):
    """Score each query's rows of the index that are in the reference, which begins with row `first`."""
    sums, values = np.empty(_LANES, np.float64), np.empty(queries.shape[1], np.float64)
    size, fetched, count = reference.shape[1], rows.shape[1], reference.shape[0]
    flat, own = reference.ravel(), np.empty(rows.shape[1], np.int64)
    for query in range(start, end):
        values[:] = queries[query]
        inside = 0
        for at in range(fetched):
            if 0 <= rows[query, at] - first < count:
                own[inside] = at
                inside += 1
        for number in range(inside):
            coming = rows[query, own[min(number + _AHEAD, inside - 1)]] - first
            for ahead in range(0, size, _LINE):
                fetch(flat, coming * size + ahead)
            at = own[number]
            scores[query, at] = _pair_score(values, reference[rows[query, at] - first], squared, sums)


@no_type_check
def best_candidates(reference, queries, near, rows, floor, squared, scores, found, start, end):
    """Score each query's candidates and write the best k by (-score, row), missing ones as -inf and -1.

    Candidates are ordered by their approximate scores `near`, best first. Those from the first missing one (row -1), or
    from the first below the query's `floor`, are skipped.
    """
    sums, values = np.empty(_LANES, np.float64), np.empty(queries.shape[1], np.float64)
    k, size, fetched = scores.shape[1], reference.shape[1], rows.shape[1]
    flat, flat_rows = reference.ravel(), rows.ravel()
    for query in range(start, end):
        values[:] = queries[query]
        best, best_rows, count = scores[query], found[query], 0
        for at in range(fetched):
            row = rows[query, at]
            if row < 0 or near[query, at] < floor[query]:
                break
            coming = flat_rows[min(query * fetched + at + _AHEAD, flat_rows.size - 1)]
            for ahead in range(0, size, _LINE):
                fetch(flat, coming * size + ahead)
            score = _pair_score(values, reference[row], squared, sums)
            slot = min(count, k)
            while slot > 0 and (best[slot - 1] < score or (best[slot - 1] == score and best_rows[slot - 1] > row)):
                if slot < k:
                    best[slot], best_rows[slot] = best[slot - 1], best_rows[slot - 1]
                slot -= 1
            if slot < k:
                best[slot], best_rows[slot] = score, row
                count = min(count + 1, k)
        best[count:] = -np.inf
        best_rows[count:] = -1


_pair_score = njit(pair_score)


@functools.cache
def compiled_for(kernel: Kernel, arguments: tuple[types.Type, ...]) -> Kernel:
    """Return a kernel compiled for arguments of these types."""
    return compiled(kernel, arguments)


def run_over(kernel: Kernel, lines: int, arguments: tuple[object, ...], *, values: int) -> None:
    """Run a kernel over all lines, divided among the search's threads; `values` numbers are read in total."""
    parts = 1 if values < _ONE_THREAD_BELOW else min(threads.count(), lines)
    bounds = np.linspace(0, lines, parts + 1).astype(int).tolist()
    run = compiled_for(kernel, (*map(typeof, arguments), types.int64, types.int64))
    threads.run_each(lambda part: run(*arguments, *part), list(itertools.pairwise(bounds)))
