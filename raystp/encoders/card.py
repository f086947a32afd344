"""Cards: what is known of a published encoder, enough to build it, to describe it, and to warn before it is misused.

Names are those of TRIDENT. Construction, pixels and licence are as the makers state them with their weights; where
they publish no um/px, what users of the encoder have settled on stands here. A licence is named, not judged: read it at
the makers' page before use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raystp.encoders import layouts
from raystp.encoders.families import hub_files as hub
from raystp.encoders.layouts import Layout
from raystp.units import Microns, MicronsPerPixel, TilePixels, target_mpp

Colour = tuple[float, float, float]

IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[Colour, Colour] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP: tuple[Colour, Colour] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

APACHE, MIT, NON_COMMERCIAL = "Apache-2.0", "MIT", "CC-BY-NC-ND-4.0"

PIXELS = TilePixels(224)
TWENTYFOLD = (MicronsPerPixel(0.5),)
FOUR_SCALES = tuple(MicronsPerPixel(mpp) for mpp in (0.25, 0.5, 1.0, 2.0))

TOLERANCE = 0.15
"""um/px within 15 % of the trained: 256 px at 0.5 um/px shrunk to 224 px, a common habit, are 14 % off."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Card:
    """One published encoder."""

    name: str
    model: str
    """timm's name of the architecture."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What differs from it, in timm's own words."""
    swiglu: bool = False
    """Gated MLPs (packed SwiGLU with SiLU) in place of plain ones."""
    cut: tuple[str, ...] = ()
    """Modules that are left out, and their tensors with them."""
    pooling: str = "class"
    """A name that `pools.made` knows."""
    dim: int
    millions: float
    """Parameters, in millions, as the network holds them."""
    pixels: TilePixels = PIXELS
    mpp: tuple[MicronsPerPixel, ...] = TWENTYFOLD
    """um/px of the tiles it was trained on; empty for photographs."""
    colours: tuple[Colour, Colour] = IMAGENET
    """Mean and std of red, green and blue, on pixels in [0, 1]."""
    licence: str
    gated: bool = False
    """Whether the hub gives it only to those who accepted its terms."""
    repository: str | None
    """`owner/name` on the hub; None where the weights are elsewhere, and a file must be named."""
    files: tuple[str, ...] = hub.NAMES
    layout: Layout = layouts.same
    """From the published file's names to timm's."""


def fits(card: Card, side: Microns, pixels: TilePixels) -> str | None:
    """Return a warning where tiles of `side` um and `pixels` px are not what an encoder was trained on, else None."""
    if pixels != card.pixels:
        return f"encoder '{card.name}' takes tiles of {card.pixels} px, these have {pixels} px"
    seen = target_mpp(side, pixels)
    if not card.mpp or any(abs(seen / mpp - 1) <= TOLERANCE for mpp in card.mpp):
        return None
    scales = " or ".join(f"{mpp:.3g}" for mpp in card.mpp)
    nearest = min(card.mpp, key=lambda mpp: max(seen / mpp, mpp / seen))
    return (
        f"encoder '{card.name}' was trained at {scales} um/px, tiles of {side:g} um and {pixels} px are at {seen:.3g}: "
        f"it will answer, but as for tissue that it never saw; tiles of {nearest * pixels:g} um would fit"
    )
