"""pipeline: all steps as one run, from the slide table to the report.

Each part of the config is the config of a step. The pipeline fills in the artifacts that a step reads from earlier
steps, its name, the store and MLflow's address. Finished steps are not repeated, so an interrupted pipeline continues
where it stopped.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raystp.artifacts import Artifact, create_or_open
from raystp.cluster.session import session
from raystp.models.methods import METHODS
from raystp.steps.embed import step as embed
from raystp.steps.evaluate import step as evaluate
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.pipeline.config import PipelineConfig, Values, method_of, planned, read_by
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.steps.train import step as train

logger = logging.getLogger("raystp")

STEP = "pipeline"
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
    planned(config)
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
        model = self._step(train, f"train {name}", read_by(values, sources), values)
        inputs = {**sources, "model": model, "name": name}
        if "encoder" in values:
            tower = {**self.config.embed, "also": {}, "encoder": {"trained": model}}
            inputs["embeddings"] = self._step(embed, f"embed {name}", inputs, tower)
        if METHODS[method_of(values)].needs_index:
            inputs["index"] = self._step(index, f"index {name}", inputs, self.config.index)
        return self._step(impute, f"impute {name}", inputs, self.config.impute)

    def _step(self, step: Any, role: str, sources: Values, values: Values) -> str:
        """Run a step and return the URI of its artifact."""
        logger.info(f"pipeline: {role}")
        artifact: Artifact = step.run(self.config.of_step(step.CONFIG, role, sources, values))
        self.found[role] = artifact
        return artifact.path.uri
