"""The encoders by name: dictionaries that can be read, and names with a prefix for the rest.

A new published encoder is a card in its makers' file, and that file's line in `CARDS`; one that is no network of timm's
is a file with `build` and `describe`, and its line in `ENCODERS` and `DESCRIPTIONS`. `timm:<model>` is any model of
timm (`vit_...` alone will do), `hf-hub:<owner>/<name>` any that was published on the hub with timm.
"""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from raystp.encoders.card import Card, fits
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import cards as card_family
from raystp.encoders.families import hub_models as hub_family
from raystp.encoders.families import mobilenet, tiny
from raystp.encoders.families import timm_models as timm_family
from raystp.encoders.published import bioptimus, ctranspath, gigapath, histai, kaiko, mahmood_lab, owkin, paige, resnet
from raystp.errors import EncoderError
from raystp.units import Microns, TilePixels


@dataclass(frozen=True)
class EncoderFamily:
    """What answers for encoders of one kind."""

    build: Callable[[EncoderSpec], Encoder]
    describe: Callable[[EncoderSpec], EncoderDescription]
    identity: Callable[[EncoderSpec], str]


CARDS: dict[str, Card] = {
    card.name: card
    for cards in (
        mahmood_lab.CARDS,
        paige.CARDS,
        gigapath.CARDS,
        bioptimus.CARDS,
        owkin.CARDS,
        histai.CARDS,
        kaiko.CARDS,
        ctranspath.CARDS,
        resnet.CARDS,
    )
    for card in cards
}

ENCODERS: dict[str, Callable[[EncoderSpec], Encoder]] = {
    "tiny": tiny.build,
    "mobilenet_v1_pw12": mobilenet.build,
    **{name: functools.partial(card_family.build, card) for name, card in CARDS.items()},
}

DESCRIPTIONS: dict[str, Callable[[EncoderSpec], EncoderDescription]] = {
    "tiny": tiny.describe,
    "mobilenet_v1_pw12": mobilenet.describe,
    **{name: functools.partial(card_family.describe, card) for name, card in CARDS.items()},
}

FAMILIES: dict[str, EncoderFamily] = {
    timm_family.PREFIX: EncoderFamily(timm_family.build, timm_family.describe, timm_family.identity),
    hub_family.PREFIX: EncoderFamily(hub_family.build, hub_family.describe, hub_family.identity),
}

_SHORT = "vit_"


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder that a spec names; raises EncoderError where it is unknown or its weights cannot be had."""
    return replace(_family(spec).build(_in_full(spec)), name=spec.name)


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Say what `build` would build: its weights' identity, its dim, its tiles' side and um/px, without building it.

    A weights file is read through once for its digest, which is checked. A `timm:` or `hf-hub:` model costs the import
    of timm, the latter its config from the hub.
    """
    return _family(spec).describe(_in_full(spec))


def identity(spec: EncoderSpec) -> str:
    """Say which weights `build` would take, for a fingerprint.

    A file's sha256 (checked against `spec.sha256`), the sha256 that the hub's must have, `seed:<n>`, `random:<seed>`,
    `hub:<model>:<tag>` or `hub:<owner>/<name>@<revision>`. Raises as `build` does for an unknown name or another file
    than the one named.
    """
    return _family(spec).identity(_in_full(spec))


def warning(spec: EncoderSpec, side: Microns, pixels: TilePixels) -> str | None:
    """Return a warning where tiles of `side` um and `pixels` px are not what an encoder was trained on, else None."""
    return fits(CARDS[spec.name], side, pixels) if spec.name in CARDS else None


def _in_full(spec: EncoderSpec) -> EncoderSpec:
    return replace(spec, name=f"{timm_family.PREFIX}{spec.name}") if spec.name.startswith(_SHORT) else spec


def _family(spec: EncoderSpec) -> EncoderFamily:
    """Return who builds an encoder; raises EncoderError where nobody can."""
    name = _in_full(spec).name
    for prefix, family in FAMILIES.items():
        if name.startswith(prefix):
            return family
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=1)
        ours = ", ".join(sorted(ENCODERS.keys() - CARDS.keys()))
        others = (
            f"{timm_family.PREFIX}<model> for any model of timm, {hub_family.PREFIX}<owner>/<name> for its on the hub"
        )
        there = f"there are {ours}, and {others}, or of published ones {', '.join(CARDS)}"
        msg = f"no encoder '{name}'; {there}" + (f"; did you mean '{near[0]}'?" if near else "")
        raise EncoderError(msg)
    describing = DESCRIPTIONS[name]
    return EncoderFamily(ENCODERS[name], describing, lambda one: describing(one).identity)
