"""Configuration of a training on measured spots."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from raystp.config import Config, Location
from raystp.models.methods import METHODS
from raystp.steps.encoder_source import EncoderConfig
from raystp.steps.train.config import SplitConfig, TrainConfig, is_mapping, with_method_options, with_published_fit
from raystp.steps.train.spots.gene_text import TextConfig

PAIR = 2
"""Fewest samples that a loss can compare."""


class SpotsSplitConfig(SplitConfig):
    """Which sections are trained on and which are held out."""

    validation_block: float = Field(default=0.0, ge=0, lt=1)
    """Instead of `validation`: share of each training section's spots, one spatial block, that validates."""

    @field_validator("validation_block", mode="before")
    @classmethod
    def _null_is_no_block(cls, share: Any) -> Any:
        return 0.0 if share is None else share


class BagConfig(Config):
    """Bags of tiles that share one label: that of a section, or of a compact part of it."""

    parts: int = Field(default=1, ge=1)
    """Parts that each section is cut into, at most one per spot. More parts are more labels, each of less tissue."""

    labels: Literal["log_of_pooled", "mean_of_logs"] = "log_of_pooled"
    """A bag's label from its spots: log1p of the counts per 10,000 of their pooled counts, as a bulk sample would have,
    or the mean of the spots' own log1p values, which no bulk sample has."""

    tiles: int | None = Field(default=None, ge=1)
    """Maximum number of tiles of a bag in one epoch, sampled again in each; by default all."""


class RetrievalConfig(Config):
    """How expression is retrieved while an epoch is chosen; `raystp index` and `impute` use the same by default."""

    vectors: Literal["expression", "image"] = "expression"
    """Embeddings that queries are compared with: of the references' expression, or of their images."""

    metric: Literal["cosine", "l2"] = "cosine"

    k: int = Field(default=50, ge=1)
    """Neighbours that are averaged; of a small training set at most a quarter."""


@with_method_options(list(METHODS.values()))
class SpotsTrainConfig(TrainConfig):
    """Which model to train on measured spots, and who is held out."""

    where: ClassVar[frozenset[str]] = TrainConfig.where | {"completed"}

    targets: Literal["spots"] = "spots"

    spots: Annotated[str, Location("spots")]
    """The measured spots, `spots/<name>`."""

    completed: Annotated[str | None, Location("complete")] = None
    """Completed labels, `complete/<name>`, for the training spots. Genes outside it, and all validation spots, keep
    their measured labels; scores are on measured counts."""

    tiles: Annotated[str | None, Location("tile")] = None
    """Instead of `embeddings`: tiles as pixels, `tile/<name>`; the image encoder is trained with the model."""

    encoder: EncoderConfig | None = None
    """The image encoder to train with `tiles`."""

    split: SpotsSplitConfig

    text: TextConfig = Field(default_factory=TextConfig)
    """For a method that reads gene texts."""

    bags: BagConfig = Field(default_factory=BagConfig)
    """For a method that learns from bags of tiles."""

    retrieval: RetrievalConfig = Field(default_factory=RetrievalConfig)
    """For a method that predicts through a reference index."""

    @property
    def validates(self) -> bool:
        """Whether anything of the training side is held back to choose the epoch."""
        return bool(self.split.validation or self.split.validation_block)

    @property
    def trains_encoder(self) -> bool:
        """Whether the image encoder is trained with the model, from pixels."""
        return self.tiles is not None

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not is_mapping(values) or values.get("model", cls.model_fields["model"].default) not in METHODS:
            return values
        method, split = METHODS[values.get("model", cls.model_fields["model"].default)], values.get("split")
        options = values.get(method.name)
        published = method.published_fit(options if isinstance(options, dict) else {})
        validated = isinstance(split, dict) and bool(split.get("validation") or split.get("validation_block"))
        return with_published_fit(values, published, validated=validated)

    @model_validator(mode="after")
    def _enough(self) -> "SpotsTrainConfig":
        if self.method.compares_samples and self.fit.batch_size < PAIR:
            msg = f"fit: batch_size must be at least {PAIR} for {self.method.title}, which compares samples, got "
            raise ValueError(msg + str(self.fit.batch_size))
        return self

    @model_validator(mode="after")
    def _one_source(self) -> "SpotsTrainConfig":
        """Refuse more or less than one source of images, and an encoder that cannot be trained."""
        if (self.embeddings is None) == (self.tiles is None):
            msg = "set either `embeddings` (cached features) or `tiles` with `encoder` (training from pixels)"
            raise ValueError(msg)
        if (self.tiles is None) != (self.encoder is None):
            msg = "`tiles` and `encoder` belong together: the encoder is trained on the tiles' pixels; set both"
            raise ValueError(msg)
        if self.tiles is not None and self.neighbour_mean:
            msg = "`neighbour_mean` averages cached features: set `embeddings`, or remove it"
            raise ValueError(msg)
        if self.tiles is not None and not self.method.trains_encoder:
            able = ", ".join(name for name, method in METHODS.items() if method.trains_encoder)
            msg = f"model '{self.model}' reads `embeddings`; trained from `tiles` can be: {able}"
            raise ValueError(msg)
        return self

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed: of the parts, those that the method reads; files count by their digests."""
        values, method = super().fingerprint_values(), self.method
        values["encoder"] = self.encoder.fingerprint_values() if self.encoder is not None else None
        values["text"] = self.text.fingerprint_values()
        read = {"text": method.needs_gene_text, "bags": method.needs_bags, "retrieval": method.needs_index}
        return {key: value for key, value in values.items() if read.get(key, True)}
