"""The model that a prediction uses, and the encoders that it reads, checked before the first slide is opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raystp.artifacts import MANIFEST, resolve
from raystp.encoders.registry import fetch_weights
from raystp.errors import ConfigError, EncoderError, ModelError
from raystp.models.store import load_model
from raystp.steps.encoder_source import source_of, spec_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.predict.config import PredictConfig
from raystp.steps.publish.card import CARD
from raystp.steps.publish.features import OWN_TOWER, FeatureBlock, feature_blocks
from raystp.steps.publish.published import (
    ModelArtifacts,
    PublishedModel,
    is_published,
    open_published,
    put_into_store,
)
from raystp.steps.publish.step import check_index
from raystp.storage import StoragePath


@dataclass(frozen=True)
class PredictModel:
    """A model, ready to predict."""

    artifacts: ModelArtifacts
    published: PublishedModel | None
    """None for a model of the store."""
    meta: Mapping[str, Any]
    blocks: list[FeatureBlock]
    encoders: list[EncoderConfig]
    """The encoder of each block."""

    @property
    def name(self) -> str:
        """Its published name, or its folder in the store."""
        return self.artifacts.model.manifest.folder if self.published is None else self.published.card.name


def open_model(config: PredictConfig) -> PredictModel:
    """Open the model that a config names; a published one is put into the store.

    Raises ConfigError for a model without its index, ModelError for an unsuitable or damaged one, EncoderError where
    the encoder's weights are not found or are others.
    """
    store, published = config.run.store, None
    if not config.model.startswith("train/") and is_published(config.model):
        published = open_published(config.model)
        if config.index is not None:
            msg = f"index: {config.model} is published with its own index; remove `index`"
            raise ConfigError(msg)
        artifacts = put_into_store(published, store)
    else:
        _check_is_model(config.model)
        model = resolve(store, config.model, "train")
        index = resolve(store, config.index, "index") if config.index else None
        artifacts = ModelArtifacts(model, index)
    kind, _, meta = load_model(artifacts.model.path)
    check_index(artifacts.model, kind, artifacts.index)
    blocks = feature_blocks(artifacts.model, meta, store) if published is None else list(published.card.features)
    if len({block.tile_um for block in blocks}) > 1:
        sides = "; ".join(block.sentence for block in blocks)
        msg = f"{artifacts.model.path} reads embeddings of several tile sizes ({sides}): run tile, embed and impute"
        raise ModelError(msg)
    found = PredictModel(artifacts, published, meta, blocks, _encoders(config, artifacts, meta, blocks))
    _check_encoders(found, store)
    return found


def _check_is_model(reference: str) -> None:
    """Raise ModelError for a file or folder that is there and holds no model."""
    path = StoragePath.of(reference)
    if not reference.startswith("train/") and path.exists() and not (path / MANIFEST).exists():
        msg = (
            f"model: {path} has neither {CARD}, as a published model, nor {MANIFEST}, as one of a store: give another "
            "folder, or train/<name>"
        )
        raise ModelError(msg)


def _encoders(
    config: PredictConfig, artifacts: ModelArtifacts, meta: Mapping[str, Any], blocks: list[FeatureBlock]
) -> list[EncoderConfig]:
    """Return the encoder of each block, with the weights that the config gives."""
    given = [config.weights] if isinstance(config.weights, str) else list(config.weights or [])
    if given and len(given) != len(blocks):
        names = ", ".join(block.encoder for block in blocks)
        msg = f"weights: the model reads {len(blocks)} encoders ({names}), got {len(given)} files: list one for each"
        raise ConfigError(msg)
    files = [file or None for file in given] or [None] * len(blocks)
    recorded = meta.get("features", {}).get("blocks", [])
    encoders = []
    for number, (block, file) in enumerate(zip(blocks, files, strict=True)):
        if block.identity == OWN_TOWER:
            encoders.append(EncoderConfig(trained=artifacts.model.path.uri))
            continue
        own = recorded[number]["encoder"].get("weights") if number < len(recorded) else None
        encoders.append(
            EncoderConfig(
                name=block.encoder,
                weights=file or own,
                sha256=None if block.random else block.sha256,
                random=block.random,
                seed=block.seed,
            )
        )
    return encoders


def _check_encoders(model: PredictModel, store: str) -> None:
    """Raise EncoderError unless the weights of each encoder are found and are those of the model."""
    for block, encoder in zip(model.blocks, model.encoders, strict=True):
        if block.identity == OWN_TOWER:
            continue
        try:
            identity = source_of(encoder, store).identity
            if identity == block.identity:
                fetch_weights(spec_of(encoder))
        except EncoderError as error:
            msg = f"the model {model.name} reads {block.sentence}: {error}. Set `weights` to the file with its weights"
            raise EncoderError(msg) from None
        if identity != block.identity:
            msg = (
                f"the model {model.name} reads {block.sentence}, and the weights here are {identity}: set `weights` to "
                "the file that the model was trained with, or leave it out for those of the hub"
            )
            raise EncoderError(msg)
