"""What a user says of another tool's folder, and which of its files belong to a slide."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import raystp.storage


@dataclass(frozen=True)
class FolderChoice:
    """What is taken from a folder, where it holds several things or does not say what they are."""

    grid: str | None = None
    """Folder of one grid of tiles (`20x_256px_0px_overlap`) or the tile key, where there are several."""
    encoder: str | None = None
    """The tool's own name of the encoder whose vectors are read, where there are several or none is written down."""
    side_px: float | None = None
    """Side of a tile in level-0 px, where the files do not have it."""
    side_um: float | None = None
    """The same in um."""


@dataclass(frozen=True)
class SlideFiles:
    """The files of one slide."""

    slide: str
    files: Mapping[str, "raystp.storage.StoragePath"]
    """Role (`vectors`, `coordinates`, `tissue`, ...) -> file."""


@dataclass(frozen=True)
class FoundFiles:
    """What a folder holds of what was chosen."""

    slides: tuple[SlideFiles, ...]
    """In the order of their names."""
    encoder: str | None
    """The tool's own name of the encoder, where a folder or file names it."""
    notes: tuple[str, ...] = ()
    """What was left out, a sentence each."""


@dataclass(frozen=True)
class TableChoice:
    """Which samples of a folder are taken."""

    ids: tuple[str, ...] = ()
    """Names of samples; none stands for all."""
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column of the data set's own table -> the values that are taken, without regard to case."""
    task: str | None = None
    """A task of hest-bench."""
