"""Sums over all queries of a call, by as many threads as torch has been given in this process (`OMP_NUM_THREADS`)."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64

_ALONE = 1 << 20  # values read, below which a second thread costs more than it brings


def bags(
    weights: Float32[np.ndarray, "query k"],
    rows: Int64[np.ndarray, "query k"],
    first: int,
    values: Float32[np.ndarray, "row gene"],
) -> Float32[np.ndarray, "query gene"]:
    """Sum whole float32 rows by torch's embedding_bag, 1.2 times faster on them than a loop of numba's."""
    inside = (rows >= first) & (rows < first + len(values))
    ids, shares, starts = rows[inside] - first, weights[inside], np.zeros(len(rows), np.int64)
    np.cumsum(inside.sum(axis=1)[:-1], out=starts[1:])
    with torch.inference_mode():
        summed = torch.nn.functional.embedding_bag(
            torch.from_numpy(ids),
            torch.from_numpy(_writable(values)),
            torch.from_numpy(starts),
            mode="sum",
            per_sample_weights=torch.from_numpy(shares),
        )
    found: np.ndarray = summed.numpy()
    return found


def _writable(values: np.ndarray) -> np.ndarray:
    """Return the same memory under a flag that torch does not warn of: what Ray's store gives may only be read."""
    values = np.ascontiguousarray(values)
    if values.flags.writeable or not values.size:
        return values
    number = np.ctypeslib.as_ctypes_type(values.dtype)
    return np.ctypeslib.as_array((number * values.size).from_address(values.ctypes.data)).reshape(values.shape)


def over_queries(
    run: Callable[..., None],
    asked: Any,
    held: tuple[np.ndarray, ...],
    mean: tuple[np.ndarray, ...],
    *,
    width: int,
    read: int,
) -> Float32[np.ndarray, "query gene"]:
    """Run a kernel over all queries, cut among as many threads as torch has been given in this process."""
    weights, rows = np.ascontiguousarray(asked[0], np.float32), np.ascontiguousarray(asked[1], np.int64)
    out = np.empty((len(rows), width), np.float32)
    # The kernels look at no bounds.
    assert weights.shape == rows.shape
    assert all(one.shape == out.shape for one in mean)
    given = (weights, rows, int(asked[2]), *held, *(np.ascontiguousarray(one, np.float32) for one in mean))
    threads = min(torch.get_num_threads(), len(rows), 1 + rows.size * read // _ALONE)
    if threads <= 1:
        run(*given, 0, len(rows), out)
        return out
    cuts = np.linspace(0, len(rows), 4 * threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run, *given, a, b, out) for a, b in itertools.pairwise(cuts)]:
            done.result()
    return out
