"""Configuration of `raystp train`: the part that both kinds of labels share.

`targets` chooses the kind. `spots` learns from measured spots (`train.spots.config`), `cases` from one label per case
(`train.cases.config`). Each method's options are a part of the config under the method's name.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, create_model, field_validator, model_validator

from raystp.config import Choices, Config, StepConfig, set_field
from raystp.errors import ConfigError
from raystp.expression.genes.panel_config import PanelConfig
from raystp.models.method import Method, NoOptions, Options
from raystp.models.methods import METHODS
from raystp.models.training.options import ENCODER_FIELDS, FitOptions
from raystp.steps.input_config import OptionalEmbeddingNames
from raystp.steps.run_config import SlideRun, TrackedRun
from raystp.steps.train.choice.candidates import flat_fields

T = TypeVar("T", bound="TrainConfig")


class SplitConfig(Config):
    """Who is trained on and who is held out."""

    protocol: str = "patient"
    """`patient` holds out whole patients; `section` holds out sections, whose patients may be trained on."""

    test: list[str] = Field(min_length=1)
    """Held out: sections or cases, or patients, which stand for all of theirs."""

    validation: list[str] = Field(default_factory=list)
    """Sections, cases or patients of the training side that choose the epoch; they are not trained on. `null` is none.
    """

    train: list[str] | None = None
    """Sections, cases or patients to train on; by default all others."""

    @field_validator("validation", mode="before")
    @classmethod
    def _null_is_none(cls, names: Any) -> Any:
        return [] if names is None else names


class TrainRun(TrackedRun, SlideRun):
    """Where and with which resources to train; changes the result by rounding at most."""

    workers: int = Field(default=1, ge=1)
    """Training processes."""

    readers: int = Field(default=0, ge=0)
    """With `tiles`: processes per worker that read pixels; 0 reads in threads of the worker."""

    gather: bool = False
    """Split each batch over the workers and gather its embeddings; by default each worker gets whole batches. On cases,
    a batch of all training cases is lowered so that it divides among the workers, which changes the result."""

    memory_gb: float = Field(default=8.0, ge=0)
    """With `targets: cases`: gigabytes of features that each worker keeps; the rest is read again in every epoch."""

    batch_gb: float = Field(default=4.0, gt=0)
    """With `targets: cases`: gigabytes that predictions of all genes at all tiles of a batch may take."""

    use_gpu: bool = False
    """One GPU for each worker."""

    cpus_per_worker: float = Field(default=1.0, gt=0)
    """Logical CPUs that each worker holds."""

    checkpoint_every: int = Field(default=25, ge=1)
    """Epochs between checkpoints."""

    concurrent: int | None = Field(default=None, ge=1)
    """With `fit.select: cv`: trainings at a time; by default as many as fit on the cluster."""


class TrainConfig(StepConfig[TrainRun]):
    """Which model to train, on what, and who is held out."""

    command: ClassVar[str | None] = "train"
    where: ClassVar[frozenset[str]] = frozenset({"spots", "embeddings", "tiles"})
    RENAMED: ClassVar[Mapping[str, str]] = {
        "bulk": "labels of whole cases are now `targets: cases` with `cases: {table: ...}`",
        "k": "renamed to knn.k, an option of the kNN baseline",
    }

    targets: Literal["spots", "cases"] = "spots"
    """Labels to learn from: measured spots, or one label per case."""

    embeddings: OptionalEmbeddingNames = None
    """Cached image features, `embed/<name>`; a list joins several of the same places, in this order."""

    neighbour_mean: int = Field(default=0, ge=0, le=1000)
    """Append the mean features of so many nearest other tiles of the slide, the tile itself excluded; 0 for none."""

    model: Annotated[str, Choices(tuple(METHODS))] = next(iter(METHODS))
    """Method to train."""

    panel: PanelConfig = Field(default_factory=PanelConfig)

    split: SplitConfig

    fit: FitOptions = Field(default_factory=FitOptions)
    """Training options; by default those that the method was published with."""

    run: TrainRun = Field(default_factory=TrainRun)

    @classmethod
    def variant(cls: type[T], values: Mapping[str, Any]) -> type[T]:
        """Return the config class of the values' `targets`; raises ConfigError for another value."""
        if cls is not TrainConfig:
            return cls
        from raystp.steps.train.cases.config import CasesTrainConfig  # noqa: PLC0415 -- it imports this module
        from raystp.steps.train.spots.config import EnsembleTrainConfig, SpotsTrainConfig  # noqa: PLC0415 -- the same

        targets = values.get("targets", "spots")
        if targets not in ("spots", "cases"):
            msg = f"targets: must be spots or cases, got {targets!r}"
            raise ConfigError(msg)
        method = METHODS.get(str(values.get("model")))
        on_spots = EnsembleTrainConfig if method is not None and method.combines_models else SpotsTrainConfig
        kind: Any = CasesTrainConfig if targets == "cases" else on_spots
        return kind  # type: ignore[no-any-return]  # a subclass of TrainConfig, which is what `cls` is here

    @property
    def method(self) -> Method:
        """The record of the method."""
        return METHODS[self.model]

    @property
    def options(self) -> Options:
        """The method's own options."""
        found: Options = getattr(self, self.model, NoOptions())
        return found

    @property
    def validates(self) -> bool:
        """Whether anything of the training side is held back to choose the epoch."""
        return bool(self.split.validation)

    @property
    def trains_encoder(self) -> bool:
        """Whether the image encoder is trained with the model, from pixels."""
        return False

    def changed(self: T, changes: Mapping[str, Any], where: str = "the config") -> T:
        """Return the config with other values of some fields, by dotted name; raises ConfigError where they do not fit.

        A mapping changes those fields of a group that it names.
        """
        values = self.model_dump(mode="json", exclude_unset=True)
        for key, value in flat_fields(changes):
            set_field(values, key, value, f"{where}: {key}")
        return type(self).of(values, where)

    @field_validator("model")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METHODS:
            msg = f"unknown method; the methods are {', '.join(METHODS)}"
            raise ValueError(msg)
        return name

    @property
    def encoder_options_given(self) -> list[str]:
        """Fields of an image encoder's training that are not the defaults."""
        default = FitOptions()
        return [f"fit.{name}" for name in ENCODER_FIELDS if getattr(self.fit, name) != getattr(default, name)]

    @model_validator(mode="after")
    def _encoder_options_are_read(self: T) -> T:
        given = self.encoder_options_given
        if given and not self.trains_encoder:
            msg = (
                f"{' and '.join(given)}: only where an image encoder is trained from pixels: set `tiles` and "
                f"`encoder`, or remove {'it' if len(given) == 1 else 'them'}"
            )
            raise ValueError(msg)
        return self

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; options of other methods and paths of the panel are left out."""
        values = super().fingerprint_values()
        if not self.neighbour_mean:
            values.pop("neighbour_mean")  # as before the field existed
        if not self.trains_encoder:  # the same
            values["fit"] = {key: value for key, value in values["fit"].items() if key not in ENCODER_FIELDS}
        values["panel"] = {key: value for key, value in values["panel"].items() if key != "file"}
        values["panel"]["listed"] = self.panel.file is not None
        return {key: value for key, value in values.items() if key == self.model or key not in METHODS}


def with_method_options(
    methods: list[Method], targets: Literal["spots", "cases"] = "spots"
) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that gives a config class one field per method, with its options for these targets."""

    def add(kind: type[T]) -> type[T]:
        fields: dict[str, Any] = {
            method.name: (options, Field(default_factory=options, description=f"For {method.title}."))
            for method in methods
            if dataclasses.fields(options := method.options_on(targets))
        }
        made: type[T] = create_model(kind.__name__, __base__=kind, __module__=kind.__module__, **fields)
        made.__doc__ = kind.__doc__
        return made

    return add


def with_published_fit(values: Any, published: FitOptions, *, validated: bool, unvalidated: int | None = None) -> Any:
    """Fill in the method's published training options under those that are given.

    Without a validation side no epoch can be chosen, so the last one is kept, of `unvalidated` epochs.
    """
    if not validated:
        epochs = published.epochs if unvalidated is None else unvalidated
        published = dataclasses.replace(published, select="last", patience=None, epochs=epochs)
    return {**values, "fit": {**dataclasses.asdict(published), **(values.get("fit") or {})}}


def is_mapping(values: Any) -> bool:
    """Say whether values of a config, and their `fit`, are mappings; a validator explains those that are not."""
    return isinstance(values, dict) and isinstance(values.get("fit", {}), dict | None)
