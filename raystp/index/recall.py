"""Recall against exact search, and the least effort that reaches a target.

Recall at k is the share of answers that score no less than the true k-th: rows with equal scores are equally right.
"""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from raystp.index.opened import ReferenceIndex
from raystp.index.search.kinds import LISTED, IndexParams, SearchParams
from raystp.index.search.merge import Answer

QUERIES = 256
"""Rows of the bank that recall is measured on, where no queries are given."""

SURE = 2.0
"""Standard errors of a recall, over the queries, by which it must exceed the target: other queries are not these."""

_Tried = tuple[SearchParams, float, float]
"""An effort, the recall that was measured, and what it surely is."""

_FACTORS = {"exact": (1,), "ivf": (1,), "ivfsq": (2,), "ivfpq": (4, 8, 16, 32), "hnsw": (1,)}
_MOST_EF = 1024


def recall(answer: Answer, truth: Answer) -> float:
    """Return the share of answers that score no less than the true k-th."""
    return float(_shares(answer, truth).mean())


def _shares(answer: Answer, truth: Answer) -> Float64[np.ndarray, "query"]:
    found: np.ndarray = (answer[0] >= truth[0][:, -1:]).mean(axis=1)
    return found


def sample(bank: ReferenceIndex, seed: int) -> Float32[np.ndarray, "query joint"]:
    """Return vectors of the bank to ask it with, the same for any number of shards."""
    total = bank.rows.num_rows
    rows = np.sort(np.random.default_rng(seed).choice(total, min(QUERIES, total), replace=False))
    parts = [one.vectors[rows[(rows >= one.first) & (rows < one.end)] - one.first] for one in bank.shards]
    found: np.ndarray = np.concatenate(parts)
    return found


def tuned(
    bank: ReferenceIndex, queries: Float32[np.ndarray, "query joint"], want: IndexParams
) -> tuple[SearchParams, float]:
    """Return the least effort on a ladder whose recall on these queries surely reaches the target, and that recall.

    Surely: by `SURE` standard errors. Where none does, the best of all. First the lists (or the walk) with as many
    candidates as there may be, then fewer.
    """
    k = min(want.k, bank.rows.num_rows)
    truth = bank.search_exactly(queries, k)

    def reached(effort: SearchParams) -> _Tried:
        shares = _shares(bank.search(queries, k, effort=effort), truth)
        return effort, float(shares.mean()), float(shares.mean() - SURE * shares.std() / np.sqrt(len(shares)))

    factors = _FACTORS[bank.kind]
    wide = _first(map(reached, _ladder(bank, factors[-1])), want.recall)
    narrow = (reached(replace(wide[0], k_factor=factor)) for factor in factors[:-1])
    return _first(itertools.chain(narrow, [wide]), want.recall)[:2]


def measured(bank: ReferenceIndex, want: IndexParams, queries: np.ndarray | None) -> dict[str, Any]:
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


def _ladder(bank: ReferenceIndex, factor: int) -> Iterable[SearchParams]:
    if bank.kind in LISTED:
        most = 1 if bank.centroids is None else len(bank.centroids)
        rungs = sorted({min(most, rung) for at in range(17) for rung in (1 << at, 3 << at >> 1)} - {0})
        return (SearchParams(nprobe=rung, k_factor=factor) for rung in rungs)
    return (
        SearchParams(ef=rung, k_factor=factor) for rung in itertools.takewhile(_up_to, (32 << at for at in range(9)))
    )


def _up_to(rung: int) -> bool:
    return rung <= _MOST_EF


def _first(tried: Iterable[_Tried], target: float) -> _Tried:
    """Return the first that surely reaches the target, else the best of all."""
    seen = []
    for one in tried:
        if one[2] >= target:
            return one
        seen.append(one)
    return max(seen, key=lambda one: one[1])
