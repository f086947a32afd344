"""Parts of configs that name what a step reads: an encoder and its weights, embeddings. They open nothing."""

from typing import Annotated

from pydantic import Field

from raystp.config import Config, Location

OneOrMany = str | Annotated[tuple[str, ...], Field(min_length=1)]

EmbeddingNames = Annotated[OneOrMany, Location("embed")]
"""`embed/<name>`, or a list of them."""

OptionalEmbeddingNames = Annotated[OneOrMany | None, Location("embed")]
"""The same, or None: pydantic finds a `Location` of the whole field only, not of a part of a union."""


class EncoderConfig(Config):
    """An encoder and its weights."""

    name: str = "tiny"
    """A name of the registry (uni_v2, virchow2, resnet50 ...), `timm:<model>`, `vit_*`, or `hf-hub:<owner>/<name>`."""

    weights: Annotated[str | None, Location()] = None
    """A local file (or URI) with the encoder's weights: safetensors, or .bin and .pt that hold only tensors."""

    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """The expected digest of the weights file."""

    random: bool = False
    """Use untrained weights: a control that must be requested, never a default."""

    seed: int = 0
    """Seed of random weights."""

    trained: Annotated[str | None, Location("train")] = None
    """Instead of all other fields: the image tower of a model that was trained end to end, `train/<name>`."""

    def fingerprint_values(self) -> dict[str, object]:
        """Return what is computed: without path and expected digest, since the digest that was found is an input."""
        return self.model_dump(mode="json", exclude={"weights", "sha256", "trained"})
