"""The steps of a pipeline in order: each reads the artifacts of the steps before it.

The same chain is walked twice: once with the configs alone, so that every fault is found before the first step starts,
and once with the steps. The steps of a fold may be walked in another process (`folds.runs`). Artifacts of the pipeline
are named `step/name` in its config. Ensembles are trained last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError, RaystpError, some
from raystp.models.methods import METHODS
from raystp.steps.complete.config import CompleteConfig
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.index.config import IndexConfig
from raystp.steps.pipeline.config import PipelineConfig, Values, is_ensemble, method_of
from raystp.steps.pipeline.folds.fold import Fold, check_covariate, check_folds, folds_of, planned_folds
from raystp.steps.pipeline.learning_curve import CurvePoint, check_curve, curve_points, planned_points
from raystp.steps.spots.config import SpotsConfig
from raystp.steps.tile.config import TileConfig
from raystp.steps.train.config import TrainConfig
from raystp.storage import StoragePath

KINDS: dict[str, Any] = {
    "spots": SpotsConfig,
    "tile": TileConfig,
    "embed": EmbedConfig,
    "complete": CompleteConfig,
    "train": TrainConfig,
    "index": IndexConfig,
    "impute": ImputeConfig,
    "evaluate": EvaluateConfig,
}
"""Step -> its config."""

Execute = Callable[[str, str, Values, Values], Artifact | None]
"""Step, role, what the pipeline fills in, the config's values -> its artifact; None where no step is run."""


@dataclass(frozen=True)
class ScoreInputs:
    """What the trainings, predictions and evaluations of a pipeline read, of all folds alike."""

    sources: Values
    """Field of a step's config -> reference."""
    measured: str | None
    """Reference to the measured spots; None for cases."""
    embeddings: list[str]


@dataclass
class StepChain:
    """A walk through the steps of a pipeline."""

    config: PipelineConfig
    execute: Execute
    made: dict[str, str] = field(default_factory=dict)
    """`step/name` of each artifact of the pipeline -> the reference that later steps read."""
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    """Reference -> artifact, of those that exist."""
    folds: list[Fold] = field(default_factory=list)
    """The folds, once they are known."""
    curve: list[str] = field(default_factory=list)
    """References to the evaluations of the learning curve."""
    panels: StoragePath | None = None
    """Where a protocol's panel is written; None for the store's folder of panels."""
    foreign: list[tuple[str, str, str]] = field(default_factory=list)
    """References to artifacts that the pipeline does not make: role of the reader, step, reference."""

    def walk(self) -> None:
        """Run all steps in order, fold after fold."""
        inputs = self.prepare()
        if not self.config.models():
            return
        self.score_curve(inputs)
        self.finish(inputs, [self.score(inputs, fold) for fold in self.find_folds(inputs)])

    def prepare(self) -> ScoreInputs:
        """Run the steps that all folds share."""
        config = self.config
        slides: Values = {"slides": config.slides}
        measured = None if config.of_cases else self._step("spots", "spots", slides, config.spots)
        sources: Values = {"spots": measured} if measured is not None else {}
        tiles = [
            self._step("tile", _role("tile", one, config.tiles()), slides | sources, one) for one in config.tiles()
        ]
        sources["tiles"] = tiles[0]
        embeddings = [self._embed(one, sources) for one in config.embeddings()]
        sources["embeddings"] = embeddings[0] if len(embeddings) == 1 else embeddings
        if (completion := config.completion()) is not None and measured is not None:
            sources["completed"] = self._step("complete", "complete", sources, completion)
        return ScoreInputs(sources, measured, embeddings)

    def score(self, inputs: ScoreInputs, fold: Fold | None) -> list[str]:
        """Train all models, predict with them and evaluate: once, or for one fold; return the predictions."""
        config, sources = self.config, inputs.sources
        predictions = {one["name"]: self._model(one, sources, fold) for one in sorted(config.models(), key=is_ensemble)}
        ordered = [predictions[one["name"]] for one in config.models()]
        scored = {**config.against(inputs.measured), "predictions": ordered}
        if fold is None:
            curve = {"curve": self.curve} if self.curve else {}
            self._step("evaluate", "evaluate", scored | curve, config.evaluate)
        else:
            evaluation = fold.evaluation(config.evaluate, config.name)
            made = self._step("evaluate", f"evaluate {fold.role}", scored, evaluation)
            self.curve += [made] if isinstance(fold, CurvePoint) else []
        return ordered

    def score_curve(self, inputs: ScoreInputs) -> None:
        """Score the points of the learning curve, where the config has one."""
        curve = self.config.learning_curve
        if curve is None:
            return
        check_curve(self.config)
        read = [inputs.measured, *inputs.embeddings]
        is_known = all(name in self.artifacts for name in read if name is not None)
        points = planned_points(curve)
        if is_known and inputs.measured is not None:
            points = curve_points(self.config, self.artifacts[inputs.measured], inputs.embeddings)
        for point in points:
            self.score(inputs, point)

    def finish(self, inputs: ScoreInputs, predictions: Sequence[Sequence[str]]) -> None:
        """Score all folds under the published protocol, where the config has one; `predictions` are those of folds."""
        config = self.config
        if config.protocol is None:
            return
        listed = [fold[model] for model in range(len(config.models())) for fold in predictions]
        scored = {**config.against(inputs.measured), "predictions": listed, "protocol": config.protocol}
        name = config.evaluate.get("name", config.name)
        self._step("evaluate", f"evaluate {config.protocol}", scored, {"name": name})

    def find_folds(self, inputs: ScoreInputs) -> Sequence[Fold | None]:
        """Return the folds; while the embeddings do not exist, what is known of them; without folds, one None."""
        config = self.config
        if config.folds is None and config.protocol is None:
            return [None]
        check_folds(config)
        read = [inputs.measured, *inputs.embeddings]
        is_known = all(name in self.artifacts for name in read if name is not None)
        measured = self.artifacts[inputs.measured] if is_known and inputs.measured is not None else None
        if config.protocol is not None:
            return self._protocol_folds(measured, inputs.embeddings)
        if not is_known:
            return planned_folds(config)
        self.folds = folds_of(config, measured, inputs.embeddings)
        return self.folds

    def _protocol_folds(self, measured: Artifact | None, embeddings: list[str]) -> Sequence[Fold]:
        from raystp.steps.pipeline import protocol  # noqa: PLC0415 -- imports SciPy; configs do not

        protocol.check_protocol(self.config)
        if measured is None:
            return protocol.planned_protocol_folds(self.config)
        panels = self.panels or StoragePath.of(self.config.run.store) / protocol.PANELS
        self.folds = protocol.protocol_folds(self.config, measured, embeddings, panels)
        return self.folds

    def _embed(self, values: Values, sources: Values) -> str:
        role, tiles = _role("embed", values, self.config.embeddings()), self.config.tiles()
        if len(tiles) > 1 and "tiles" not in values:
            names = some([f"tile/{one['name']}" for one in tiles])
            msg = f"pipeline: {role}: there are several tilings: set `tiles` to one of {names}"
            raise ConfigError(msg)
        return self._step("embed", role, {"tiles": sources["tiles"]}, self._exact(values, role, tiles="tile"))

    def _model(self, values: Values, sources: Values, fold: Fold | None) -> str:
        """Train one model and predict with it; a model with a trained image encoder embeds the tiles with that."""
        whole = values["name"]
        values = values if fold is None else fold.training(values)
        name, role = values["name"], f"train {values['name']}"
        values = self._exact(values, role, embeddings="embed", tiles="tile", completed="complete")
        values = self._with_members(values, role)
        artifact = self.execute("train", role, _read_by(values, sources), values)
        model = self._made("train", name, artifact)
        self.made[f"train/{whole}"] = model  # an ensemble of a fold has the members of that fold
        inputs = {**sources, "model": model, "name": name}
        if is_ensemble(values) and artifact is not None:
            inputs["embeddings"] = _read_embeddings(artifact)
        elif values.get("embeddings") is not None:
            inputs["embeddings"] = values["embeddings"]
        if "encoder" in values:
            inputs["tiles"] = values.get("tiles", sources["tiles"])
            own = {key: value for key, value in self.config.embeddings()[0].items() if key not in {"name", "tiles"}}
            tower = {**own, "also": {}, "encoder": {"trained": model}}
            inputs["embeddings"] = self._step("embed", f"embed {name}", inputs, tower)
        method = METHODS.get(method_of(values))  # a training of an unknown method has a fault of its own
        if method is not None and method.needs_index:
            inputs["index"] = self._step("index", f"index {name}", _indexed(values, inputs), self.config.index)
        only = {} if fold is None or not fold.slides else {"slides": list(fold.slides)}
        return self._step("impute", f"impute {name}", inputs, {**self.config.impute, **only})

    def _with_members(self, values: Values, role: str) -> Values:
        """Return an ensemble's values with exact references to the members that the pipeline trains."""
        if not is_ensemble(values):
            return values
        method = method_of(values)
        options = values.get(method) or {}
        members = options.get("members")
        if not isinstance(members, list):
            return values
        return {**values, method: {**options, "members": [self._reference(one, "train", role) for one in members]}}

    def _exact(self, values: Values, role: str, **steps: str) -> Values:
        """Return the values with exact references to the pipeline's own artifacts, in these fields."""
        exact: Values = {}
        for key, step in steps.items():
            given = values.get(key)
            if isinstance(given, str):
                exact[key] = self._reference(given, step, role)
            elif isinstance(given, list | tuple):
                exact[key] = [self._reference(one, step, role) for one in given]
        return {**values, **exact}

    def _reference(self, given: Any, step: str, role: str) -> Any:
        if given in self.made:
            return self.made[given]
        self.foreign.append((role, step, str(given)))
        return given

    def _step(self, step: str, role: str, sources: Values, values: Values) -> str:
        """Run a step and return the reference of its artifact."""
        name = values.get("name") or sources.get("name") or self.config.name
        return self._made(step, name, self.execute(step, role, sources, values))

    def _made(self, step: str, name: str, artifact: Artifact | None) -> str:
        planned = f"{step}/{name}"
        self.made[planned] = planned if artifact is None else artifact.path.uri
        if artifact is not None:
            self.artifacts[self.made[planned]] = artifact
        return self.made[planned]


def planned_steps(config: PipelineConfig) -> list[Any]:
    """Return all configs, with artifacts by name; raises ConfigError with the faults of all steps."""
    return _plan(config)[0]


def check_references(config: PipelineConfig) -> None:
    """Raise ConfigError for an artifact that the pipeline reads, and that neither it nor the store has.

    Also for a covariate of the folds that the slide table lacks.
    """
    faults = []
    for role, step, given in _plan(config)[1].foreign:
        try:
            resolve(config.run.store, given, step)
        except RaystpError as error:
            faults.append(f"pipeline: {role}: {error}; no earlier step of the pipeline makes it")
    if faults:
        raise ConfigError("\n".join(faults))
    check_covariate(config)


def _plan(config: PipelineConfig) -> tuple[list[Any], StepChain]:
    planned, faults = [], []

    def plan(step: str, role: str, sources: Values, values: Values) -> None:
        try:
            planned.append(config.of_step(KINDS[step], role, sources, values))
        except ConfigError as error:
            faults.append(str(error))

    config.check_names()
    chain = StepChain(config, plan)
    chain.walk()
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return planned, chain


def _role(step: str, values: Values, listed: list[Values]) -> str:
    return step if len(listed) == 1 else f"{step} {values['name']}"


def _read_embeddings(model: Artifact) -> list[str]:
    from raystp.steps.embedding_source import input_folders  # noqa: PLC0415 -- imports SciPy; configs do not

    return input_folders(model.manifest.inputs, "images")


def _read_by(values: Values, sources: Values) -> Values:
    """Return what a training reads: tiles where it trains an encoder, else embeddings; on cases, no spots."""
    if is_ensemble(values):
        return {key: sources[key] for key in ("spots",) if key in sources}
    on_cases = values.get("targets") == "cases"
    left_out = {"embeddings" if "encoder" in values else "tiles"} | ({"spots", "completed"} if on_cases else set())
    return {key: value for key, value in sources.items() if key not in left_out}


def _indexed(values: Values, sources: Values) -> Values:
    """Return what an index is built from: measured spots, or the table of cases that the model was trained on."""
    if values.get("targets") != "cases":
        return sources
    return {**{key: value for key, value in sources.items() if key != "spots"}, "cases": values.get("cases")}
