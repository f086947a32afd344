"""The record of a model as it is published: without names of patients, sections and slides, and without paths."""

from collections.abc import Mapping
from typing import Any

from raystp.impute.hashed_names import hash_name
from raystp.steps.publish.features import OWN_TOWER

Record = Mapping[str, Any]

LEFT_OUT = ("left_out", "completed", "cv")
"""Keys that name cases or sections and that no prediction reads."""

NAME_LISTS = ("train", "validation", "test", "slides")
"""Keys with names of sections or slides."""

ENCODER_KEYS = ("name", "random", "seed")
"""What remains of an encoder's config: its weights are stated by their identity, not by a path."""


def published_record(meta: Record, salt: str) -> dict[str, Any]:
    """Return a model's record for publication; names are hashed with the salt, which the record then states."""
    record = {key: value for key, value in meta.items() if key not in LEFT_OUT}
    for key in NAME_LISTS:
        if key in record:
            record[key] = sorted(hash_name(name, salt) for name in record[key])
    if "patients" in record:
        record["patients"] = {hash_name(name, salt): hash_name(one, salt) for name, one in record["patients"].items()}
    if record.get("encoder"):
        record["encoder"] = _encoder(record["encoder"], trained=bool(record.get("trained_tower")))
    if blocks := record.get("features", {}).get("blocks"):
        record["features"] = {**record["features"], "blocks": [_block(block) for block in blocks]}
    if "members" in record:  # of an ensemble
        members = [{**one, "meta": published_record(one["meta"], salt)} for one in record["members"]]
        record["members"] = [{**one, "name": str(number)} for number, one in enumerate(members)]
        record["options"] = {**record.get("options", {}), "members": []}
    plain: dict[str, Any] = _without_paths(record)
    return {**plain, "names_salt": salt}


def _encoder(encoder: Record, *, trained: bool) -> dict[str, Any]:
    """Return an encoder's config; one that was trained needs no weights to build: its tensors are the model's."""
    kept = {key: encoder[key] for key in ENCODER_KEYS if key in encoder}
    return {**kept, "random": True} if trained else kept


def _block(block: Record) -> dict[str, Any]:
    trained = str(block.get("encoder_identity", "")) == OWN_TOWER
    return {**block, "embeddings": "", "encoder": _encoder(block.get("encoder") or {}, trained=trained)}


def _without_paths(value: Any) -> Any:
    """Return plain JSON values in which each absolute path or URI is its last part."""
    if isinstance(value, Mapping):
        return {key: _without_paths(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(one) for one in value]
    is_path = isinstance(value, str) and (value.startswith(("/", "~/")) or "://" in value)
    return value.partition("?")[0].rstrip("/").rpartition("/")[2] if is_path else value
