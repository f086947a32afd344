"""The card of a published model, `card.json`: what it reads and predicts, how it was measured, and its files.

The file is written last, so a folder without it is unfinished. It states size and sha256 of every other file. A card
may come from anybody: it is read with bounds, and refused as a whole for any unknown or wrong field.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from raystp.config import Config
from raystp.errors import ModelError
from raystp.models.methods import METHODS
from raystp.steps.publish.features import FeatureBlock
from raystp.storage import StoragePath, is_safe_name
from raystp.storage.text_files import read_object

CARD = "card.json"
SCHEMA_VERSION: Literal[1] = 1
"""Version of the card, and of the layout of a published folder."""

MAX_CARD_BYTES = 32 << 20
MAX_RECORD_BYTES = 256 << 20
"""Largest `model.json` and `index/index.json` that are read."""

INDEX_FOLDER = "index"
INDEX_JSON = "index/index.json"

Name = Annotated[str, Field(min_length=1, max_length=200)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class FileEntry(Config):
    """A file of the folder."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ScoreEntry(Config):
    """A mean score of an evaluation."""

    protocol: Name
    panel: Name
    genes: Name
    """The set of genes."""
    metric: Name
    value: float
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    null_mean: float | None = None
    """Mean of models of permuted labels."""
    null_sd: float | None = None
    n: int = Field(ge=0)
    """Spots or cases."""


class TrainingEntry(Config):
    """What the model, and its index, were made from: names are salted hashes (`raystp.impute.hashed_names`)."""

    sections: int = Field(ge=0)
    salt: str = Field(min_length=1, max_length=64)
    patients: tuple[Hash, ...]
    slides: tuple[Hash, ...]


class IndexEntry(Config):
    """The reference index that the model predicts from."""

    source: Name
    """`index/<name>-<fingerprint>` in the store of its makers."""
    rows: int = Field(ge=1)
    vectors: Name
    metric: Name


class PublishedCard(Config):
    """The card of a published model."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    kind: Name
    """Name of the method."""
    raystp: Name
    """Version of raystp that published it."""
    source: Name
    """`train/<name>-<fingerprint>` in the store of its makers."""
    licence: Name
    description: str = Field(default="", max_length=10_000)
    panel: Name
    genes: tuple[Name, ...] = Field(min_length=1, max_length=1_000_000)
    normalisation: Name
    """Unit of the predicted expression."""
    features: tuple[FeatureBlock, ...] = Field(min_length=1, max_length=32)
    neighbour_means: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), max_length=16)
    """Numbers of tiles around each tile whose mean features the model reads beside."""
    protocol: Name
    protocol_description: Name
    validation_pcc: float | None = None
    scores: tuple[ScoreEntry, ...] = Field(default=(), max_length=10_000)
    training: TrainingEntry
    index: IndexEntry | None = None
    files: dict[str, FileEntry] = Field(max_length=1_000_000)

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind not in METHODS:
            msg = f"this raystp has the methods {', '.join(METHODS)}"
            raise ValueError(msg)
        return kind

    @field_validator("files")
    @classmethod
    def _are_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            head, slash, tail = name.partition("/")
            if not is_safe_name(tail if slash else head) or (slash and head != INDEX_FOLDER) or name == CARD:
                msg = f"{name[:80]!r} is not a file of a published folder"
                raise ValueError(msg)
        return files

    def to_bytes(self) -> bytes:
        """Return the content of `card.json`; equal cards have equal bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()

    @property
    def digest(self) -> str:
        """The sha256 of the card, which states those of all files."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def read_card(folder: StoragePath) -> PublishedCard:
    """Read the card of a published folder.

    Raises ModelError where there is none, it is too large, of another version, or has a wrong field.
    """
    file = folder / CARD
    if not file.exists():
        reason = "has no card.json, so it is not a finished published model" if folder.exists() else "does not exist"
        msg = f"model: {folder} {reason}: give a folder that `raystp publish` wrote, or train/<name>"
        raise ModelError(msg)
    values = read_object(file, MAX_CARD_BYTES, ModelError)
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        msg = (
            f"{file} has schema version {str(version)[:20]}, and this raystp reads version {SCHEMA_VERSION}: install a "
            "raystp that reads it, or ask for the model published by this version"
        )
        raise ModelError(msg)
    try:
        return PublishedCard.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:4])
        msg = f"{file} is not a valid card: {where[:200]}: {first['msg'][:300]} ({error.error_count()} wrong fields)"
        raise ModelError(msg) from None
