"""The encoder of a service: whether it fits the model, and the rows that the model reads from the pixels of a tile."""

import math
from typing import Any

from raystp.artifacts import Artifact
from raystp.encoders.encoder import Encoder
from raystp.encoders.features.options import OWN_ROW, FeatureOptions
from raystp.encoders.features.stages import with_features
from raystp.encoders.features.tokens import with_tokens
from raystp.encoders.registry import tokens_of as spatial_tokens
from raystp.errors import ConfigError, EncoderError
from raystp.models.arrays import tower_identity
from raystp.steps.embedding_source import neighbour_means_of, tokens_of
from raystp.steps.encoder_source import EncoderSource, dim_of, features_of_block, source_of
from raystp.steps.input_config import EncoderConfig


def check_encoder(encoder: EncoderConfig, store: str, model: Artifact, meta: dict[str, Any]) -> None:
    """Raise EncoderError for an encoder that does not give the features that a model reads from one tile."""
    source = source_of(encoder, store)
    if meta["trained_tower"] and source.identity != tower_identity(model.manifest.fingerprint):
        msg = f"{model.path} has its own image tower: set encoder.trained to this model"
        raise EncoderError(msg)
    blocks = meta.get("features", {}).get("blocks", [])
    if len(blocks) > 1 or neighbour_means_of(meta) or any("scales" in block for block in blocks):
        msg = (
            f"{model.path} reads joined embeddings or several sizes of tiles, which one tile does not give: remove "
            "`encoder`, and send `embeddings` with the columns of all blocks, in the order that `/v1/info` gives"
        )
        raise EncoderError(msg)
    name, side = meta["encoder"]["name"], math.isqrt(tokens_of(meta))
    dim = spatial_tokens(source.spec, side).values if side else dim_of(encoder, features_of(meta))
    if source.spec.name != name or dim != meta["d_image"]:
        msg = (
            f"{model.path} reads {meta['d_image']} features of encoder '{name}', and encoder '{source.spec.name}' "
            f"gives {dim}: set `encoder` to that of the model's embeddings"
        )
        raise EncoderError(msg)
    expected = blocks[0].get("encoder_identity") if blocks and not meta["trained_tower"] else None
    if expected is not None and source.identity != expected:
        msg = (
            f"{model.path} was trained on features of encoder '{name}' with the weights {expected}, and `encoder` has "
            f"{source.identity}: give the weights of the embeddings that it was trained on"
        )
        raise EncoderError(msg)


def tile_um_for(given: float | None, meta: dict[str, Any], model: Artifact) -> float | None:
    """Return the side in um of the tiles that a model reads; raise ConfigError where another one is given.

    A model of an earlier version records none: what is given counts, if anything.
    """
    blocks = meta.get("features", {}).get("blocks", [])
    tile = blocks[0]["tile"] if blocks else meta.get("tile", {})
    own = tile.get("side")
    if own is None or (given is not None and math.isclose(given, own, rel_tol=1e-6)):
        return given
    if given is not None:
        msg = f"tile_um: {model.path} was trained on tiles of {own:g} um, got {given:g}: remove tile_um, or set {own:g}"
        raise ConfigError(msg)
    return float(own)


def encoder_for(meta: dict[str, Any], source: EncoderSource) -> Encoder:
    """Build an encoder whose rows are what a model reads: layers and views, or spatial tokens.

    Tokens are not rounded to float16 here, as stored ones are.
    """
    encoder, side = source.build(), math.isqrt(tokens_of(meta))
    if side:
        return with_tokens(encoder, side, trunk=encoder.network, keep_row=False)
    return with_features(encoder, features_of(meta))


def features_of(meta: dict[str, Any]) -> FeatureOptions:
    """Return the layers and views of the encoder that the model reads."""
    blocks = meta.get("features", {}).get("blocks", [])
    return features_of_block(blocks[0]) if blocks else OWN_ROW
