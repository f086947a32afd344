"""Lists on a GPU, which gives few candidates: where they may not suffice, every row is compared, and none is twice."""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pytest
from jaxtyping import Float32

from raystp.index.search import exact, faiss_gpu, over_shards
from raystp.index.search.kinds import SearchParams
from raystp.index.search.merge import best_of


@dataclass(frozen=True)
class GpuShard:
    """A shard whose candidates the test gives."""

    vectors: Float32[np.ndarray, "row joint"]
    first: int = 0
    index: faiss.Index | None = None
    on_gpu: bool = True


class CoarseCodes:
    """Stands in for lists of codes: rows that are nearly the same have equal approximate scores."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = np.round(vectors, 1)

    def find(self, _: Any, prepared: np.ndarray, fetched: int, __: int) -> tuple[np.ndarray, np.ndarray]:
        near = (prepared @ self.vectors.T).astype(np.float32)
        rows = np.argsort(-near, axis=1, kind="stable")[:, :fetched]
        return np.take_along_axis(near, rows, axis=1), rows


def test_rows_beyond_what_a_gpu_selects_are_compared_and_each_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.standard_normal((4, 8)), 100, axis=0) + 1e-6 * rng.standard_normal((400, 8))
    vectors = vectors.astype(np.float32)
    monkeypatch.setattr(faiss_gpu, "MAX_CANDIDATES", 64)
    monkeypatch.setattr(faiss_gpu, "find_candidates", CoarseCodes(vectors).find)
    job = over_shards.ListSearch(
        [GpuShard(vectors, index=faiss.IndexFlatIP(8))], "ivfsq", "cosine", SearchParams(), [None]
    )
    part = over_shards.search(job, vectors[[0, 150]], 5, None)
    found = best_of(part.scores, part.rows, 5)
    expected = exact.top_k(vectors, vectors[[0, 150]], 5, metric="cosine")
    assert found[1].tolist() == expected[1].tolist()
    assert [len(set(rows)) for rows in found[1].tolist()] == [5, 5]
