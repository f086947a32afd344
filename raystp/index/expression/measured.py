"""Weighted means over neighbours of which some have not measured a gene: only those that measured it have a vote.

Expression is stored with 0 where a section has not measured a gene. The genes that a section lacks are stored once per
section, in the description of the index. A sum over neighbours is divided by the weight of those that measured the
gene; where none did, the mean is NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

NO_SPREAD = 1e-6
"""A variance below this share of the squared mean is rounding of the sums that are subtracted."""

Genes = Int64[np.ndarray, "gene"] | None


@dataclass(frozen=True, eq=False)
class MeasuredGenes:
    """Which genes each row has measured: a few patterns, and the number of each row's pattern."""

    patterns: Bool[np.ndarray, "pattern gene"]
    """True where a gene is measured."""
    of_row: Int64[np.ndarray, "row"]

    @classmethod
    def of_values(cls, expression: Float32[np.ndarray, "row gene"]) -> "MeasuredGenes | None":
        """Return the pattern of each row from its missing values (NaN); None where nothing is missing."""
        known = ~np.isnan(expression)
        if known.all():
            return None
        _, first, of_row = np.unique(np.packbits(known, axis=1), axis=0, return_index=True, return_inverse=True)
        return cls(known[first], of_row.ravel().astype(np.int64))

    @classmethod
    def of_sections(
        cls, sections: Sequence[str], unmeasured: Mapping[str, Sequence[int]], genes: int
    ) -> "MeasuredGenes | None":
        """Return the pattern of each row from its section; None where no section lacks a gene."""
        if not unmeasured:
            return None
        numbers = {section: number for number, section in enumerate(unmeasured, 1)}
        patterns = np.ones((len(numbers) + 1, genes), bool)
        for section, columns in unmeasured.items():
            patterns[numbers[section], list(columns)] = False
        return cls(patterns, np.asarray([numbers.get(section, 0) for section in sections], np.int64))

    def mean(
        self,
        sums: Float32[np.ndarray, "query gene"],
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        genes: Genes = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return weighted means from weighted sums; a gene that all neighbours measured keeps its sum."""
        missing, own = self._weights(weights, rows, genes)
        means: np.ndarray = np.where(missing > 0, sums / np.where(own > 0, own, np.nan), sums)
        return means

    def variance(
        self,
        spread: Float32[np.ndarray, "query gene"],
        mean: Float32[np.ndarray, "query gene"],
        weights: Float32[np.ndarray, "query k"],
        rows: Int64[np.ndarray, "query k"],
        *,
        genes: Genes = None,
    ) -> Float32[np.ndarray, "query gene"]:
        """Return weighted variances from sums of weight x (row - mean)^2, in which a missing value counted as 0."""
        missing, own = self._weights(weights, rows, genes)
        square = np.square(mean)
        corrected = np.maximum(spread - missing * square, 0) / np.where(own > 0, own, np.nan)
        corrected[corrected < NO_SPREAD * square] = 0
        variances: np.ndarray = np.where(missing > 0, corrected, spread)
        return variances

    def rows(self, values: Float32[np.ndarray, "row gene"], ids: Int64[np.ndarray, "row"]) -> None:
        """Set what these rows of the index have not measured to NaN, in place."""
        values[~self.patterns[self.of_row[ids]]] = np.nan

    def _weights(
        self, weights: Float32[np.ndarray, "query k"], rows: Int64[np.ndarray, "query k"], genes: Genes
    ) -> tuple[Float32[np.ndarray, "query gene"], Float32[np.ndarray, "query gene"]]:
        """Return the weight of the neighbours that lack each gene, and of those that measured it."""
        patterns = self.patterns if genes is None else self.patterns[:, genes]
        of_neighbour = self.of_row[rows]
        shares = [np.where(of_neighbour == number, weights, 0).sum(axis=1) for number in range(len(patterns))]
        of_pattern = np.stack(shares, axis=1).astype(np.float32)
        return of_pattern @ (~patterns).astype(np.float32), of_pattern @ patterns.astype(np.float32)


def split_missing(
    expression: Float32[np.ndarray, "row gene"], sections: Sequence[str]
) -> tuple[Float32[np.ndarray, "row gene"], dict[str, list[int]]]:
    """Return the expression with 0 where it is missing, and section -> the genes (columns) that it has not measured."""
    missing = np.isnan(expression)
    if not missing.any():
        return expression, {}
    names = np.asarray(sections)
    lacking = {name: np.flatnonzero(missing[names == name].all(axis=0)).tolist() for name in dict.fromkeys(sections)}
    return np.where(missing, np.float32(0), expression), {name: columns for name, columns in lacking.items() if columns}
