"""The finished models of an ensemble: whether they fit together, and what a training on spots takes from them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError, LeakError, some
from raystp.expression.labels import Labels
from raystp.expression.training_set import SpotTable, TrainingSetSpec, load_measured
from raystp.models.arrays import Arrays
from raystp.models.ensemble.method import ENSEMBLE
from raystp.models.ensemble.predictor import REFERENCE, EnsemblePredictor, stored_member
from raystp.models.ensemble.weights import equal_weights, least_squares_weights
from raystp.models.predict import predict_spots
from raystp.models.predictor import ContrastivePredictor
from raystp.models.store import load_model
from raystp.steps.embedding_source import open_embeddings
from raystp.steps.train.reference import open_model, reference_arrays
from raystp.steps.train.spots.config import EnsembleTrainConfig, SpotsTrainConfig
from raystp.steps.train.spots.member_features import (
    MemberFeatures,
    member_columns,
    union_folders,
    union_means,
)
from raystp.storage import StoragePath

EQUAL_FACTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "protocol": lambda meta: meta["protocol"],
    "panel": lambda meta: meta["panel"]["name"],
    "unit of expression": lambda meta: meta.get("normalisation"),
}
"""What all members must have in common, beside the genes."""


@dataclass(frozen=True)
class Member:
    """A finished model."""

    artifact: Artifact
    kind: str
    arrays: Arrays
    meta: dict[str, Any]

    @property
    def name(self) -> str:
        """Its folder under the store, for messages and references."""
        return self.artifact.manifest.folder

    @property
    def validation_block(self) -> float:
        """The share of each training section's spots that it was not trained on."""
        return float(self.artifact.manifest.config["split"].get("validation_block") or 0)

    def features(self, store: str) -> MemberFeatures:
        """Return the features that it reads."""
        return MemberFeatures.of(self.name, self.artifact.manifest.inputs, self.meta, store)


def open_members(config: SpotsTrainConfig) -> list[Member]:
    """Open the models that a config's ensemble names; raises ConfigError unless they fit together."""
    names: list[str] = getattr(config, config.model).members
    members = []
    for name in names:
        artifact = resolve(config.run.store, name, "train")
        members.append(Member(artifact, *load_model(artifact.path)))
    for one in members:
        _check_alone(one)
        _check_pair(members[0], one)
    return members


def with_member_values(config: EnsembleTrainConfig) -> SpotsTrainConfig:
    """Return the config of a training on spots, with what the members have and the config does not give.

    The training side has every section that a member has seen, but those that validate for the ensemble. `split.train`
    is never read. The tests that all members share are tested, unless `split.test` is given.
    """
    members = open_members(config)
    given = config.split if "split" in config.model_fields_set else None
    read = members[0].artifact.manifest.inputs
    values = config.model_dump(mode="json", exclude_unset=True)
    values["split"] = _split(members, given.test if given else [], given.validation if given else [])
    options = {**values[config.model], "members": [_reference(one, config.run.store) for one in members]}
    folders = union_folders([one.features(config.run.store) for one in members])
    sources = {"spots": config.spots or read["spots"], "embeddings": config.embeddings or folders}
    panel = {"name": members[0].meta["panel"]["name"]}
    labels = Labels.of(members[0].meta).record
    if "labels" in config.model_fields_set and config.labels.record != labels:
        msg = (
            f"labels: the members learned {Labels.of(members[0].meta).unit}, and the config has "
            f"{config.labels.unit}: remove `labels`"
        )
        raise ConfigError(msg)
    return SpotsTrainConfig.of({**values, **sources, "panel": panel, "labels": labels, config.model: options})


def open_union(config: SpotsTrainConfig, members: list[Member]) -> Artifact:
    """Open the embeddings of an ensemble: the blocks of all members, and their neighbours' means."""
    means = union_means([one.features(config.run.store) for one in members])
    return open_embeddings(config.run.store, config.embeddings or (), neighbour_means=means)


def combine_members(
    config: SpotsTrainConfig, members: list[Member], spec: TrainingSetSpec, validation: SpotTable | None
) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays of an ensemble, and its part of the model's record.

    A contrastive member gets the spots that it was trained on as reference rows. Raises ConfigError where the weights
    need a validation side and there is none, or where the embeddings lack a member's features.
    """
    if getattr(config, config.model).weights != "equal" and validation is None:
        msg = (
            f"{config.model}.weights=validation needs sections that no member was trained on, and that do not test: "
            f"set split.validation to such sections, or {config.model}.weights=equal"
        )
        raise ConfigError(msg)
    columns = _columns(config, members, spec.images)
    arrays: Arrays = {}
    records = []
    for number, (one, own) in enumerate(zip(members, columns, strict=True)):
        stored = one.arrays | _reference_rows(one, own, spec)
        renamed, record = stored_member(number, one.kind, stored, one.meta, columns=own)
        arrays |= renamed
        records.append({**record, "name": one.name})
    weights = equal_weights(len(members))
    if getattr(config, config.model).weights != "equal":
        assert validation is not None  # checked above
        weights = least_squares_weights(_predictions(arrays, records, validation), validation.expression)
    return {**arrays, "weights": weights}, {"members": records}


def _split(members: list[Member], test: list[str], validation: list[str]) -> dict[str, Any]:
    """Return the split of an ensemble: what any member has seen is on the training side.

    A section or patient validates if it is given, or validates for members, and none was trained on it.
    """
    patient_of = {name: patient for one in members for name, patient in one.meta["patients"].items()}
    trained = {name for one in members for name in one.meta["train"]}
    held = dict.fromkeys(name for one in members for name in one.meta["validation"] if name not in trained)
    validation = validation or list(held)
    train = [name for name in patient_of if name in trained or not {name, patient_of[name]} & set(validation)]
    tested = [set(one.meta["test"]) - set(patient_of) for one in members]
    shared = [name for name in members[0].meta["test"] if all(name in names for names in tested)]
    if not (test or shared):
        each = "; ".join(f"{one.name} tests {some(one.meta['test'])}" for one in members)
        msg = f"no section is tested by all members and seen by none: {each}; set split.test to other sections"
        raise LeakError(msg)
    blocks = {one.validation_block for one in members}
    return {
        "protocol": members[0].meta["protocol"],
        "test": test or shared,
        "validation": validation,
        "train": train,
        "validation_block": 0.0 if validation or len(blocks) > 1 else blocks.pop(),
    }


def _columns(config: SpotsTrainConfig, members: list[Member], images: Artifact) -> list[Int64[np.ndarray, " column"]]:
    read = [one.features(config.run.store) for one in members]
    means = union_means(read)
    return [member_columns(one, images, means) for one in read]


def _reference_rows(member: Member, columns: Int64[np.ndarray, " column"], spec: TrainingSetSpec) -> Arrays:
    """Return the reference rows of a contrastive member: the spots that it was trained on; none for another member."""
    model = open_model(member.kind, member.arrays, member.meta)
    if not isinstance(model, ContrastivePredictor):
        return {}
    own = replace(spec, train=tuple(member.meta["train"]), validation=(), validation_block=member.validation_block)
    table, _ = load_measured(own)
    table = replace(table, features=np.ascontiguousarray(table.features[:, columns]))
    rows = reference_arrays(model, table, member.meta)
    return {f"{REFERENCE}{name}": values for name, values in rows.items()}


def _predictions(arrays: Arrays, records: list[dict[str, Any]], spots: SpotTable) -> list[np.ndarray]:
    """Return what each member predicts for spots with the ensemble's features."""
    genes, width = records[0]["meta"]["genes"], spots.features.shape[1]
    weights = {"weights": equal_weights(len(records))}
    opened = open_model(ENSEMBLE.name, arrays | weights, {"genes": genes, "d_image": width, "members": records})
    assert isinstance(opened, EnsemblePredictor)  # as its name says
    return [predict_spots(replace(opened, members=(one,), weights=(1.0,)), spots) for one in opened.members]


def _check_alone(member: Member) -> None:
    """Raise ConfigError for a model that cannot be a member."""
    if member.meta.get("bulk") or "spots" not in member.artifact.manifest.inputs:
        why = "that learned from labels of whole cases; an ensemble averages models of measured spots"
    elif member.meta.get("trained_tower"):
        why = "whose image encoder was trained with it; an ensemble needs one encoder for all members"
    elif member.meta.get("completed"):
        why = "that was trained on completed labels; an ensemble averages models of measured labels"
    elif member.meta.get("unseen"):
        why = "that was trained without some genes of its panel (text.unseen); members need the whole panel"
    else:
        return
    msg = f"{member.name} is a {member.kind} model {why}: leave it out"
    raise ConfigError(msg)


def _check_pair(first: Member, other: Member) -> None:
    """Raise ConfigError for members that do not read, or predict, the same."""
    for name, fact in EQUAL_FACTS.items():
        one, two = fact(first.meta), fact(other.meta)
        if one != two:
            msg = f"the members differ in {name}: {first.name} has {one!r}, {other.name} has {two!r}: leave one out"
            raise ConfigError(msg)
    genes, others = first.meta["genes"], other.meta["genes"]
    if genes != others:
        only = [
            f"{one.name} alone has {some(sorted(extra))}"
            for one, extra in ((first, set(genes) - set(others)), (other, set(others) - set(genes)))
            if extra
        ]
        how = "; ".join(only) or "their order differs"
        msg = f"the members differ in genes: {how}; train them on one panel (panel.file)"
        raise ConfigError(msg)


def _reference(member: Member, store: str) -> str:
    """Return a reference that is exact: the folder in the store, or the path of an artifact elsewhere."""
    path = member.artifact.path
    return member.name if (StoragePath.of(store) / member.name).uri == path.uri else path.uri
