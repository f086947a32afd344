"""Configuration of `raystp pipeline`: the configs of its steps, each holding only what differs from the defaults."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from raystp.config import Location, StepConfig
from raystp.config_fields.values import ValuesOf
from raystp.errors import ConfigError
from raystp.evaluate.protocols import PublishedName
from raystp.interop.registry import TABLES
from raystp.models.methods import CASES_DEFAULT, DEFAULT, METHODS
from raystp.steps.complete.config import CompleteConfig
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.imports.config import ImportConfig
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.index.config import IndexConfig
from raystp.steps.pipeline.folds.config import FoldsConfig, LearningCurveConfig
from raystp.steps.run_config import TrackedRun
from raystp.steps.spots.config import SpotsConfig
from raystp.steps.tile.config import TileConfig
from raystp.steps.train.config import TrainConfig

Values = dict[str, Any]
DataValues = Annotated[Values, ValuesOf(ImportConfig)]
SpotsValues = Annotated[Values, ValuesOf(SpotsConfig)]
TileValues = Annotated[Values, ValuesOf(TileConfig)]
EmbedValues = Annotated[Values, ValuesOf(EmbedConfig)]
CompleteValues = Annotated[Values, ValuesOf(CompleteConfig)]
TrainValues = Annotated[Values, ValuesOf(TrainConfig)]
IndexValues = Annotated[Values, ValuesOf(IndexConfig)]
ImputeValues = Annotated[Values, ValuesOf(ImputeConfig)]
EvaluateValues = Annotated[Values, ValuesOf(EvaluateConfig)]


class PipelineRun(TrackedRun):
    """Resources of a pipeline."""

    folds_at_once: int | None = Field(default=None, ge=1)
    """Folds that run side by side on Ray. The default is one for each 4 logical CPUs of the cluster. Each fold's
    process needs the memory of one training. No score depends on it."""


class PipelineConfig(StepConfig[PipelineRun]):
    """The configs of the steps; each holds only what differs from the step's defaults."""

    command: ClassVar[str | None] = "pipeline"

    has_default_methods: ClassVar[bool] = False
    """Whether methods are trained where `train` has none."""

    slides: Annotated[str, Location("demo")]
    """A slide table, a folder, glob or prefix of slides, or `demo/<name>` for the table of a demo cohort. Rows with
    `layout` and `counts` are measured sections."""

    data: DataValues | None = None
    """A downloaded data set, as for `raystp import`: its slide table is written to `data.out` first, and `slides` is
    `<data.out>/slides.csv`."""

    spots: SpotsValues = Field(default_factory=dict)
    """As for `raystp spots`. Where all trainings have `targets: cases` and this is empty, no spots are read."""

    tile: TileValues | list[TileValues] = Field(default_factory=dict)
    """As for `raystp tile`; a list makes several artifacts, `tile/<name>-1` and so on unless they have names."""

    embed: EmbedValues | list[EmbedValues] = Field(default_factory=dict)
    """As for `raystp embed`; a list makes several, `embed/<name>-1` and so on unless they have names. A training reads
    all of them, joined, unless its own `embeddings` name some."""

    complete: CompleteValues | None = None
    """As for `raystp complete`: all trainings on spots learn from completed labels, except those with `completed: null`
    and ensembles. Without `split` the sections are `split.train` and `split.validation` of the first training."""

    train: TrainValues | list[TrainValues] | None = None
    """As for `raystp train`; a list trains several models, and the report is about the first. Members of an ensemble
    are `train/<name>` of other models of this list, or of the store. Without it the pipeline ends with the
    embeddings."""

    shared: TrainValues = Field(default_factory=dict)
    """Fields of all trainings, as for `raystp train`; a training's own fields take precedence. An ensemble takes
    `split` only, since its members have the rest."""

    index: IndexValues = Field(default_factory=dict)
    """As for `raystp index`, for each contrastive model."""

    impute: ImputeValues = Field(default_factory=dict)
    """As for `raystp impute`, for each model."""

    evaluate: EvaluateValues = Field(default_factory=dict)
    """As for `raystp evaluate`; on cases, its `cases` are those of the first training."""

    folds: FoldsConfig | None = None
    """Train, predict and evaluate once per fold, and end with a table of all folds: mean, standard deviation and 95 %
    interval. A number, `patient` and `section` are short for `{count: ...}`. `split` of the trainings has no `test`
    then."""

    protocol: PublishedName | None = None
    """A published protocol: it gives sections, folds, panel, labels and retrieval, and scores all folds at the end, as
    `raystp evaluate --protocol` does. Beside it, `folds` may only be the files of the data (`hest-*`). Without `train`,
    the method that the protocol was made for is trained."""

    learning_curve: LearningCurveConfig | None = None
    """Train the same models on fewer sections as well, and show score against number of training sections in the
    report. A list is short for `{sections: [...]}`."""

    run: PipelineRun = Field(default_factory=PipelineRun)

    @field_validator("learning_curve", mode="before")
    @classmethod
    def _curve(cls, given: Any) -> Any:
        return {"sections": given} if isinstance(given, list) else given

    @field_validator("folds", mode="before")
    @classmethod
    def _short(cls, folds: Any) -> Any:
        is_count = folds in ("patient", "section") or (isinstance(folds, int) and not isinstance(folds, bool))
        if isinstance(folds, str | float | list) and not is_count:
            msg = "write a number of folds from 2 on, `patient`, `section`, {count: ..., seed: ...} or {files: ...}"
            raise ValueError(msg)
        return {"count": folds} if is_count else folds

    @model_validator(mode="after")
    def _check_folds(self) -> "PipelineConfig":
        if self.protocol is not None and not self.has_default_methods and not self.models():
            msg = f"`protocol: {self.protocol}` needs `train`: it was made for several methods"
            raise ValueError(msg)
        if self.folds is not None and not self.has_default_methods and not self.models():
            msg = "`folds` needs `train`: there is nothing to cross-validate"
            raise ValueError(msg)
        return self

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed, without `folds`, `protocol` and `learning_curve` where there are none.

        A data set counts by the slides and sections of its table, as any other table. A step's `run` does not count.
        """
        values = _without_runs(super().fingerprint_values())
        values.pop("folds")
        values.pop("data")
        if self.protocol is None:
            values.pop("protocol")
        if self.learning_curve is None:
            values.pop("learning_curve")
        return values if self.folds is None else {**values, "folds": self.folds.computed_values()}

    def manifest_values(self) -> dict[str, object]:
        """Return the config as the manifest stores it, without any `run`."""
        return _without_runs(super().manifest_values())

    def data_set(self) -> ImportConfig | None:
        """Return the import of the data set; raises ConfigError where `slides` is not the table that it writes."""
        if self.data is None:
            return None
        found = ImportConfig.of(self.data, "pipeline: data")
        if found.format not in TABLES:
            msg = f"pipeline: data: format {found.format} is no data set of slides and spots: {', '.join(TABLES)} are"
            raise ConfigError(msg)
        table = f"{str(found.out).rstrip('/')}/slides.csv"
        if self.slides != table:
            msg = f"pipeline: slides: {self.slides}, and `data` writes {table}: set slides to it"
            raise ConfigError(msg)
        return found

    def models(self) -> list[Values]:
        """Return the train configs, each with its own name."""
        given = self.train if isinstance(self.train, list) else [] if self.train is None else [self.train]
        if self.protocol is not None:
            from raystp.steps.pipeline.protocol import own_training, with_protocol  # noqa: PLC0415 -- imports SciPy

            given = own_training(self.protocol) if self.train is None else given
            listed = [with_protocol(self.protocol, over(_shared_with(one, self.shared), one)) for one in given]
        else:
            listed = [over(_shared_with(one, self.shared), one) for one in given]
        if len(listed) == 1:
            return [{"name": self.name, **listed[0]}]
        return [{"name": f"{self.name}-{method_of(one)}", **one} for one in listed]

    def tiles(self) -> list[Values]:
        """Return the tile configs, each with its own name."""
        return self._named(self.tile)

    def embeddings(self) -> list[Values]:
        """Return the embed configs, each with its own name."""
        return self._named(self.embed)

    def title_of_folds(self, count: int) -> str:
        """Return what is held out in so many folds, in words, with the published protocol."""
        under = "" if self.protocol is None else f", protocol {self.protocol}"
        if self.folds is None:
            return f"{count} {'folds' if count > 1 else 'fold'} of the protocol {self.protocol}"
        if self.folds.files is not None:
            return f"{count} folds as {self.folds.files} states them{under}"
        return f"{count} folds of {'one section each' if self.folds.count == 'section' else 'whole patients'}"

    def completion(self) -> Values | None:
        """Return the complete config, with the sections of the first training where it names none."""
        if self.complete is None or not self.models():
            return self.complete
        split = group_of(self.models()[0], "split")
        sides = {side: split[side] for side in ("train", "validation") if split.get(side)}
        return {**({"split": sides} if "train" in sides else {}), **self.complete}

    @property
    def of_cases(self) -> bool:
        """Whether no spots are read: all models learn from labels of whole cases, or there is none."""
        return not self.spots and all(one.get("targets") == "cases" for one in self.models())

    def against(self, measured: str | None) -> Values:
        """Return the targets of `evaluate`: the measured spots, or the table of cases."""
        if measured is not None:
            return {"targets": "spots", "spots": measured}
        return {"targets": "cases", "cases": self.models()[0]["cases"]}

    def of_step(self, kind: Any, role: str, sources: Values, values: Values) -> Any:
        """Return a step's config: the given values over those that the pipeline fills in."""
        variant: type[StepConfig[Any]] = kind.variant({**sources, **values})
        run_fields = set(variant.model_fields["run"].annotation.model_fields)  # type: ignore[union-attr]  # a RunConfig
        shared = {key: value for key, value in self.run.model_dump(exclude_none=True).items() if key in run_fields}
        filled = {key: value for key, value in sources.items() if key in variant.model_fields}
        run_part = {**shared, **(values.get("run") or {})}
        return kind.of({"name": self.name, **filled, **values, "run": run_part}, f"pipeline: {role}")

    def check_absolute(self) -> None:
        """Look into the steps' configs as well."""
        from raystp.steps.pipeline.chain import planned_steps  # noqa: PLC0415 -- it imports this module

        super().check_absolute()
        if (data := self.data_set()) is not None:
            data.check_absolute()
        for config in planned_steps(self):
            config.check_absolute()

    def check_names(self) -> None:
        """Raise ConfigError where two artifacts of one step have the same name."""
        for step, named in (("tile", self.tiles()), ("embed", self.embeddings()), ("train", self.models())):
            names = [one["name"] for one in named]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                msg = f"pipeline: {step}: two entries have the name {', '.join(twice)}: set `name` of one"
                raise ConfigError(msg)

    def _named(self, given: Values | list[Values]) -> list[Values]:
        if isinstance(given, dict):
            return [{"name": self.name, **given}]
        if len(given) == 1:
            return [{"name": self.name, **given[0]}]
        return [{"name": f"{self.name}-{number}", **one} for number, one in enumerate(given, 1)]


def method_of(values: Values) -> str:
    """Return the name of a training's method."""
    return str(values.get("model", CASES_DEFAULT if values.get("targets") == "cases" else DEFAULT))


def is_ensemble(values: Values) -> bool:
    """Say whether a training combines finished models."""
    method = METHODS.get(method_of(values))
    return method is not None and method.combines_models


def _without_runs(values: Values) -> Values:
    """Return values without the `run` of each step's config."""
    return {name: _without_run(value) for name, value in values.items()}


def _without_run(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_run(one) for one in value]
    return {key: one for key, one in value.items() if key != "run"} if isinstance(value, dict) else value


def _shared_with(own: Values, shared: Values) -> Values:
    return {key: value for key, value in shared.items() if key == "split"} if is_ensemble(own) else shared


def group_of(values: Values, key: str) -> Values:
    """Return a group of fields, empty for what is none: the step's own config refuses that."""
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def over(shared: Values, own: Values) -> Values:
    """Return the shared values of a step, overridden part by part by its own."""
    both = {key: {**shared[key], **own[key]} for key in shared.keys() & own.keys() if isinstance(own[key], dict)}
    return {**shared, **own, **both}
