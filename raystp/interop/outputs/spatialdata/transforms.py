"""Coordinate systems of an element: `global` in level-0 px, `um` in um of tissue."""

from collections.abc import Sequence
from typing import Any

GLOBAL, UM = "global", "um"


def transforms(axes: Sequence[str], to_level0: Sequence[float], mpp: float) -> list[dict[str, Any]]:
    """Return an element's transformations, one per system; `to_level0` is its scale per axis.

    A channel axis `c` keeps its numbers in both systems.
    """
    to_um = [scale if axis == "c" else scale * mpp for axis, scale in zip(axes, to_level0, strict=True)]
    found = []
    for system, scale in ((GLOBAL, list(to_level0)), (UM, to_um)):
        kind: dict[str, Any] = {"type": "scale", "scale": scale}
        if all(one == 1.0 for one in scale):
            kind = {"type": "identity"}
        ends = {"input": _system("".join(axes), axes), "output": _system(system, axes)}
        found.append({**kind, **ends})
    return found


def _system(name: str, axes: Sequence[str]) -> dict[str, Any]:
    return {"name": name, "axes": [_axis(axis) for axis in axes]}


def _axis(name: str) -> dict[str, str]:
    return {"name": name, "type": "channel"} if name == "c" else {"name": name, "type": "space", "unit": "unit"}
