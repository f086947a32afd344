"""The encoders of the registry as a table: tiles, licence, and where their weights are looked for."""

import os
from pathlib import Path
from typing import TypedDict

from raystp.encoders.card import Card
from raystp.encoders.families import mobilenet, tiny
from raystp.encoders.registry import CARDS


class EncoderEntry(TypedDict):
    """An encoder of the registry."""

    name: str
    dim: int
    um_per_px: list[float]
    """Of its training tiles; empty for photographs."""
    px: int
    licence: str | None
    gate: bool
    """Whether the hub asks each user to accept the terms."""
    weights: str
    """Where they are looked for."""
    found: str | None
    """The file in the hub's cache of this machine."""


def catalogue() -> list[EncoderEntry]:
    """Return all encoders with a name of their own, without a request to the hub."""
    return [
        EncoderEntry(
            name="tiny",
            dim=tiny.DIM,
            um_per_px=[],
            px=int(tiny.TILE_PX),
            licence=None,
            gate=False,
            weights="none: filters of `seed`",
            found=None,
        ),
        EncoderEntry(
            name="mobilenet_v1_pw12",
            dim=mobilenet.DIM,
            um_per_px=[],
            px=int(mobilenet.TILE_PX),
            licence=None,
            gate=False,
            weights="encoder.weights=FILE",
            found=None,
        ),
        *(_of_card(card) for card in CARDS.values()),
    ]


def cached_file(card: Card) -> Path | None:
    """Return the card's file in the hub's cache, or None."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 -- slow to import

    if card.repository is None:
        return None
    for name in card.files:
        found = try_to_load_from_cache(card.repository, name)
        if isinstance(found, str | os.PathLike):
            return Path(found)
    return None


def _of_card(card: Card) -> EncoderEntry:
    found = cached_file(card)
    hub = "" if card.repository is None else f", or hub {card.repository}/{card.files[0]}"
    return EncoderEntry(
        name=card.name,
        dim=card.dim,
        um_per_px=[round(float(mpp), 3) for mpp in card.mpp],
        px=int(card.tile_px),
        licence=card.licence,
        gate=card.gated,
        weights=f"encoder.weights=FILE{hub}",
        found=None if found is None else str(found),
    )
