"""Recall against exact search, and the cheapest search parameters that reach a target.

Recall at k is the share of the found rows whose score is at least the true k-th score: rows with equal scores count as
equally right.
"""

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from raystp.index.description import Measured
from raystp.index.open import ReferenceIndex
from raystp.index.search.kinds import LISTED, IndexParams, Kind, SearchParams
from raystp.index.search.merge import SearchResult

QUERIES = 256
"""Rows of the index on which recall is measured, where no queries are given."""
MARGIN = 2.0
"""Standard errors, over the queries, by which recall must exceed the target, because other queries will differ."""
_K_FACTORS: dict[Kind, tuple[int, ...]] = {
    "exact": (1,),
    "ivf": (1,),
    "ivfsq": (2,),
    "ivfpq": (4, 8, 16, 32),
    "hnsw": (1,),
}
_MAX_EF = 1024


@dataclass(frozen=True)
class _Trial:
    """Search parameters and the recall that they reach."""

    params: SearchParams
    recall: float
    lower_bound: float
    """The recall less `MARGIN` standard errors."""


def recall(found: SearchResult, truth: SearchResult) -> float:
    """Return the share of found rows whose score is at least the true k-th."""
    return float(_recall_per_query(found, truth).mean())


def _recall_per_query(found: SearchResult, truth: SearchResult) -> Float64[np.ndarray, "query"]:
    shares: np.ndarray = (found[0] >= truth[0][:, -1:]).mean(axis=1)
    return shares


def sample_vectors(index: ReferenceIndex, seed: int) -> Float32[np.ndarray, "query joint"]:
    """Return random vectors of the index as queries, the same for any number of shards."""
    total = index.rows.num_rows
    rows = np.sort(np.random.default_rng(seed).choice(total, min(QUERIES, total), replace=False))
    parts = [shard.vectors[rows[(rows >= shard.first) & (rows < shard.end)] - shard.first] for shard in index.shards]
    return np.concatenate(parts)


def choose_search_params(
    index: ReferenceIndex, queries: Float32[np.ndarray, "query joint"], build: IndexParams
) -> tuple[SearchParams, float]:
    """Return the cheapest search parameters whose recall on these queries reaches the target, and that recall.

    The target must be exceeded by `MARGIN` standard errors. Where no parameters do that, the best are returned. Lists
    (or the graph's `ef`) are chosen with the largest candidate factor, then the factor is lowered.
    """
    k = min(build.k, index.rows.num_rows)
    truth = index.search_exactly(queries, k)

    def try_params(params: SearchParams) -> _Trial:
        shares = _recall_per_query(index.search(queries, k, params=params), truth)
        mean = float(shares.mean())
        return _Trial(params, mean, float(mean - MARGIN * shares.std() / np.sqrt(len(shares))))

    factors = _K_FACTORS[index.kind]
    widest = _first_above(map(try_params, _ladder(index, factors[-1])), build.recall)
    narrower = (try_params(replace(widest.params, k_factor=factor)) for factor in factors[:-1])
    best = _first_above(itertools.chain(narrower, [widest]), build.recall)
    return best.params, best.recall


def measure_recall(index: ReferenceIndex, build: IndexParams, queries: np.ndarray | None) -> Measured:
    """Choose search parameters and return the part of the description about them and the recall they reach."""
    vectors = sample_vectors(index, build.seed) if queries is None else queries
    params, measured = choose_search_params(index, vectors, build)
    k, below = min(build.k, index.rows.num_rows), measured < build.recall
    sentence = f"recall at {k} is {measured:.4f} on {len(vectors)} queries; the target is {build.recall}"
    return {
        "effort": asdict(params),
        "recall": {
            "k": k,
            "target": build.recall,
            "measured": measured,
            "queries": len(vectors),
            "of": "rows of the index" if queries is None else "queries given",
            "seed": build.seed,
        },
        "below_target": below,
        "sentence": f"{sentence}: not reached with the largest search parameters" if below else sentence,
    }


def _ladder(index: ReferenceIndex, factor: int) -> Iterable[SearchParams]:
    """Return search parameters from cheap to expensive."""
    if index.kind in LISTED:
        lists = 1 if index.centroids is None else len(index.centroids)
        steps = sorted({min(lists, step) for power in range(17) for step in (1 << power, 3 << power >> 1)} - {0})
        return (SearchParams(nprobe=step, k_factor=factor) for step in steps)
    steps = list(itertools.takewhile(lambda ef: ef <= _MAX_EF, (32 << power for power in range(9))))
    return (SearchParams(ef=step, k_factor=factor) for step in steps)


def _first_above(trials: Iterable[_Trial], target: float) -> _Trial:
    """Return the first trial whose lower bound reaches the target, else the one with the best recall."""
    seen = []
    for trial in trials:
        if trial.lower_bound >= target:
            return trial
        seen.append(trial)
    return max(seen, key=lambda trial: trial.recall)
