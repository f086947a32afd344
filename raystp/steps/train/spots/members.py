"""The finished models of an ensemble: whether they fit together, and what a training on spots takes from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError, LeakError, some
from raystp.expression.training_set import SpotTable
from raystp.models.arrays import Arrays
from raystp.models.ensemble.predictor import stored_member
from raystp.models.ensemble.weights import equal_weights, least_squares_weights
from raystp.models.methods import METHODS, open_predictor
from raystp.models.predict import predict_spots
from raystp.models.predictor import DirectPredictor
from raystp.models.store import load_model
from raystp.steps.embedding_source import describe_features, input_folders, neighbour_mean_of
from raystp.steps.train.spots.config import EnsembleTrainConfig, SpotsTrainConfig
from raystp.storage import StoragePath

EQUAL_FACTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "encoder": lambda meta: meta["encoder"],
    "tile": lambda meta: meta.get("tile"),
    "features": describe_features,
    "number of features": lambda meta: meta["d_image"],
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
    first, given = members[0], config.split if "split" in config.model_fields_set else None
    read = first.artifact.manifest.inputs
    values = config.model_dump(mode="json", exclude_unset=True)
    values["split"] = _split(members, given.test if given else [], given.validation if given else [])
    options = {**values[config.model], "members": [_reference(one, config.run.store) for one in members]}
    sources = {
        "spots": config.spots or read["spots"],
        "embeddings": config.embeddings or input_folders(read, "images"),
        "neighbour_mean": neighbour_mean_of(first.meta),
    }
    panel = {"name": first.meta["panel"]["name"]}
    return SpotsTrainConfig.of({**values, **sources, "panel": panel, config.model: options})


def member_weights(
    config: SpotsTrainConfig, members: list[Member], validation: SpotTable | None
) -> Float64[np.ndarray, "member"]:
    """Return the members' weights; raises ConfigError where they need a validation side and there is none."""
    if getattr(config, config.model).weights == "equal":
        return equal_weights(len(members))
    if validation is None:
        msg = (
            f"{config.model}.weights=validation needs sections that no member was trained on, and that do not test: "
            f"set split.validation to such sections, or {config.model}.weights=equal"
        )
        raise ConfigError(msg)
    return least_squares_weights([_predicted(one, validation) for one in members], validation.expression)


def stored(members: list[Member], weights: Float64[np.ndarray, "member"]) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays of an ensemble, and its part of the model's record."""
    arrays: Arrays = {"weights": weights}
    records = []
    for number, one in enumerate(members):
        own, record = stored_member(number, one.kind, one.arrays, one.meta)
        arrays |= own
        records.append({**record, "name": one.name})
    return arrays, {"members": records}


def _predicted(member: Member, spots: SpotTable) -> np.ndarray:
    model = open_predictor(member.kind, member.arrays, member.meta)
    assert isinstance(model, DirectPredictor)  # as `_check_alone` has it
    return predict_spots(model, spots)


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
    blocks = {float(one.artifact.manifest.config["split"].get("validation_block") or 0) for one in members}
    return {
        "protocol": members[0].meta["protocol"],
        "test": test or shared,
        "validation": validation,
        "train": train,
        "validation_block": 0.0 if validation or len(blocks) > 1 else blocks.pop(),
    }


def _check_alone(member: Member) -> None:
    """Raise ConfigError for a model that cannot be a member."""
    if METHODS[member.kind].needs_index:
        why = "that predicts through a reference index; an ensemble averages models that predict from features alone"
    elif member.meta.get("bulk") or "spots" not in member.artifact.manifest.inputs:
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
