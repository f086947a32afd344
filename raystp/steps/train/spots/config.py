"""Configuration of a training on measured spots."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from raystp.config import Config, Location
from raystp.encoders.augment.options import Augmentation
from raystp.errors import ConfigError
from raystp.expression.labels import Labels
from raystp.models.methods import METHODS
from raystp.steps.input_config import EncoderConfig
from raystp.steps.train.choice.candidates import CV, Candidate, candidates_of, check_choice
from raystp.steps.train.config import SplitConfig, TrainConfig, is_mapping, with_method_options, with_published_fit
from raystp.steps.train.retrieval_config import RetrievalConfig
from raystp.steps.train.spots.text_config import TextConfig

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

    augment: Augmentation = Field(default_factory=Augmentation)
    """With `tiles`: how training tiles are changed at random."""

    split: SpotsSplitConfig

    text: TextConfig = Field(default_factory=TextConfig)
    """For a method that reads gene texts."""

    bags: BagConfig = Field(default_factory=BagConfig)
    """For a method that learns from bags of tiles."""

    labels: Labels = Field(default_factory=Labels)
    """How counts become labels; by default log1p of counts per 10,000 of all genes. Published protocols need others.
    Scores are on labels of the same kind."""

    retrieval: RetrievalConfig = Field(default_factory=RetrievalConfig)
    """For a method that predicts through a reference index."""

    choose: dict[str, list[Any]] | None = None
    """With `fit.select: cv`: dotted field -> values to compare, in all combinations; by default those of the method's
    record. A value may be a mapping: `retrieval: [{k: 50, weights: mean}, {k: all, weights: softmax}]`. `{}` chooses
    the epoch alone."""

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
        return cls.with_computed(values)

    @classmethod
    def with_computed(cls, values: Any) -> Any:
        """Return plain values with the published training options of the method."""
        if not is_mapping(values) or values.get("model", cls.model_fields["model"].default) not in METHODS:
            return values
        method, split = METHODS[values.get("model", cls.model_fields["model"].default)], values.get("split")
        options = values.get(method.name)
        published = method.published_fit(options if isinstance(options, dict) else {})
        validated = isinstance(split, dict) and bool(split.get("validation") or split.get("validation_block"))
        validated |= (values.get("fit") or {}).get("select") == CV  # each fold has a validation side
        epochs = method.unvalidated_epochs
        return with_published_fit(values, published, validated=validated, unvalidated=epochs)

    @model_validator(mode="after")
    def _enough(self) -> "SpotsTrainConfig":
        if self.method.compares_samples and self.fit.batch_size < PAIR:
            msg = f"fit: batch_size must be at least {PAIR} for {self.method.title}, which compares samples, got "
            raise ValueError(msg + str(self.fit.batch_size))
        return self

    @property
    def candidates(self) -> list[Candidate]:
        """What `fit.select: cv` compares, the config's own values first where they are among them."""
        found = candidates_of(self.method.choices if self.choose is None else self.choose)
        return sorted(found, key=lambda one: not self.has_values(one))

    def has_values(self, candidate: Candidate) -> bool:
        """Say whether a candidate's values are the config's own, however they are written: `1e-3` is .001."""
        try:
            if self.retrieval.over(candidate.retrieval) != self.retrieval.over({}):
                return False
            changed = self.changed({**candidate.training, "choose": None, "fit.select": "last"})
        except (ValueError, ConfigError):  # of a candidate that does not fit
            return False
        own, its = (one.model_dump(mode="json") for one in (self, changed))
        return all(_field(own, key) == _field(its, key) for key in candidate.training)

    def check_absolute(self) -> None:
        """Look into the inputs that only a candidate reads as well."""
        super().check_absolute()
        for one in self.candidates if self.choose else []:
            if set(one.training) & self.where:
                self.changed({**one.training, "choose": None, "fit.select": "last"}, "choose").check_absolute()

    @model_validator(mode="after")
    def _can_choose(self) -> "SpotsTrainConfig":
        """Refuse what does not go with a choice by cross-validation."""
        if self.fit.select != CV:
            if self.choose is not None:
                msg = f"choose: alternatives are compared by fit.select={CV}, and it is {self.fit.select}: set it"
                raise ValueError(msg)
            return self
        check_choice(self.candidates)
        if self.validates:
            side = "split.validation" if self.split.validation else "split.validation_block"
            msg = (
                f"fit.select={CV} holds out each training patient or section in turn, and {side} is set: remove it, or "
                "set fit.select=best_pcc"
            )
            raise ValueError(msg)
        if self.method.combines_models:
            msg = f"fit.select={CV}: an ensemble trains nothing; remove fit.select"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> "SpotsTrainConfig":
        """Refuse labels that do not go with another option."""
        labels, pooled = self.labels, self.method.needs_bags and self.bags.labels == "log_of_pooled"
        if pooled and (labels.totals, labels.log, labels.smooth) != ("all", "ln", "none"):
            msg = (
                f"bags.labels=log_of_pooled pools log1p of counts per 10,000 of all genes, and labels have "
                f"{labels.changed}: set bags.labels=mean_of_logs, or remove `labels`"
            )
            raise ValueError(msg)
        if labels.smooth != "none" and self.split.validation_block:
            msg = (
                f"split.validation_block: labels.smooth={labels.smooth} averages over neighbours, so that spots at the "
                "border of the block would be in labels of both sides: set split.validation instead"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _calibration_has_validation(self) -> "SpotsTrainConfig":
        if self.retrieval.calibrate != "none" and self.method.needs_index and not self.validates:
            msg = (
                "retrieval.calibrate: a calibration is fitted on validation spots, and there are none: set "
                "split.validation or split.validation_block, or retrieval.calibrate=none"
            )
            raise ValueError(msg)
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
        if self.tiles is not None and (why := self.method.frozen_reason(dataclasses.asdict(self.options))):
            able = ", ".join(name for name, method in METHODS.items() if not method.frozen_reason({}))
            msg = (
                f"model '{self.model}' cannot be trained from `tiles`, because {why}. Set `embeddings` instead, or "
                f"another `model`; trained from `tiles` can be: {able}"
            )
            raise ValueError(msg)
        if self.encoder is not None and self.encoder.trained is not None:
            msg = "encoder.trained: a training starts from an encoder of the registry; set encoder.name and its weights"
            raise ValueError(msg)
        return self

    @property
    def encoder_options_given(self) -> list[str]:
        """Fields of an image encoder's training that are not the defaults."""
        return [*super().encoder_options_given, *(["augment"] if self.augment != Augmentation() else [])]

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed: of the parts, those that the method reads; files count by their digests."""
        values, method = super().fingerprint_values(), self.method
        if method.combines_models:  # the members count by their own fingerprints
            values[method.name] = {key: value for key, value in values[method.name].items() if key != "members"}
        values["encoder"] = self.encoder.fingerprint_values() if self.encoder is not None else None
        if not self.trains_encoder:  # as before these fields existed
            values.pop("augment")
        values["text"] = self.text.fingerprint_values()
        if not self.retrieval.compare:
            values["retrieval"].pop("compare")  # as before the field existed
        if self.labels.is_default:  # the same
            values.pop("labels")
        values.pop("choose")
        if self.fit.select == CV:
            values["choose"] = [one.fingerprint_values(self.where) for one in self.candidates]
        read = {"text": method.needs_gene_text, "bags": method.needs_bags, "retrieval": method.needs_index}
        return {key: value for key, value in values.items() if read.get(key, True)}


def _field(values: Any, key: str) -> Any:
    """Return a value by its dotted name; None where there is none."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


class EnsembleTrainConfig(SpotsTrainConfig):
    """Which finished models to average. What is not given is that of the members (`members.with_member_values`)."""

    spots: Annotated[str, Location("spots")] = ""
    """The measured spots, `spots/<name>`; by default those of the first member."""

    split: SpotsSplitConfig = Field(default_factory=lambda: SpotsSplitConfig(test=["that of the members"]))
    """`test`, and `validation` for weights; by default those that all members share. All else is the members'."""

    @property
    def member_names(self) -> list[str]:
        """References to the members."""
        names: list[str] = getattr(self, self.model).members
        return names

    @model_validator(mode="after")
    def _one_source(self) -> "EnsembleTrainConfig":
        """Refuse what does not fit finished models; their embeddings need not be given."""
        if self.tiles is not None or self.encoder is not None or self.completed is not None:
            msg = "an ensemble trains nothing: remove `tiles`, `encoder` and `completed`"
            raise ValueError(msg)
        if not self.member_names or len(set(self.member_names)) < len(self.member_names):
            msg = f"{self.model}.members must name one or more finished models, each once: set {self.model}.members"
            raise ValueError(msg + "=[train/a,train/b]")
        return self
