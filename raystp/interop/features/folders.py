"""Which folder or name is meant, where another tool's folder has several; and what a format can hold of a slide."""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

import numpy as np

from raystp.errors import FormatError, RaystpError, some
from raystp.interop.choice import SlideFiles
from raystp.interop.features.tiles import TileVectors

File = TypeVar("File")
Found = TypeVar("Found")

MPP_TOLERANCE = 1e-3
"""Relative difference up to which two um/px of a scan are the same."""


def one_of(found: Collection[str], chosen: str | None, said: str, field: str) -> str:
    """Return the one that is chosen, or the only one. Raises FormatError where none or several are there."""
    if chosen is not None and chosen in found:
        return chosen
    if len(found) == 1 and chosen is None:
        return next(iter(found))
    wanted = f", not {chosen!r}" if chosen is not None else ""
    following = f": choose one with --set {field}=..." if found else ""
    msg = f"{said} {some(sorted(found), 20) or 'none'}{wanted}{following}"
    raise FormatError(msg)


def first_readable(files: Sequence[File], read: Callable[[File], Found]) -> Found:
    """Return what `read` finds in the first file that it can read: a damaged one is a failure of its own slide alone.

    Raises the first file's error where none can be read.
    """
    faults: list[RaystpError] = []
    for file in files:
        try:
            return read(file)
        except RaystpError as fault:
            faults.append(fault)
    raise faults[0]


def check_distinct(slides: Iterable[SlideFiles]) -> tuple[SlideFiles, ...]:
    """Return the slides in the order of their names; raises FormatError where two have the same name."""
    ordered = sorted(slides, key=lambda one: one.slide)
    for one, other in itertools.pairwise(ordered):
        if one.slide == other.slide:
            both = " and ".join(str(next(iter(each.files.values()))) for each in (one, other))
            msg = (
                f"{both} are both of slide {one.slide!r}: slides need different names; rename one, or import its folder"
            )
            raise FormatError(msg)
    return tuple(ordered)


def agreed_mpp(own: float | None, given: float | None, slide: str) -> tuple[float | None, list[str]]:
    """Return the um/px of a scan: the file's own, else that of the slide table, and a note where both differ."""
    if own is None or given is None:
        return own if own is not None else given, []
    if abs(own / given - 1) <= MPP_TOLERANCE:
        return given, []
    return given, [f"slide {slide!r} has {own:g} um/px in its file and {given:g} in the slide table, which is taken"]


def one_side(tiles: TileVectors, tool: str) -> float:
    """Return the side of a slide's tiles in level-0 px; without tiles, the px of the encoder. Raises FormatError."""
    sides = np.unique(tiles.boxes[:, 2])
    if len(sides) > 1:
        msg = (
            f"slide {tiles.slide!r} has tiles of {len(sides)} sides, {sides[0]:g} to {sides[-1]:g} px: {tool} holds one"
        )
        raise FormatError(msg)
    return float(sides[0]) if len(sides) else float(tiles.tile_px or 1)
