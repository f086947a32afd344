"""What a model reads of each tile: the encoders, and the tiles that they read."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from raystp.artifacts import MANIFEST, Artifact, open_artifact
from raystp.config import Config
from raystp.encoders.features.options import LAYER_PATTERN, OWN_ROW, Views
from raystp.encoders.registry import CARDS
from raystp.errors import ModelError
from raystp.steps.embedding_source import input_folders
from raystp.storage import StoragePath

Side = Annotated[float, Field(gt=0, le=100_000)]
Layer = Annotated[str, Field(pattern=LAYER_PATTERN)]
Precision = Literal["float32", "float16", "bfloat16"]

SHA256 = re.compile("[0-9a-f]{64}")


class FeatureBlock(Config):
    """The rows of one encoder, of tiles of one size."""

    encoder: str = Field(min_length=1, max_length=200)
    """Its registry name."""

    random: bool = False
    """Whether its weights are random, from `seed`: a control."""

    seed: int = 0

    identity: str = Field(min_length=1, max_length=400)
    """Its weights: a file's sha256, or another identity (`raystp.encoders.registry.identity`); `own` for an image
    encoder that was trained with the model and is part of it."""

    licence: str | None = None
    """The encoder's licence, where raystp has a card of it."""

    tile_um: tuple[Side, ...] = Field(min_length=1, max_length=16)
    """Sides of the tiles around each place, in um of tissue."""

    tile_px: int = Field(ge=16, le=4096)
    """Side of a tile in px, as the encoder reads it."""

    layers: tuple[Annotated[str, Field(pattern=LAYER_PATTERN)], ...] = Field(
        OWN_ROW.layers, min_length=1, max_length=64
    )
    views: Views = OWN_ROW.views
    precision: Precision = "float32"
    """Precision of the encoder's arithmetic."""

    @property
    def mpp(self) -> float:
        """The um/px of the first tiles."""
        return self.tile_um[0] / self.tile_px

    @property
    def sha256(self) -> str | None:
        """The digest of the weights file, where the identity is one."""
        return self.identity if SHA256.fullmatch(self.identity) else None

    @property
    def sentence(self) -> str:
        """The encoder and its tiles, in words."""
        sides = " and ".join(f"{side:g}" for side in self.tile_um)
        return f"{self.encoder} ({self.identity}) on tiles of {sides} um, {self.tile_px} px"


OWN_TOWER = "own"
"""Identity of an image encoder that was trained with the model."""


def feature_blocks(model: Artifact, meta: Mapping[str, Any], store: str) -> list[FeatureBlock]:
    """Return the blocks of a model's features, in its order; raises ModelError for a record without encoder or tile."""
    if meta.get("trained_tower"):
        block = {"encoder": meta["encoder"], "encoder_identity": OWN_TOWER, "tile": meta["tile"]}
        return [_block(block, "float32", model)]
    blocks = meta.get("features", {}).get("blocks") or [{}]
    precisions = _precisions(model, store)
    precisions += ["float32"] * (len(blocks) - len(precisions))
    return [_block(block, precision, model) for block, precision in zip(blocks, precisions, strict=False)]


def _block(block: Mapping[str, Any], precision: str, model: Artifact) -> FeatureBlock:
    encoder, tile, identity = (block.get(key) for key in ("encoder", "tile", "encoder_identity"))
    if not encoder or not tile or not encoder.get("name") or not identity:
        msg = f"{model.path} does not record its encoder and tiles: train it again with this version of raystp"
        raise ModelError(msg)
    name = str(encoder["name"])
    return FeatureBlock(
        encoder=name,
        random=bool(encoder.get("random", False)),
        seed=int(encoder.get("seed", 0)),
        identity=str(identity),
        licence=CARDS[name].licence if name in CARDS else None,
        tile_um=tuple(float(side) for side in block.get("scales", [tile["side"]])),
        tile_px=int(tile["pixels"]),
        layers=tuple(block.get("layers", OWN_ROW.layers)),
        views=block.get("views", OWN_ROW.views),
        precision=precision,
    )


def _precisions(model: Artifact, store: str) -> list[str]:
    """Return the precision of each of the embeddings that the model was trained on, as far as they are in the store."""
    found = []
    for folder in input_folders(model.manifest.inputs, "images"):
        path = StoragePath.of(store) / folder
        if folder.startswith("embed/") and (path / MANIFEST).exists():
            found.append(str(open_artifact(path, "embed").manifest.config.get("precision", "float32")))
        else:
            found.append("float32")
    return found
