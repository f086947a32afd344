"""Where an encoder comes from: the registry, or the image tower of a trained model."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from raystp.artifacts import Artifact, resolve
from raystp.encoders.encoder import Encoder, EncoderSpec
from raystp.encoders.features.options import OWN_ROW, FeatureOptions
from raystp.encoders.registry import build, describe, features_dim, identity
from raystp.errors import ConfigError, EncoderError
from raystp.models.arrays import encoder_weights, tower_identity
from raystp.models.store import load_model
from raystp.steps.input_config import EncoderConfig
from raystp.storage import StoragePath


@dataclass(frozen=True)
class EncoderSource:
    """What a worker builds an encoder from. It is sent to the workers, so it holds no weights."""

    spec: EncoderSpec
    identity: str
    """The identity of the weights, for a fingerprint."""
    model: StoragePath | None = None
    """The model whose tower is used; None for the registry's own weights."""

    def build(self) -> Encoder:
        """Build the encoder; raises EncoderError where the model has no tower, or one of another architecture."""
        encoder = build(self.spec)
        if self.model is None:
            return encoder
        _, arrays, _ = load_model(self.model)
        weights = {name: torch.from_numpy(value) for name, value in encoder_weights(arrays).items()}
        try:
            encoder.network.load_state_dict(weights)
        except RuntimeError as error:
            msg = f"the tower of {self.model} does not fit encoder '{self.spec.name}': {error}"
            raise EncoderError(msg) from None
        return dataclasses.replace(encoder, name=f"tower of {self.model.name}", digest=self.identity)


def source_of(config: EncoderConfig, store: str) -> EncoderSource:
    """Resolve a config: check the weights' digest, or find the model; raises EncoderError or ArtifactError."""
    if config.trained is None:
        spec = spec_of(config)
        return EncoderSource(spec, identity(spec))
    model = resolve(store, config.trained, "train")
    _, _, meta = load_model(model.path)
    if not meta["trained_tower"]:
        msg = f"{model.path} was trained on cached embeddings and has no image tower: set encoder.name instead"
        raise EncoderError(msg)
    return EncoderSource(
        spec_of(EncoderConfig(**meta["encoder"])), tower_identity(model.manifest.fingerprint), model.path
    )


def spec_of(config: EncoderConfig) -> EncoderSpec:
    """Return the config as the plain value of the package `encoders`."""
    return EncoderSpec(config.name, config.weights, config.sha256, config.random, config.seed)


def dim_of(config: EncoderConfig, features: FeatureOptions = OWN_ROW) -> int:
    """Return the length of an encoder's rows, without building it."""
    return features_dim(spec_of(config), features)


def check_tile_px(spec: EncoderSpec, tiles: Artifact) -> None:
    """Raise ConfigError, before any pixel is read, for tiles of another size than the encoder's."""
    expected, found = describe(spec).tile_px, int(tiles.manifest.notes["pixels"])
    if expected != found:
        msg = (
            f"encoder '{spec.name}' expects tiles of {expected} px, {tiles.path} has {found} px: "
            f"run `raystp tile` with tile_px={expected}; `tile_um` need not change"
        )
        raise ConfigError(msg)


def features_of_block(block: Mapping[str, Any]) -> FeatureOptions:
    """Return the layers and views that a model's record, or a manifest's notes, state of its features."""
    return FeatureOptions(tuple(block.get("layers", OWN_ROW.layers)), block.get("views", OWN_ROW.views))
