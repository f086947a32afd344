"""Sums of sparse matrices that arrive in parts."""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int64, Num

PENDING = 1 << 23
"""Stored values of parts that wait to be added: each addition copies the sum so far."""

EXACT = 1 << 24
"""float32, in which sections are stored, has all whole numbers up to here."""


@dataclass
class SparseSum:
    """A sum of squares x features; it holds the sum so far and at most about `PENDING` more values."""

    squares: int
    features: int
    total: sp.csr_matrix = field(init=False)
    _parts: list[sp.csr_matrix] = field(default_factory=list)
    _pending: int = 0

    def __post_init__(self) -> None:
        self.total = sp.csr_matrix((self.squares, self.features), dtype=np.float32)

    def add(
        self,
        squares: Int64[np.ndarray, "entry"],
        features: Num[np.ndarray, "entry"],
        values: Num[np.ndarray, "entry"],
    ) -> None:
        """Add values at (square, feature); equal places are summed."""
        part = sp.csr_matrix((values.astype(np.float32), (squares, features)), shape=self.total.shape)
        part.sum_duplicates()
        self._parts.append(part)
        self._pending += part.nnz
        if self._pending > max(PENDING, self.total.nnz // 2):
            self._merge()

    def finish(self) -> sp.csr_matrix:
        """Return the sum; raises ValueError for values beyond those that float32 counts exactly."""
        self._merge()
        if self.total.nnz and self.total.data.max() >= EXACT:
            msg = f"a gene has {self.total.data.max():.6g} counts in a square, and at most {EXACT} are added up exactly"
            raise ValueError(msg)
        return self.total

    def _merge(self) -> None:
        """Add the parts in pairs, so that each value is copied a few times and not once for each part."""
        parts, self._parts, self._pending = self._parts, [], 0
        while len(parts) > 1:
            parts = [sum(parts[at + 1 : at + 2], parts[at]) for at in range(0, len(parts), 2)]
        if parts:
            self.total = (self.total + parts[0]).tocsr()
