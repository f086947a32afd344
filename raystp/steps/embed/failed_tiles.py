"""Tiles that could not be read: a file per unit that has any, and what they mean for a slide.

A stored tile of a slide may be damaged. The tiles over it are left out of the embeddings and are rows of the failures
table; the others are embedded. A slide that loses too many of its tiles fails as a whole.
"""

import json
from collections.abc import Mapping, Sequence

from raystp.cluster.streams.units import WorkUnit
from raystp.storage import StoragePath

FOLDER = "failed_tiles"
MAX_SHARE = 0.1
"""A slide fails as a whole if more than this share of its tiles, and more than one tile, cannot be read."""

Reasons = Mapping[int, str]


def write_failed_tiles(artifact: StoragePath, unit: str, failed: Reasons) -> None:
    """Write the failed tiles of a unit (row within the unit -> reason); remove the file of an earlier attempt."""
    file = artifact / FOLDER / f"{unit}.json"
    if failed:
        file.write_bytes(json.dumps(sorted(failed.items())).encode())
    else:
        file.remove_file()


def units_with_failed_tiles(artifact: StoragePath) -> set[str]:
    """Return the names of the units with failed tiles."""
    return {name.removesuffix(".json") for name in (artifact / FOLDER).names()}


def read_failed_tiles(artifact: StoragePath, units: Sequence[WorkUnit]) -> dict[str, list[str]]:
    """Return the reasons of the failed tiles of each slide that has any, in the order of the tiles."""
    listed, found = units_with_failed_tiles(artifact), dict[str, list[str]]()
    for unit in units:
        if unit.unit in listed:
            reasons = json.loads((artifact / FOLDER / f"{unit.unit}.json").read_bytes())
            found.setdefault(unit.slide, []).extend(reason for _, reason in reasons)
    return found


def slide_error(failed: Sequence[str], tiles: int) -> str:
    """Return why a slide with these failed tiles, of `tiles` in all, fails as a whole; "" if it does not."""
    if len(failed) < tiles and len(failed) <= max(1.0, MAX_SHARE * tiles):
        return ""
    return (
        f"{len(failed)} of its {tiles} tiles cannot be read, and at most {MAX_SHARE:.0%} may be lost; "
        f"the first: {failed[0]}"
    )
