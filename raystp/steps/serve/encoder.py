"""The encoder of a service: whether it fits the model, and the rows that the model reads from the pixels of a tile."""

import math
from typing import Any

from raystp.artifacts import Artifact
from raystp.encoders.encoder import Encoder
from raystp.encoders.features import OWN_ROW, FeatureOptions
from raystp.encoders.registry import tokens_of as spatial_tokens
from raystp.encoders.stages import with_features
from raystp.encoders.tokens import with_tokens
from raystp.errors import EncoderError
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
        msg = f"{model.path} reads {meta['d_image']} features of encoder '{name}', got encoder '{source.spec.name}'"
        raise EncoderError(msg)


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
