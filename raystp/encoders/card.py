"""Model cards: what is known of a published encoder, to build it, describe it, and warn before misuse.

Names are those of TRIDENT. Construction, pixels and licence are as the makers state them with their weights. Where
they publish no um/px, the value that users of the encoder have settled on is used. A licence is named, not interpreted:
read it on the makers' page before use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raystp.encoders import layouts
from raystp.encoders.families import hub_files
from raystp.encoders.layouts import Layout
from raystp.units import Microns, MicronsPerPixel, TilePixels, target_mpp

Colour = tuple[float, float, float]

IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[Colour, Colour] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP: tuple[Colour, Colour] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

APACHE, MIT, NON_COMMERCIAL = "Apache-2.0", "MIT", "CC-BY-NC-ND-4.0"

TILE_PX = TilePixels(224)
AT_20X = (MicronsPerPixel(0.5),)
AT_FOUR_SCALES = tuple(MicronsPerPixel(mpp) for mpp in (0.25, 0.5, 1.0, 2.0))

MPP_TOLERANCE = 0.15
"""Allowed relative difference from the um/px of training: 256 px at 0.5 um/px shrunk to 224 px, a common habit, are
14 % off."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Card:
    """One published encoder."""

    name: str
    model: str
    """timm's name of the architecture."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Arguments of timm's `create_model` that differ from the architecture's defaults."""
    swiglu: bool = False
    """Gated MLPs (packed SwiGLU with SiLU) in place of plain ones."""
    cut: tuple[str, ...] = ()
    """Modules that are removed, with their tensors."""
    pooling: str = "class"
    """A name that `pools.create_pooling` knows."""
    dim: int
    millions: float
    """Parameters of the network, in millions."""
    tile_px: TilePixels = TILE_PX
    mpp: tuple[MicronsPerPixel, ...] = AT_20X
    """um/px of the tiles it was trained on; empty for photographs."""
    colours: tuple[Colour, Colour] = IMAGENET
    """Mean and standard deviation of red, green and blue, for pixels in [0, 1]."""
    licence: str
    gated: bool = False
    """Whether the hub requires that a user accepts the terms."""
    repository: str | None
    """`owner/name` on the hub; None where the weights are elsewhere, and a file must be given."""
    files: tuple[str, ...] = hub_files.NAMES
    layout: Layout = layouts.unchanged
    """Renames the tensors of the published file to timm's names."""

    def tile_warning(self, side: Microns, tile_px: TilePixels) -> str | None:
        """Return a warning where tiles of `side` um and `tile_px` px differ from the encoder's training tiles."""
        if tile_px != self.tile_px:
            return f"encoder '{self.name}' expects tiles of {self.tile_px} px, these have {tile_px} px"
        mpp = target_mpp(side, tile_px)
        if not self.mpp or any(abs(mpp / trained - 1) <= MPP_TOLERANCE for trained in self.mpp):
            return None
        scales = " or ".join(f"{trained:.3g}" for trained in self.mpp)
        nearest = min(self.mpp, key=lambda trained: max(mpp / trained, trained / mpp))
        return (
            f"encoder '{self.name}' was trained at {scales} um/px, tiles of {side:g} um and {tile_px} px are at "
            f"{mpp:.3g}: its embeddings may be poor; use tiles of {nearest * tile_px:g} um"
        )
