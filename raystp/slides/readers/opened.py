"""What every reader of a slide gets beside the open file, and the regions of a slide that cannot be decoded."""

import contextlib
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from raystp.slides.readers.scale import SlideScale

MAX_DAMAGED_SHARE = 0.5
"""Share of a thumbnail's stored tiles with bytes, or of its area, that may be damaged; beyond, the slide is refused."""

DAMAGED_PX = 64
"""Side in output pixels of the regions of a thumbnail that are left white because they cannot be read."""

MAX_DAMAGED_REGIONS = 256
"""Regions of a thumbnail that may be white: each costs two new handles of OpenSlide."""

NO_REGIONS = np.empty((0, 4))


@dataclass(frozen=True)
class DamagedRegion:
    """A region in level-0 px that cannot be decoded, usually one stored tile; the thumbnail is white there."""

    x: int
    y: int
    width: int
    height: int
    reason: str
    """Begins with the slide, its path and the place."""


@dataclass(frozen=True)
class SlideContext:
    """The id, um/px, warnings and resources of a slide that is being opened; the same for each reader."""

    name: str
    where: str
    """Names the slide and its path; each error begins with it."""
    scale: SlideScale
    resources: contextlib.ExitStack
    """Closed with the slide."""
    bounds: tuple[int, int, int, int] | None = None
    """See `Slide.bounds`."""
    warnings: list[str] = field(default_factory=list)
    """See `Slide.warnings`."""
    empty: Float64[np.ndarray, "region 4"] = field(default_factory=lambda: NO_REGIONS)
    """See `Slide.empty`."""
