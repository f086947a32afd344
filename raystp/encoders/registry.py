"""The encoders by name: dictionaries, and prefixes for whole families.

To add a published encoder, add a card to its makers' file and that file to `CARDS`. An encoder that is not a timm
network needs a file with `build` and `describe`, and a line in `ENCODERS` and `DESCRIPTIONS`. `timm:<model>` is any
model of timm (the prefix may be left out for `vit_...`), `hf-hub:<owner>/<name>` any model on the hub published with
timm.
"""

import contextlib
import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from raystp.encoders.card import Card
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import cards as card_family
from raystp.encoders.families import hub_files, mobilenet, tiny
from raystp.encoders.families import hub_models as hub_family
from raystp.encoders.families import timm_models as timm_family
from raystp.encoders.features.options import OWN_ROW, FeatureOptions
from raystp.encoders.features.stages import LayerFeatures, layers_dim
from raystp.encoders.features.tokens import SpatialTokens, TokenGrid, bare, token_grid
from raystp.encoders.published import bioptimus, ctranspath, gigapath, histai, kaiko, mahmood_lab, owkin, paige, resnet
from raystp.errors import EncoderError
from raystp.units import Microns, TilePixels


@dataclass(frozen=True)
class EncoderFamily:
    """The functions that build and describe encoders of one kind."""

    build: Callable[[EncoderSpec], Encoder]
    describe: Callable[[EncoderSpec], EncoderDescription]
    identity: Callable[[EncoderSpec], str]
    create: Callable[[EncoderSpec], nn.Module]
    """The network without weights: for shapes only."""


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
    timm_family.PREFIX: EncoderFamily(
        timm_family.build,
        timm_family.describe,
        timm_family.identity,
        lambda spec: timm_family.create(spec.name.removeprefix(timm_family.PREFIX)),
    ),
    hub_family.PREFIX: EncoderFamily(hub_family.build, hub_family.describe, hub_family.identity, hub_family.create),
}

_TIMM_SHORTHAND = "vit_"


def build(spec: EncoderSpec) -> Encoder:
    """Build an encoder; raises EncoderError for an unknown name, and where its weights are not available."""
    return replace(_family(spec).build(_with_prefix(spec)), name=spec.name)


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Return identity, dim, tile side and um/px of an encoder without building it.

    A weights file is read once to check its digest. A `timm:` or `hf-hub:` model needs the import of timm, the latter
    also its config from the hub.
    """
    return _family(spec).describe(_with_prefix(spec))


def identity(spec: EncoderSpec) -> str:
    """Return which weights `build` uses, for a fingerprint.

    A file's sha256 (checked against `spec.sha256`), the expected sha256 of the hub's file, `seed:<n>`,
    `random:<seed>`, `hub:<model>:<tag>` or `hub:<owner>/<name>@<revision>`. Raises EncoderError for an unknown name,
    and for a file with another digest.
    """
    return _family(spec).identity(_with_prefix(spec))


def fetch_weights(spec: EncoderSpec) -> None:
    """Download the weights that `build` reads from the hub, if it does, into the hub's cache on this machine.

    Raises EncoderError where they are not available.
    """
    if spec.weights is not None or spec.random:
        return
    if spec.name in CARDS:
        card_family.download(CARDS[spec.name])
    elif spec.name.startswith(hub_family.PREFIX):
        hub_files.download(spec.name.removeprefix(hub_family.PREFIX), encoder=spec.name)
    elif _with_prefix(spec).name.startswith(timm_family.PREFIX):
        timm_family.download(_with_prefix(spec).name.removeprefix(timm_family.PREFIX))


def features_dim(spec: EncoderSpec, options: FeatureOptions) -> int:
    """Return the length of an encoder's rows with these layers, without its weights.

    Raises EncoderError for a stage that the network does not have.
    """
    described = describe(spec)
    if options.layers == OWN_ROW.layers:
        return described.dim
    with _without_memory(spec):
        network = LayerFeatures(_family(spec).create(_with_prefix(spec)), options.layers, spec.name)
        return layers_dim(network, described.dim, described.tile_px)


def tokens_of(spec: EncoderSpec, side: int) -> TokenGrid:
    """Return an encoder's spatial tokens on a grid of side x side places, without its weights.

    Raises EncoderError for a network without a map of so many places.
    """
    tile_px = describe(spec).tile_px
    with _without_memory(spec):
        network = _family(spec).create(_with_prefix(spec))
        return token_grid(SpatialTokens(network, bare(network), side, spec.name), tile_px)


def tile_warning(spec: EncoderSpec, side: Microns, tile_px: TilePixels) -> str | None:
    """Return a warning where tiles of `side` um and `tile_px` px differ from the encoder's training tiles."""
    return CARDS[spec.name].tile_warning(side, tile_px) if spec.name in CARDS else None


def _without_memory(spec: EncoderSpec) -> contextlib.AbstractContextManager[object]:
    """Return a context whose networks have shapes only; tiny draws its own filters, so it is made as it is."""
    return contextlib.nullcontext() if spec.name == "tiny" else torch.device("meta")


def _create(spec: EncoderSpec) -> nn.Module:
    if spec.name in CARDS:
        return card_family.create(CARDS[spec.name])
    return tiny.TinyNetwork(spec.seed) if spec.name == "tiny" else mobilenet.create()


def _with_prefix(spec: EncoderSpec) -> EncoderSpec:
    is_short = spec.name.startswith(_TIMM_SHORTHAND)
    return replace(spec, name=f"{timm_family.PREFIX}{spec.name}") if is_short else spec


def check_name(spec: EncoderSpec) -> None:
    """Raise EncoderError, with the known names, for an encoder that there is not; nothing is built or downloaded."""
    _family(spec)


def _family(spec: EncoderSpec) -> EncoderFamily:
    """Return the functions for an encoder; raises EncoderError for an unknown name."""
    name = _with_prefix(spec).name
    for prefix, family in FAMILIES.items():
        if name.startswith(prefix):
            return family
    if name not in ENCODERS:
        close = difflib.get_close_matches(name, ENCODERS, n=1)
        ours = ", ".join(sorted(ENCODERS.keys() - CARDS.keys()))
        msg = (
            f"unknown encoder '{name}'; choose {ours}, a published one ({', '.join(CARDS)}), "
            f"{timm_family.PREFIX}<model> for a model of timm, or {hub_family.PREFIX}<owner>/<name> for one on the hub"
        )
        raise EncoderError(msg + (f"; did you mean '{close[0]}'?" if close else ""))
    describe_encoder = DESCRIPTIONS[name]
    return EncoderFamily(ENCODERS[name], describe_encoder, lambda one: describe_encoder(one).identity, _create)
