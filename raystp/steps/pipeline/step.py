"""pipeline: all steps as one run, from the slide table to the report.

Each part of the config is the config of a step. The pipeline fills in the artifacts that a step reads from earlier
steps, its name, the store and MLflow's address. Finished steps are not repeated, so an interrupted pipeline continues
where it stopped.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from raystp.artifacts import Artifact, create_or_open
from raystp.cluster.session import session
from raystp.config import Location, StepConfig
from raystp.config_values import ValuesOf
from raystp.errors import ConfigError
from raystp.models.methods import DEFAULT, METHODS
from raystp.steps.embed import step as embed
from raystp.steps.evaluate import step as evaluate
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.run_config import TrackedRun
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.steps.train import step as train

logger = logging.getLogger("raystp")

STEP = "pipeline"
Values = dict[str, Any]
SpotsValues = Annotated[Values, ValuesOf(spots.CONFIG)]
TileValues = Annotated[Values, ValuesOf(tile.CONFIG)]
EmbedValues = Annotated[Values, ValuesOf(embed.CONFIG)]
TrainValues = Annotated[Values, ValuesOf(train.CONFIG)]
IndexValues = Annotated[Values, ValuesOf(index.CONFIG)]
ImputeValues = Annotated[Values, ValuesOf(impute.CONFIG)]
EvaluateValues = Annotated[Values, ValuesOf(evaluate.CONFIG)]


class PipelineConfig(StepConfig[TrackedRun]):
    """The configs of the steps; each holds only what differs from the step's defaults."""

    slides: Annotated[str, Location("demo")]
    """The slide table, a CSV; rows with `layout` and `counts` are measured sections. `demo/<name>`: a demo's own."""

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
        return [{"name": f"{self.name}-{_method_of(one)}", **one} for one in listed]

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
        for config in _planned(self):
            config.check_absolute()


CONFIG = PipelineConfig


def run(config: PipelineConfig) -> Artifact:
    """Run all steps that are not done; write a manifest that lists their artifacts and failures."""
    found = path(config)
    writer = create_or_open(config, STEP, found)
    if isinstance(writer, Artifact):
        return writer
    failures = [row for one in found.values() for row in one.failures().to_pylist()]
    scored = found["evaluate"]
    summary = "\n".join([scored.manifest.notes["summary"], *(f"{role}: {one.path}" for role, one in found.items())])
    notes: dict[str, object] = {"summary": summary}
    if warnings := warnings_of_all(found.values()):
        notes["warnings"] = warnings
    return writer.finish({"steps": len(found), **scored.manifest.rows}, failures, notes)


def warnings_of_all(artifacts: Iterable[Artifact]) -> dict[str, list[str]]:
    """Return the warnings of all steps by slide or section, each once."""
    warnings: dict[str, list[str]] = {}
    for one in artifacts:
        for name, texts in one.manifest.notes.get("warnings", {}).items():
            known = warnings.setdefault(name, [])
            known += [text for text in texts if text not in known]
    return warnings


def path(config: PipelineConfig) -> dict[str, Artifact]:
    """Run the steps in turn, each on the artifacts of the steps before it; return role -> artifact.

    All configs are checked before the first step starts.
    """
    _planned(config)
    with session(config.run.address):
        return _PipelineRun(config, {}).walk()


@dataclass(frozen=True)
class _PipelineRun:
    config: PipelineConfig
    found: dict[str, Artifact]

    def walk(self) -> dict[str, Artifact]:
        config = self.config
        slides = {"slides": config.slides}
        measured = None if config.of_cases else self._step(spots, "spots", slides, config.spots)
        sources = {"spots": measured} if measured is not None else {}
        tiles = self._step(tile, "tile", slides | sources, config.tile)
        embeddings = self._step(embed, "embed", {"tiles": tiles}, config.embed)
        sources |= {"tiles": tiles, "embeddings": embeddings}
        predictions = [self._model(one, sources) for one in config.models()]
        scored = {**config.against(measured), "predictions": predictions}
        self._step(evaluate, "evaluate", scored, config.evaluate)
        return self.found

    def _model(self, values: Values, sources: Values) -> str:
        """Train one model and predict with it; a model with a trained image encoder embeds the tiles with that."""
        name = values["name"]
        model = self._step(train, f"train {name}", _read_by(values, sources), values)
        inputs = {**sources, "model": model, "name": name}
        if "encoder" in values:
            tower = {**self.config.embed, "also": {}, "encoder": {"trained": model}}
            inputs["embeddings"] = self._step(embed, f"embed {name}", inputs, tower)
        if METHODS[_method_of(values)].needs_index:
            inputs["index"] = self._step(index, f"index {name}", inputs, self.config.index)
        return self._step(impute, f"impute {name}", inputs, self.config.impute)

    def _step(self, step: Any, role: str, sources: Values, values: Values) -> str:
        """Run a step and return the URI of its artifact."""
        logger.info(f"pipeline: {role}")
        artifact: Artifact = step.run(self.config.of_step(step.CONFIG, role, sources, values))
        self.found[role] = artifact
        return artifact.path.uri


def _method_of(values: Values) -> str:
    return str(values.get("model", DEFAULT))


def _over(shared: Values, own: Values) -> Values:
    """Return the shared fields, overridden part by part by a training's own."""
    both = {key: {**shared[key], **own[key]} for key in shared.keys() & own.keys() if isinstance(own[key], dict)}
    return {**shared, **own, **both}


def _read_by(values: Values, sources: Values) -> Values:
    """Return what a training reads: tiles where it trains an encoder, else embeddings; on cases, no spots."""
    on_cases = values.get("targets") == "cases"
    left_out = {"embeddings" if "encoder" in values else "tiles"} | ({"spots"} if on_cases else set())
    return {key: value for key, value in sources.items() if key not in left_out}


def _planned(config: PipelineConfig) -> list[Any]:
    """Return all configs, with artifacts by name; raises ConfigError with the faults of all steps."""
    at = {step: f"{step}/{config.name}" for step in ("spots", "tile", "embed", "train", "index", "impute")}
    measured = None if config.of_cases else at["spots"]
    sources = {"spots": measured} if measured is not None else {}
    slides = {"slides": config.slides, **sources}
    images = {"tiles": at["tile"], "embeddings": at["embed"]}
    made = {"model": at["train"], "index": at["index"], "predictions": [at["impute"]]}
    steps: list[tuple[Any, str, Values, Values]] = [
        *([(spots, "spots", slides, config.spots)] if measured is not None else []),
        (tile, "tile", slides, config.tile),
        (embed, "embed", images, config.embed),
        *((train, f"train {one['name']}", _read_by(one, sources | images), one) for one in config.models()),
        *([(index, "index", sources | images | made, config.index)] if measured is not None else []),
        (impute, "impute", sources | images | made, config.impute),
        (evaluate, "evaluate", images | made | config.against(measured), config.evaluate),
    ]
    planned, faults = [], []
    for step, role, known, values in steps:
        try:
            planned.append(config.of_step(step.CONFIG, role, known, values))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return planned
