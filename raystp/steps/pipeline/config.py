"""Configuration of `raystp pipeline`: a part for each step, and how the pipeline fills in the others' fields."""

from typing import Annotated, Any

from pydantic import Field

from raystp.config import Location, StepConfig
from raystp.config_values import ValuesOf
from raystp.errors import ConfigError
from raystp.models.methods import DEFAULT
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.index.config import IndexConfig
from raystp.steps.run_config import TrackedRun
from raystp.steps.spots.config import SpotsConfig
from raystp.steps.tile.config import TileConfig
from raystp.steps.train.config import TrainConfig

Values = dict[str, Any]
SpotsValues = Annotated[Values, ValuesOf(SpotsConfig)]
TileValues = Annotated[Values, ValuesOf(TileConfig)]
EmbedValues = Annotated[Values, ValuesOf(EmbedConfig)]
TrainValues = Annotated[Values, ValuesOf(TrainConfig)]
IndexValues = Annotated[Values, ValuesOf(IndexConfig)]
ImputeValues = Annotated[Values, ValuesOf(ImputeConfig)]
EvaluateValues = Annotated[Values, ValuesOf(EvaluateConfig)]


class PipelineConfig(StepConfig[TrackedRun]):
    """The configs of the steps; each holds only what differs from the step's defaults."""

    slides: Annotated[str, Location("demo")]
    """As for `raystp tile`; rows of a table with `layout` and `counts` are measured sections."""

    spots: SpotsValues = Field(default_factory=dict)
    """As for `raystp spots`. Where all trainings have `targets: cases` and this is empty, no spots are read."""

    tile: TileValues = Field(default_factory=dict)
    """As for `raystp tile`."""

    embed: EmbedValues = Field(default_factory=dict)
    """As for `raystp embed`."""

    train: TrainValues | list[TrainValues]
    """As for `raystp train`; a list trains several models, and the report is about the first."""

    shared: TrainValues = Field(default_factory=dict)
    """Fields of all trainings, as for `raystp train`; a training's own fields take precedence."""

    index: IndexValues = Field(default_factory=dict)
    """As for `raystp index`, for each contrastive model."""

    impute: ImputeValues = Field(default_factory=dict)
    """As for `raystp impute`, for each model."""

    evaluate: EvaluateValues = Field(default_factory=dict)
    """As for `raystp evaluate`; on cases, its `cases` are those of the first training."""

    run: TrackedRun = Field(default_factory=TrackedRun)

    def models(self) -> list[Values]:
        """Return the train configs, each with its own name."""
        listed = [_over(self.shared, one) for one in (self.train if isinstance(self.train, list) else [self.train])]
        if len(listed) == 1:
            return [{"name": self.name, **listed[0]}]
        return [{"name": f"{self.name}-{method_of(one)}", **one} for one in listed]

    @property
    def of_cases(self) -> bool:
        """Whether all models learn from labels of whole cases."""
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
        super().check_absolute()
        for config in planned(self):
            config.check_absolute()


def method_of(values: Values) -> str:
    """Return the method of a train config's values."""
    return str(values.get("model", DEFAULT))


def read_by(values: Values, sources: Values) -> Values:
    """Return what a training reads: tiles where it trains an encoder, else embeddings; on cases, no spots."""
    on_cases = values.get("targets") == "cases"
    left_out = {"embeddings" if "encoder" in values else "tiles"} | ({"spots"} if on_cases else set())
    return {key: value for key, value in sources.items() if key not in left_out}


def planned(config: PipelineConfig) -> list[Any]:
    """Return the configs of all steps, with artifacts by name; raises ConfigError with the faults of all steps."""
    at = {step: f"{step}/{config.name}" for step in ("spots", "tile", "embed", "train", "index", "impute")}
    measured = None if config.of_cases else at["spots"]
    sources = {"spots": measured} if measured is not None else {}
    slides = {"slides": config.slides, **sources}
    images = {"tiles": at["tile"], "embeddings": at["embed"]}
    made = {"model": at["train"], "index": at["index"], "predictions": [at["impute"]]}
    steps: list[tuple[Any, str, Values, Values]] = [
        *([(SpotsConfig, "spots", slides, config.spots)] if measured is not None else []),
        (TileConfig, "tile", slides, config.tile),
        (EmbedConfig, "embed", images, config.embed),
        *((TrainConfig, f"train {one['name']}", read_by(one, sources | images), one) for one in config.models()),
        *([(IndexConfig, "index", sources | images | made, config.index)] if measured is not None else []),
        (ImputeConfig, "impute", sources | images | made, config.impute),
        (EvaluateConfig, "evaluate", images | made | config.against(measured), config.evaluate),
    ]
    configs, faults = [], []
    for kind, role, known, values in steps:
        try:
            configs.append(config.of_step(kind, role, known, values))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return configs


def _over(shared: Values, own: Values) -> Values:
    """Return the shared fields, overridden part by part by a training's own."""
    both = {key: {**shared[key], **own[key]} for key in shared.keys() & own.keys() if isinstance(own[key], dict)}
    return {**shared, **own, **both}
