"""Recall against exact search, and the least effort that reaches a target.

Recall at k is the share of answers that score no less than the true k-th: rows with equal scores are equally right.
"""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from raystp.index.kinds import LISTED, Effort, Want
from raystp.index.merge import Answer
from raystp.index.opened import Bank

QUERIES = 256
"""Rows of the bank that recall is measured on, where no queries are given."""

_FACTORS = {"exact": (1,), "ivf": (1,), "ivfsq": (2,), "ivfpq": (4, 8, 16, 32), "hnsw": (1,)}
_MOST_EF = 1024


def recall(answer: Answer, truth: Answer) -> float:
    """Return the share of answers that score no less than the true k-th."""
    return float((answer[0] >= truth[0][:, -1:]).mean())


def sample(bank: Bank, seed: int) -> Float32[np.ndarray, "query joint"]:
    """Return vectors of the bank to ask it with, the same for any number of shards."""
    total = bank.rows.num_rows
    rows = np.sort(np.random.default_rng(seed).choice(total, min(QUERIES, total), replace=False))
    parts = [one.vectors[rows[(rows >= one.first) & (rows < one.end)] - one.first] for one in bank.shards]
    found: np.ndarray = np.concatenate(parts)
    return found


def tuned(bank: Bank, queries: Float32[np.ndarray, "query joint"], want: Want) -> tuple[Effort, float]:
    """Return the least effort on a ladder whose recall on these queries reaches the target, and that recall.

    Where none does, the greatest. First the lists (or the walk) with as many candidates as there may be, then fewer.
    """
    k = min(want.k, bank.rows.num_rows)
    truth = bank.search_exactly(queries, k)

    def reached(effort: Effort) -> float:
        return recall(bank.search(queries, k, effort=effort), truth)

    factors = _FACTORS[bank.kind]
    wide = _first(((one, reached(one)) for one in _ladder(bank, factors[-1])), want.recall)
    narrow = ((one, reached(one)) for one in (replace(wide[0], k_factor=factor) for factor in factors[:-1]))
    return _first(itertools.chain(narrow, [wide]), want.recall)


def measured(bank: Bank, want: Want, queries: np.ndarray | None) -> dict[str, Any]:
    """Return what a description says about an approximate bank's effort and recall."""
    asked = sample(bank, want.seed) if queries is None else queries
    effort, found = tuned(bank, asked, want)
    below = found < want.recall
    said = (
        f"recall at {min(want.k, bank.rows.num_rows)} is {found:.4f} on {len(asked)} queries, {want.recall} was asked"
    )
    return {
        "effort": {"nprobe": effort.nprobe, "ef": effort.ef, "k_factor": effort.k_factor},
        "recall": {
            "k": min(want.k, bank.rows.num_rows),
            "target": want.recall,
            "measured": found,
            "queries": len(asked),
            "of": "rows of the bank" if queries is None else "queries given",
            "seed": want.seed,
        },
        "below_target": below,
        "sentence": f"{said}: below the target at the greatest effort" if below else said,
    }


def _ladder(bank: Bank, factor: int) -> Iterable[Effort]:
    if bank.kind in LISTED:
        most = 1 if bank.centroids is None else len(bank.centroids)
        rungs = sorted({min(most, rung) for at in range(17) for rung in (1 << at, 3 << at >> 1)} - {0})
        return (Effort(nprobe=rung, k_factor=factor) for rung in rungs)
    return (Effort(ef=rung, k_factor=factor) for rung in itertools.takewhile(_up_to, (32 << at for at in range(9))))


def _up_to(rung: int) -> bool:
    return rung <= _MOST_EF


def _first(tried: Iterable[tuple[Effort, float]], target: float) -> tuple[Effort, float]:
    """Return the first that reaches the target, else the best of all."""
    seen = []
    for effort, found in tried:
        if found >= target:
            return effort, found
        seen.append((effort, found))
    return max(seen, key=lambda one: one[1])
