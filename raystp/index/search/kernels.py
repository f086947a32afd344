"""The loops of the search, compiled by numba when first called: what a pair scores, and which rows are worth scoring.

Kernels take plain arrays, release the GIL, and write only the lines from `start` to `end` of what they fill: callers
cut the queries among threads, and any number of them gives the same bits. No fast-math: a sum is added in the order
that is written here, on every machine.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 -- numba takes plain arguments, and many

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, no_type_check

import faiss
import numpy as np
from numba import njit

_BLOCK, _SUMS = 64, 32
_ALONE = 1 << 14
"""Numbers below which a second thread costs more than it brings."""


@no_type_check
def pair_score(left, right, squared, sums):
    """Return the dot product, or minus the squared distance, in float64, by sums that are added up at the end.

    float32 x float32 is exact in float64, so only additions round, in an order that the length alone decides.
    """
    sums[:] = 0
    whole = left.size - left.size % _SUMS
    for begin in range(0, whole, _SUMS):
        a, b = left[begin : begin + _SUMS], right[begin : begin + _SUMS]
        if squared:
            for at in range(_SUMS):
                apart = np.float64(a[at]) - np.float64(b[at])
                sums[at] -= apart * apart
        else:
            for at in range(_SUMS):
                sums[at] += np.float64(a[at]) * np.float64(b[at])
    for at in range(whole, left.size):
        apart = np.float64(left[at]) - np.float64(right[at])
        sums[at - whole] += -apart * apart if squared else np.float64(left[at]) * np.float64(right[at])
    half = _SUMS // 2
    while half:
        for at in range(half):
            sums[at] += sums[at + half]
        half //= 2
    return np.float32(sums[0])


@no_type_check
def score_pairs(bank, queries, row, query, squared, scores, start, end):
    """Score the pairs (query[i], row[i])."""
    sums = np.empty(_SUMS, np.float64)
    for at in range(start, end):
        scores[at] = _pair_score(queries[query[at]], bank[row[at]], squared, sums)


@no_type_check
def score_candidates(bank, queries, rows, squared, scores, start, end):
    """Score each query's candidates, one line of `rows` a query; a row below 0 is nobody and scores -inf."""
    sums = np.empty(_SUMS, np.float64)
    for query in range(start, end):
        for at in range(rows.shape[1]):
            row = rows[query, at]
            scores[query, at] = _pair_score(queries[query], bank[row], squared, sums) if row >= 0 else -np.inf


@no_type_check
def select(tile, norms, scale, numbers, keep, near, rows, count, least, start, end):
    """Take up what may be among the best `keep` of a tile of products: value = scale x product - norm.

    `near` and `rows` hold, per query, up to twice as many candidates in no order; `least` is what a value must exceed.
    """
    flags = np.ones(_BLOCK, np.uint8)
    eights, blocks = flags.view(np.uint64), np.empty(tile.shape[1] // _BLOCK + 1, np.int64)
    whole = tile.shape[1] - tile.shape[1] % _BLOCK
    for query in range(start, end):
        line, bound, held, found = tile[query], least[query], count[query], 0
        for at in range(0, whole, _BLOCK):  # slices without a name, for a name is counted at every turn
            if _hits(line[at : at + _BLOCK], norms[at : at + _BLOCK], scale, bound):
                blocks[found] = at
                found += 1
        blocks[found] = whole  # what is left over at the end of a line is looked at in any case
        for first in blocks[: found + 1]:
            if first < whole:
                _flag(line[first : first + _BLOCK], norms[first : first + _BLOCK], scale, bound, flags)
            else:
                flags[:] = 1
            for eight in range(eights.size):
                if eights[eight] == 0:
                    continue
                for at in range(first + 8 * eight, min(first + 8 * eight + 8, line.size)):
                    value = scale * line[at] - norms[at]
                    if value > bound:
                        near[query, held], rows[query, held] = value, numbers[at]
                        held += 1
                        if held == near.shape[1]:
                            _best_first(near[query], rows[query], held, keep)
                            bound, held = near[query, keep - 1], keep
        least[query], count[query] = bound, held


@no_type_check
def bound_of(tile, norms, scale, keep, groups, least, start, end):
    """Put into `least` what at least `keep` values of each line reach: the keep-th largest of as many groups' maxima.

    A group is every `groups`-th value of a line, so that the loop within is over neighbours; what is left over at the
    end of a line is in no group.
    """
    best, nobody = np.empty(groups, np.float32), np.zeros(groups, np.int64)
    for query in range(start, end):
        line = tile[query]
        best[:] = -np.inf
        for first in range(0, line.size - groups + 1, groups):
            _raised(line[first : first + groups], norms[first : first + groups], scale, best)
        _best_first(best, nobody, groups, keep)
        least[query] = best[keep - 1]


@no_type_check
def raised(products, lengths, scale, best):
    """Let each of `best` be its value where that is more."""
    for at in range(best.size):
        value = scale * products[at] - lengths[at]
        best[at] = value if value > best[at] else best[at]


@no_type_check
def hits(products, lengths, scale, bound):
    """Return how many of a block exceed the bound: a loop of fixed length, which becomes a few vector instructions."""
    found = np.int32(0)
    for at in range(_BLOCK):
        found += np.int32(scale * products[at] - lengths[at] > bound)
    return found


@no_type_check
def flag(products, lengths, scale, bound, flags):
    """Say which of a block exceed the bound."""
    for at in range(_BLOCK):
        flags[at] = scale * products[at] - lengths[at] > bound


@no_type_check
def shorten(near, rows, count, keep, start, end):
    """Leave each query its best `keep`, in the first places."""
    for query in range(start, end):
        if count[query] > keep:
            _best_first(near[query], rows[query], count[query], keep)


@no_type_check
def best_first(near, rows, count, keep):
    """Move the `keep` largest of `count` values to the front, the least of them last of these (Hoare's selection)."""
    low, high = 0, count - 1
    while low < high:
        pivot = near[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while near[i] > pivot:
                i += 1
            while near[j] < pivot:
                j -= 1
            if i <= j:
                near[i], near[j] = near[j], near[i]
                rows[i], rows[j] = rows[j], rows[i]
                i += 1
                j -= 1
        if keep - 1 <= j:
            high = j
        elif keep - 1 >= i:
            low = i
        else:
            return


_pair_score = njit(inline="always")(pair_score)
_best_first = njit(best_first)
_hits = njit(hits)
_flag = njit(flag)
_raised = njit(raised)


@functools.cache
def compiled(kernel: Callable[..., None]) -> Any:
    """Return a kernel that compiles itself when it is first called, or takes what an earlier process compiled."""
    try:
        return njit(nogil=True, cache=True)(kernel)
    except (RuntimeError, OSError):  # no folder that numba could write to
        return njit(nogil=True)(kernel)


def count() -> int:
    """Return how many threads FAISS would use."""
    return int(faiss.omp_get_max_threads())


def run(kernel: Callable[..., None], lines: int, *given: Any) -> None:
    """Run a kernel over all lines in this thread."""
    compiled(kernel)(*given, 0, lines)


def over(kernel: Callable[..., None], lines: int, given: tuple[Any, ...], *, size: int) -> None:
    """Run a kernel over all lines, cut among as many threads as FAISS would use; `size` numbers are read in all."""
    many = min(count(), lines)
    if many <= 1 or size < _ALONE:
        run(kernel, lines, *given)
        return
    cuts = itertools.pairwise(np.linspace(0, lines, many + 1).astype(int).tolist())
    with ThreadPoolExecutor(many) as pool:
        for done in [pool.submit(functools.partial(compiled(kernel), *given, a, b)) for a, b in cuts]:
            done.result()
