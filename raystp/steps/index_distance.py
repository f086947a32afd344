"""How far tiles of the reference's own kind lie from a bank: what a query's distance is held against."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from raystp.impute.distance import calibrate, nearest_distance
from raystp.index.opened import Bank
from raystp.steps.index_parts import Part


def distances(bank: Bank, parts: Sequence[Part]) -> dict[str, Any]:
    """Return quantiles of the distance from the reference's tiles to the bank without their own patient.

    With one patient, without their own section; with one section, to the whole bank, and the note says so.
    """
    by = "patient" if len({part.patient for part in parts}) > 1 else "section"
    alone = len({getattr(part, by) for part in parts}) == 1
    found = []
    for part in parts:
        allowed = None if alone else bank.rows_where(by, [getattr(part, by)], drop=True)
        scores, _ = bank.search(part.images(), 1, allowed=allowed)
        found.append(nearest_distance(scores[:, 0], bank.metric))
    values = np.concatenate(found)
    return {**calibrate(values), "without": "nothing" if alone else f"the tile's own {by}", "tiles": len(values)}
