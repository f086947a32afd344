"""Any encoder with a card: built from its makers' file, the hub's or random weights; described without timm.

The network is laid out on torch's meta device and given the file's own tensors, so that 1.1 billion parameters are
never drawn at random first, and never held twice.
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from raystp.encoders import layouts, weights
from raystp.encoders.card import Card
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import hub_files as hub
from raystp.encoders.families import timm_models as timm_family
from raystp.encoders.layouts import State
from raystp.encoders.pools import PooledEncoder, made
from raystp.errors import EncoderError


def build(card: Card, spec: EncoderSpec) -> Encoder:
    """Build the encoder; raises EncoderError where its weights cannot be had, or are another network's."""
    if spec.random:
        network = create(card, seed=spec.seed)
        return _encoder(card, spec, network, digest=weights.state_digest(network))
    if spec.weights is None:
        spec = dataclasses.replace(spec, weights=str(download(card)))
    network = _laid_out(card)
    digest = weights.load(spec, network, layout=lambda state: renamed(card, state))
    return _encoder(card, spec, network, digest=digest)


def describe(card: Card, spec: EncoderSpec) -> EncoderDescription:
    """Say what `build` would build; reads no more than a file's digest, and never asks the hub."""
    return EncoderDescription(_identity(card, spec), card.dim, card.pixels, card.mpp)


def create(card: Card, *, seed: int = 0) -> nn.Module:
    """Create the network with random weights from the seed; under torch's meta device, only its layout."""
    trunk: Any = timm_family.create(card.model, seed=seed, **_options(card))
    for module in card.cut:
        setattr(trunk, module, nn.Identity())
    with timm_family.drawn_from(seed):
        return PooledEncoder(trunk, made(card.pooling, trunk, card.dim))


def renamed(card: Card, state: State) -> State:
    """Return a published file's tensors under the names of `create`'s network."""
    found = layouts.without(*card.cut)(card.layout(state))
    return {name if name.startswith("pool.") else f"trunk.{name}": tensor for name, tensor in found.items()}


def download(card: Card) -> str:
    """Return the path of the published file, from the hub or its cache; raises EncoderError where it gives none."""
    if card.repository is None:
        msg = f"encoder '{card.name}' is not on the hub: {hub.WAY} (its licence: {card.licence})"
        raise EncoderError(msg)
    return str(hub.download(card.repository, card.files, encoder=card.name, gated=card.gated))


def _identity(card: Card, spec: EncoderSpec) -> str:
    if spec.weights is not None:
        return weights.file_digest(spec)
    if spec.random:
        return f"random:{spec.seed}"
    if spec.sha256 is not None:
        return spec.sha256.lower()
    if card.repository is None:
        download(card)
    return f"hub:{card.repository}@main"


def _options(card: Card) -> dict[str, Any]:
    options = dict(card.options)
    if card.swiglu:
        options |= {"mlp_layer": timm_family.packed_swiglu(), "act_layer": nn.SiLU}
    return options


def _laid_out(card: Card) -> nn.Module:
    """Lay the network out without memory; in memory where it has buffers that no file holds."""
    with torch.device("meta"):
        network = create(card)
    unsaved = {name for name, _ in network.named_buffers()} - set(network.state_dict())
    return create(card) if unsaved else network


def _encoder(card: Card, spec: EncoderSpec, network: nn.Module, *, digest: str) -> Encoder:
    mean, std = card.colours
    return Encoder(spec.name, network, card.dim, card.pixels, mean=mean, std=std, digest=digest)
