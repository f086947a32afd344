"""Three sections of two patients, four spots each, three genes: small enough to score by hand."""

from collections.abc import Sequence

import numpy as np

from raystp.evaluate.published.protocol import FoldOutcome, HeldOutSection

GENES = ("A", "B", "C")
LINE = ((0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (0.0, 4.0))
"""Four spots on the array: three in a row, and one without a neighbour."""


def held_out(
    section: str,
    counts: Sequence[Sequence[float]] | np.ndarray,
    predicted: Sequence[Sequence[float]] | np.ndarray,
    *,
    rows: Sequence[int] = (0, 1, 2, 3),
    totals: Sequence[float] = (10, 10, 10, 10),
) -> HeldOutSection:
    """Return a section of the patient that its name begins with; genes in columns."""
    return HeldOutSection(
        section=section,
        patient=section[0],
        counts=np.asarray(counts, np.float64),
        totals=np.asarray(totals, np.float64),
        array=np.asarray(LINE),
        rows=np.asarray(rows, np.int64),
        predicted=np.asarray(predicted, np.float32),
    )


def fold(number: int, *sections: HeldOutSection) -> FoldOutcome:
    return FoldOutcome(number, GENES, sections)
