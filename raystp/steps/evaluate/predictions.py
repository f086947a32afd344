"""Predictions that are scored together, each with its model, and the gene sets they are scored on."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from raystp.artifacts import Artifact, open_artifact
from raystp.errors import ConfigError, some
from raystp.evaluate.metrics.genes import GeneSets, gene_sets, named_sets
from raystp.evaluate.metrics.score import ScoreLabel
from raystp.evaluate.protocols import EvaluationProtocol, protocol_of
from raystp.expression.genes.names import Aliases
from raystp.expression.genes.panel import read_panel
from raystp.expression.sections import ModelLabels
from raystp.models.store import load_model
from raystp.steps.embedding_source import input_folders, reopen_embeddings
from raystp.steps.evaluate.viewer.sets import is_gmt
from raystp.steps.train.retrieval import Retrieval
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

GIVEN_PANEL = "The panel is a list that was given: if test sections took part in its choice, the scores have that leak."


@dataclass(frozen=True)
class Prediction:
    """One model's predictions."""

    name: str
    prediction: Artifact
    model: Artifact
    meta: dict[str, Any]

    @property
    def genes(self) -> tuple[str, ...]:
        """The panel, in the order of the predictions' columns."""
        return tuple(self.meta["genes"])

    @property
    def aliases(self) -> Aliases:
        """Other names of the genes of the panel."""
        aliases: Aliases = self.meta.get("gene_aliases", {})
        return aliases

    @property
    def measured_as(self) -> ModelLabels:
        """The kind of the model's labels, in which measured spots are compared with its predictions."""
        return ModelLabels.of(self.meta)

    @property
    def slides(self) -> list[str]:
        """The slides that are predicted."""
        return list(self.prediction.manifest.notes["slides"])

    @property
    def learned_from_cases(self) -> bool:
        """Whether the model was trained on labels of whole cases."""
        return "bulk" in self.meta

    def label(self, name: str | None = None) -> ScoreLabel:
        """Return the label of this model's rows, or of another model's (such as a control) on the same panel."""
        notes = self.prediction.manifest.notes
        return ScoreLabel(notes["protocol"], notes["panel"], self.name if name is None else name)

    def protocol(self, measured: int | None = None) -> EvaluationProtocol:
        """Return the protocol of its scores. Its leak says so where the panel is a list that was given.

        `measured` is the number of genes of the tested sections, if it is known: a list of all of them chooses none.
        """
        protocol = protocol_of(self.label().protocol)
        is_given = (self.model.manifest.config.get("panel") or {}).get("file") is not None
        if not is_given or (measured is not None and measured <= len(self.genes)):
            return protocol
        leak = f"{GIVEN_PANEL} Apart from this: {protocol.leak[0].lower()}{protocol.leak[1:]}"
        return dataclasses.replace(protocol, leak=leak)

    def embeddings(self, store: str) -> Artifact:
        """Open the embeddings that were predicted from."""
        folders = input_folders(self.prediction.manifest.inputs, "embeddings")
        return reopen_embeddings(self.meta, [StoragePath.of(store) / folder for folder in folders])


def open_models(predictions: list[Artifact], store: str) -> list[Prediction]:
    """Open each prediction's model; raises ConfigError unless all have one protocol, one panel and one kind of labels.

    A model is named by its method; models of one method are named by their artifacts.
    """
    opened = []
    for one in predictions:
        check_complete(one)
        model = open_artifact(StoragePath.of(store) / one.manifest.inputs["model"], "train")
        kind, _, meta = load_model(model.path)
        opened.append((kind, one, model, meta))
    kinds = [kind for kind, *_ in opened]
    names = [kind if kinds.count(kind) == 1 else model.manifest.name for kind, _, model, _ in opened]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"predictions: several models have the name {some(repeated)}; train each with its own `name`"
        raise ConfigError(msg)
    models = [Prediction(name, one, model, meta) for name, (_, one, model, meta) in zip(names, opened, strict=True)]
    for other in models[1:]:
        check_comparable(models[0], other)
    return models


def retrieval_of(prediction: Artifact, store: StoragePath) -> Retrieval:
    """Return the retrieval that a prediction was made with: that of its index, and its own neighbours and weights."""
    recorded = prediction.manifest.notes.get("retrieval") or prediction.manifest.config  # of an older prediction
    own = Retrieval.of({key: recorded.get(key) for key in ("k", "weights", "temperature")})
    if "index" not in prediction.manifest.inputs:
        return own
    notes = open_artifact(store / prediction.manifest.inputs["index"], "index").manifest.notes
    vectors: Literal["expression", "image"] = "image" if notes["vectors"] == "image" else "expression"
    return dataclasses.replace(own, vectors=vectors, metric=notes["bank"]["metric"])


def gene_sets_of(
    models: Sequence[Prediction], planted: str | None, files: Mapping[str, str] = MappingProxyType({})
) -> GeneSets:
    """Return the gene sets: all, HEG and HVG of the training data; seen and unseen genes; named sets; planted sets.

    `files` are named sets. Raises ConfigError if two models were trained without different genes, and for a named set
    that another one has the name of, or none of whose genes is in the panel.
    """
    first = models[0]
    sets = gene_sets(np.asarray(first.meta["training_mean"]), np.asarray(first.meta["training_variance"]), first.genes)
    unseen = _unseen_genes(models)
    if unseen:
        split = {
            "seen": [gene for gene in first.genes if gene not in unseen],
            "unseen": [gene for gene in first.genes if gene in unseen],
        }
        sets |= named_sets(split, first.genes)
    if planted is not None:
        sets |= named_sets(planted_sets(planted), first.genes)
    return sets | sets_of_files(files, sets, first.genes)


def sets_of_files(files: Mapping[str, str], known: GeneSets, panel: Sequence[str]) -> dict[str, Int64[np.ndarray, "_"]]:
    """Return the sets of some files; log how many of their genes are in the panel. The sets of a GMT have maps only."""
    members = {name: read_panel(StoragePath.of(file)) for name, file in files.items() if not is_gmt(file)}
    found = named_sets(members, panel)
    for name, genes in members.items():
        if name in known:
            msg = f"sets: {name!r} is the name of another gene set; the sets are {some(list(known))}: rename it"
            raise ConfigError(msg)
        if name not in found:
            msg = f"sets.{name}: none of its {len(genes)} genes ({some(genes)}) is in the panel of {len(panel)} genes"
            raise ConfigError(f"{msg}: train with a panel that has them, or remove the set")
        logger.info(f"  gene set {name}: {len(found[name])} of {len(genes)} genes are in the panel")
    return found


def planted_sets(folder: str) -> dict[str, list[str]]:
    """Return the gene sets of a simulated cohort: name -> genes."""
    sets: dict[str, list[str]] = json.loads((StoragePath.of(folder) / "genes.json").read_bytes())
    return sets


def _unseen_genes(models: Sequence[Prediction]) -> frozenset[str]:
    """Return the genes that were held back from training."""
    found = {frozenset(one.meta["unseen"]) for one in models if one.meta.get("unseen")}
    if len(found) > 1:
        msg = "predictions: the models were trained without different genes; run one evaluation for each"
        raise ConfigError(msg)
    return next(iter(found), frozenset())


def check_comparable(first: Prediction, other: Prediction) -> None:
    """Raise ConfigError unless two predictions have the same protocol, panel, genes and labels."""
    for key in ("protocol", "panel"):
        values = [one.prediction.manifest.notes[key] for one in (first, other)]
        if values[0] != values[1]:
            msg = (
                f"predictions: {first.name} has {key} '{values[0]}', {other.name} has '{values[1]}'; run one "
                "evaluation for each"
            )
            raise ConfigError(msg)
    if other.genes != first.genes:
        msg = f"predictions: {first.name} and {other.name} predict different genes; train both on one panel"
        raise ConfigError(msg)
    one, two = first.measured_as.labels, other.measured_as.labels
    if one != two:
        msg = (
            f"predictions: {first.name} was trained on labels in {one.unit}, {other.name} on {two.unit}; run one "
            "evaluation for each, or train both with the same `labels`"
        )
        raise ConfigError(msg)


def check_complete(one: Artifact) -> None:
    """Raise ConfigError for a prediction without expression, or with only a part of the model's genes."""
    genes: list[str] = one.manifest.config.get("genes") or []
    partial = "holds neighbours only" if one.manifest.notes.get("output") == "neighbours" else ""
    if partial or genes:
        partial = partial or f"holds only {len(genes)} genes"
        msg = f"predictions: {one.path} {partial}; predict the whole panel: rerun impute with output=dense and no genes"
        raise ConfigError(msg)
