"""pipeline: all steps as one run, from the slide table to the report.

Each part of the config is the config of a step. The pipeline fills in the artifacts that a step reads from earlier
steps, its name, the store and MLflow's address. Finished steps are not repeated, so an interrupted pipeline continues
where it stopped.
"""

import logging
from collections.abc import Iterable
from typing import Any

from raystp.artifacts import Artifact, create_or_open
from raystp.cluster.session import session
from raystp.steps.complete import step as complete
from raystp.steps.embed import step as embed
from raystp.steps.evaluate import step as evaluate
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.pipeline.chain import StepChain, check_references
from raystp.steps.pipeline.config import PipelineConfig, Values
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.steps.train import step as train

logger = logging.getLogger("raystp")

STEP = "pipeline"
CONFIG = PipelineConfig
STEPS: dict[str, Any] = {one.STEP: one for one in (spots, tile, embed, complete, train, index, impute, evaluate)}


def run(config: PipelineConfig) -> Artifact:
    """Run all steps that are not done; write a manifest that lists their artifacts and failures."""
    found = path(config)
    writer = create_or_open(config, STEP, found)
    if isinstance(writer, Artifact):
        return writer
    failures = [row for one in found.values() for row in one.failures().to_pylist()]
    last = list(found.values())[-1]
    head = [last.manifest.notes["summary"]] if "summary" in last.manifest.notes else []
    summary = "\n".join([*head, *(f"{role}: {one.path}" for role, one in found.items())])
    notes: dict[str, object] = {"summary": summary}
    if warnings := warnings_of_all(found.values()):
        notes["warnings"] = warnings
    return writer.finish({"steps": len(found), **last.manifest.rows}, failures, notes)


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

    All configs, and all references to artifacts that exist already, are checked before the first step starts.
    """
    check_references(config)
    found: dict[str, Artifact] = {}

    def execute(step: str, role: str, sources: Values, values: Values) -> Artifact:
        logger.info(f"pipeline: {role}")
        found[role] = STEPS[step].run(config.of_step(STEPS[step].CONFIG, role, sources, values))
        return found[role]

    with session(config.run.address):
        StepChain(config, execute).walk()
    return found
