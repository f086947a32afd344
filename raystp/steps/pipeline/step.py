"""pipeline: the whole path as one run, from the slide table to the report.

Each part of the config is that of a step; what a step reads from an earlier one, its name, the store and MLflow's
address are filled in. Every step that is done already is left alone, so a pipeline that was stopped goes on where it
stopped.
"""

import logging
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from raystp.artifacts import Artifact, create_or_open
from raystp.cluster.session import session
from raystp.config import Location, StepConfig
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


class PipelineConfig(StepConfig[TrackedRun]):
    """The steps' own configs, as far as they differ from their defaults."""

    slides: Annotated[str, Location("demo")]
    """The slide table, a CSV; rows with `layout` and `counts` are measured sections. `demo/<name>`: a demo's own."""

    spots: Values = Field(default_factory=dict)
    """As for `raystp spots`. Where all trainings have `targets: cases` and this is empty, no spots are read."""

    tile: Values = Field(default_factory=dict)
    """As for `raystp tile`."""

    embed: Values = Field(default_factory=dict)
    """As for `raystp embed`."""

    train: Values | list[Values]
    """As for `raystp train`; a list trains several models, and the first is the one that the report is about."""

    shared: Values = Field(default_factory=dict)
    """What all trainings have, as for `raystp train`; what one says of itself comes first."""

    index: Values = Field(default_factory=dict)
    """As for `raystp index`, for each contrastive model."""

    impute: Values = Field(default_factory=dict)
    """As for `raystp impute`, for each model."""

    evaluate: Values = Field(default_factory=dict)
    """As for `raystp evaluate`; on cases, its `cases` are those of the first training."""

    run: TrackedRun = Field(default_factory=TrackedRun)

    def models(self) -> list[Values]:
        """Return the train configs, each under a name of its own."""
        listed = [_over(self.shared, one) for one in (self.train if isinstance(self.train, list) else [self.train])]
        if len(listed) == 1:
            return [{"name": self.name, **listed[0]}]
        return [{"name": f"{self.name}-{_method_of(one)}", **one} for one in listed]

    @property
    def of_cases(self) -> bool:
        """Whether models learn from labels of whole cases alone."""
        return not self.spots and all(one.get("targets") == "cases" for one in self.models())

    def against(self, measured: str | None) -> Values:
        """Return what predictions are scored against, as `evaluate` names it."""
        if measured is not None:
            return {"targets": "spots", "spots": measured}
        return {"targets": "cases", "cases": self.models()[0]["cases"]}

    def of_step(self, kind: Any, role: str, sources: Values, values: Values) -> Any:
        """Return a step's config, of the class `kind`: what is asked for, over what the pipeline fills in."""
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
    """Run every step that is not done, and leave a manifest that names what they made and what failed."""
    found = path(config)
    draft = create_or_open(config, STEP, found)
    if isinstance(draft, Artifact):
        return draft
    failures = [row for one in found.values() for row in one.failures().to_pylist()]
    scored = found["evaluate"]
    summary = "\n".join([scored.manifest.notes["summary"], *(f"{role}: {one.path}" for role, one in found.items())])
    return draft.finish({"steps": len(found), **scored.manifest.rows}, failures, {"summary": summary})


def path(config: PipelineConfig) -> dict[str, Artifact]:
    """Run the steps one after the other, each on the very artifacts that the ones before it returned.

    Every step's config is checked before the first begins.
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
        """Train one model and predict with it; one that is trained on pixels embeds with its own tower."""
        name = values["name"]
        model = self._step(train, f"train {name}", _read_by(values, sources), values)
        asked = {**sources, "model": model, "name": name}
        if "encoder" in values:
            tower = {**self.config.embed, "also": {}, "encoder": {"trained": model}}
            asked["embeddings"] = self._step(embed, f"embed {name}", asked, tower)
        if METHODS[_method_of(values)].needs_index:
            asked["index"] = self._step(index, f"index {name}", asked, self.config.index)
        return self._step(impute, f"impute {name}", asked, self.config.impute)

    def _step(self, step: Any, role: str, sources: Values, values: Values) -> str:
        """Run a step and return the folder of what it made."""
        logger.info(f"pipeline: {role}")
        artifact: Artifact = step.run(self.config.of_step(step.CONFIG, role, sources, values))
        self.found[role] = artifact
        return artifact.path.uri


def _method_of(values: Values) -> str:
    return str(values.get("model", DEFAULT))


def _over(shared: Values, own: Values) -> Values:
    """Return a training's fields over the shared ones, part by part."""
    both = {key: {**shared[key], **own[key]} for key in shared.keys() & own.keys() if isinstance(own[key], dict)}
    return {**shared, **own, **both}


def _read_by(values: Values, sources: Values) -> Values:
    """Return what a training reads: tiles where it trains an encoder, else embeddings; on cases, no spots."""
    on_cases = values.get("targets") == "cases"
    left_out = {"embeddings" if "encoder" in values else "tiles"} | ({"spots"} if on_cases else set())
    return {key: value for key, value in sources.items() if key not in left_out}


def _planned(config: PipelineConfig) -> list[Any]:
    """Return every step's config, the artifacts by name; raises ConfigError with the faults of all steps."""
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
