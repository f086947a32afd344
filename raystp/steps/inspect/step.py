"""inspect: a reference, file or folder -> what it is, what made it, and whether and how it would be read."""

import json
from dataclasses import replace

from raystp.artifacts import resolve
from raystp.errors import ConfigError
from raystp.slides.inputs.ids import stem_of
from raystp.steps.inspect.config import ARTIFACTS, InspectConfig
from raystp.steps.inspect.files import report_of_file, report_of_folder
from raystp.steps.inspect.lineage import artifact_of, chain_of, facts_of
from raystp.steps.inspect.report import Inspection
from raystp.steps.printed import Printed
from raystp.storage import StoragePath

STEP = "inspect"
CONFIG = InspectConfig

_TAKEN_BY = {
    "spots": "`spots` of tile, train, index and evaluate",
    "tile": "`tiles` of embed and train",
    "embed": "`embeddings` of train, index and impute",
    "complete": "`completed` of train",
    "train": "`model` of index, impute, predict and serve",
    "index": "`index` of impute and serve",
    "impute": "`predictions` of evaluate",
    "demo": "`slides` of every step",
}


def run(config: InspectConfig) -> Printed:
    """Print the report; a thing that would not be read counts as a failure."""
    found = inspect_item(config.item, config.run.store)
    text = json.dumps(found.values(), indent=1, default=str) + "\n" if config.json else found.text()
    return Printed(text, failures=int(bool(found.problem)))


def inspect_item(item: str, store: str) -> Inspection:
    """Return the report on an artifact's reference, or on a file or folder. Raises ConfigError if there is none."""
    step, _, name = item.partition("/")
    if step in ARTIFACTS and name and "/" not in name:
        return _of_artifact(resolve(store, item, step).path)
    path = StoragePath.of(item)
    if not path.exists():
        msg = f"item: there is nothing at {path}; give a path, a URI, or {' | '.join(ARTIFACTS)}/<name> in the store"
        raise ConfigError(msg)
    if (path / "manifest.json").exists():
        return _of_artifact(path)
    found = report_of_folder(path) if path.is_folder() else report_of_file(path)
    return _with_origin(found, path)


def _of_artifact(path: StoragePath) -> Inspection:
    artifact = artifact_of(path)
    assert artifact is not None  # its manifest exists
    step = artifact.manifest.step
    kinds = {"train": "model", "index": "reference index"}
    kind = f"{kinds[step]}, artifact of {step}" if step in kinds else f"artifact of {step}"
    facts = {"artifact": artifact.manifest.folder, **facts_of(artifact)}
    return Inspection(str(path), kind, _TAKEN_BY.get(step, ""), facts=facts, made_from=chain_of(artifact)[1:])


def _with_origin(found: Inspection, path: StoragePath) -> Inspection:
    """Return the report of a file with the artifact that it is part of, and that one's inputs for its slide."""
    artifact = artifact_of(path)
    if artifact is None:
        return found
    facts = {**found.facts, "part of": artifact.manifest.folder}
    return replace(found, facts=facts, made_from=chain_of(artifact, stem_of(path.name)))
