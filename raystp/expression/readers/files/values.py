"""Single values as other programs store them: numbers as text, as bytes, or as arrays of length 1 from R."""

from collections.abc import Mapping

import numpy as np


def single(value: object) -> object:
    """Return the only element of an array or list of length 1, decoded; any other value unchanged."""
    if isinstance(value, np.ndarray | list | tuple) and np.size(np.asarray(value, dtype=object)) == 1:
        value = np.asarray(value, dtype=object).reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value


def number(value: object) -> float | None:
    """Return a finite number, also one stored as text or as an array of length 1; None for anything else."""
    value = single(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def numbers(values: object) -> dict[str, float]:
    """Return the values of a mapping that are single numbers."""
    if not isinstance(values, Mapping):
        return {}
    found = {str(name): number(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}
