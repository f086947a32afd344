"""Any encoder with a card: build it from its makers' file, the hub's or random weights; describe it without timm.

The network is created on torch's meta device and takes the file's own tensors. So 1.1 billion parameters are never
initialised at random, and never held twice.
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from raystp.encoders import layouts, weights
from raystp.encoders.card import Card
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import hub_files
from raystp.encoders.families import timm_models as timm_family
from raystp.encoders.layouts import State
from raystp.encoders.pools import PooledEncoder, create_pooling
from raystp.errors import EncoderError


def build(card: Card, spec: EncoderSpec) -> Encoder:
    """Build the encoder; raises EncoderError where its weights are not available, or belong to another network."""
    if spec.random:
        network = create(card, seed=spec.seed)
        return _encoder(card, spec, network, digest=weights.state_digest(network))
    if spec.weights is None:
        spec = dataclasses.replace(spec, weights=str(download(card)))
    network = _create_without_memory(card)
    digest = weights.load(spec, network, layout=lambda state: rename_tensors(card, state))
    return _encoder(card, spec, network, digest=digest)


def describe(card: Card, spec: EncoderSpec) -> EncoderDescription:
    """Describe what `build` builds; reads no more than a file's digest, and makes no request to the hub."""
    return EncoderDescription(_identity(card, spec), card.dim, card.tile_px, card.mpp)


def create(card: Card, *, seed: int = 0) -> nn.Module:
    """Create the network with random weights from the seed; on torch's meta device, without weights."""
    trunk: Any = timm_family.create(card.model, seed=seed, **_options(card))  # of any class of timm
    for module in card.cut:
        setattr(trunk, module, nn.Identity())
    with timm_family.seeded(seed):
        prefix_tokens = getattr(trunk, "num_prefix_tokens", 0)
        pool = create_pooling(card.pooling, token_dim=trunk.num_features, prefix_tokens=prefix_tokens, dim=card.dim)
        return PooledEncoder(trunk, pool)


def rename_tensors(card: Card, state: State) -> State:
    """Return a published file's tensors under the names of `create`'s network."""
    rename_tensors = layouts.without(*card.cut)(card.layout(state))
    return {name if name.startswith("pool.") else f"trunk.{name}": tensor for name, tensor in rename_tensors.items()}


def download(card: Card) -> str:
    """Return the local path of the published file, from the hub or its cache; raises EncoderError where it fails."""
    if card.repository is None:
        msg = f"encoder '{card.name}' is not on the hub: {hub_files.ALTERNATIVES} (its licence: {card.licence})"
        raise EncoderError(msg)
    return str(hub_files.download(card.repository, card.files, encoder=card.name, gated=card.gated))


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


def _options(card: Card) -> dict[str, object]:
    options = dict(card.options)
    if card.swiglu:
        options |= {"mlp_layer": timm_family.packed_swiglu(), "act_layer": nn.SiLU}
    return options


def _create_without_memory(card: Card) -> nn.Module:
    """Create the network on the meta device; in memory where it has buffers that no file contains."""
    with torch.device("meta"):
        network = create(card)
    unsaved = {name for name, _ in network.named_buffers()} - set(network.state_dict())
    return create(card) if unsaved else network


def _encoder(card: Card, spec: EncoderSpec, network: nn.Module, *, digest: str) -> Encoder:
    mean, std = card.colours
    return Encoder(spec.name, network, card.dim, card.tile_px, mean=mean, std=std, digest=digest)
