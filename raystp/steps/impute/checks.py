"""What an `impute` config asks of its model, index and stored neighbours, checked before any slide is predicted."""

from collections.abc import Mapping
from typing import Any

from raystp.artifacts import Artifact
from raystp.errors import ConfigError, ModelError, some
from raystp.expression.embeddings.join import input_roles
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.train.retrieval import Retrieval


def check_fields(config: ImputeConfig, meta: Mapping[str, Any]) -> tuple[Retrieval, bool]:
    """Return the retrieval, and whether it is calibrated; raises ConfigError for fields that the model cannot do."""
    _check_genes(config, meta["genes"])
    retrieval = _retrieval(config, meta)
    return retrieval, _is_calibrated(config, meta, retrieval)


def check_index(model: Artifact, index: Artifact | None) -> None:
    """Raise for an index of another model; the index's files are checked when it is opened."""
    if index is not None and index.manifest.notes["model"] != model.manifest.folder:
        msg = (
            f"the index {index.path} was made with model {index.manifest.notes['model']}, not with "
            f"{model.manifest.folder}: run `raystp index` with this model"
        )
        raise ModelError(msg)


def _check_genes(config: ImputeConfig, known: list[str]) -> None:
    unknown = sorted(set(config.genes or ()) - set(known))
    if unknown or (config.genes is not None and len(set(config.genes)) != len(config.genes)):
        problem = f"unknown genes {some(unknown)}" if unknown else "a gene is named twice"
        msg = f"genes: {problem}; the model has {len(known)} genes, such as {', '.join(known[:5])}"
        raise ConfigError(msg)


def check_neighbours(neighbours: Artifact | None, embeddings: Artifact, index: Artifact | None) -> None:
    """Raise unless the stored neighbours were searched for these embeddings in this index."""
    if neighbours is None:
        return
    if neighbours.manifest.notes.get("output") != "neighbours":
        msg = f"neighbours: {neighbours.path} has no neighbours: run `raystp impute --set output=neighbours` first"
        raise ConfigError(msg)
    for role, artifact in [*input_roles("embeddings", embeddings).items(), ("index", index)]:
        used = neighbours.manifest.inputs.get(role)
        if artifact is None or used != artifact.manifest.folder:
            msg = (
                f"neighbours: {neighbours.path} was made with {role} {used}, not with "
                f"{artifact.manifest.folder if artifact else 'none'}: set `{role}` to the same"
            )
            raise ConfigError(msg)


def _retrieval(config: ImputeConfig, meta: Mapping[str, Any]) -> Retrieval:
    """Return the model's own retrieval, with what the config sets; raises ConfigError for a contradiction."""
    own = Retrieval.of(meta.get("retrieval", {}))
    chosen = own.changed(k=config.k, weights=config.weights, temperature=config.temperature)
    try:
        everyone = chosen.neighbours is None
    except ModelError as error:
        raise ConfigError(str(error)) from None
    if everyone and (config.output == "neighbours" or config.neighbours):
        msg = "the model's own retrieval is k=all, which has no list of neighbours to store or read: set k to a number"
        raise ConfigError(msg)
    return chosen


def _is_calibrated(config: ImputeConfig, meta: Mapping[str, Any], retrieval: Retrieval) -> bool:
    """Return whether predictions are calibrated; raises ConfigError where that is asked for and impossible."""
    own = Retrieval.of(meta.get("retrieval", {}))
    possible, fits = "calibration" in meta, retrieval.averages_as(own)
    if config.calibrate and not (possible and fits):
        if possible:
            msg = (
                f"calibrate: the model was calibrated for k={own.k}, weights={own.weights}, temperature="
                f"{own.temperature}; leave these as they are, or set calibrate=false"
            )
        else:
            msg = "calibrate: the model has no calibration: train it with retrieval.calibrate=true and a validation"
        raise ConfigError(msg)
    return possible and fits and config.calibrate is not False
