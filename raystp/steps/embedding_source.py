"""Which embeddings a step reads: one artifact, or several that are joined; and whether a model was trained on such."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from raystp.artifacts import Artifact, open_artifact, resolve
from raystp.errors import ModelError
from raystp.expression.embeddings.join import features_record, join_embeddings_of
from raystp.models.neighbours import neighbour_means
from raystp.storage import StoragePath

Record = Mapping[str, Any]
"""A model's record."""


def open_embeddings(store: str, names: str | Sequence[str], *, neighbour_mean: int = 0) -> Artifact:
    """Open embeddings, joined in the order of the names; raises ConfigError where they do not belong together."""
    listed = [names] if isinstance(names, str) else names
    return _joined([resolve(store, name, "embed") for name in listed], neighbour_mean)


def open_embeddings_for(meta: Record, store: str, names: str | Sequence[str], model: StoragePath) -> Artifact:
    """Open the embeddings that a model reads, with its neighbours' mean; raises ModelError for other features."""
    embed = open_embeddings(store, names, neighbour_mean=neighbour_mean_of(meta))
    check_features(meta, embed, model)
    return embed


def reopen_embeddings(meta: Record, paths: Sequence[StoragePath]) -> Artifact:
    """Open the embeddings that a model has predicted from, by their paths in the order of the blocks."""
    return _joined([open_artifact(path, "embed") for path in paths], neighbour_mean_of(meta))


def input_folders(inputs: Mapping[str, str], role: str) -> list[str]:
    """Return the folders that a manifest lists under `role`, `role 2` and so on; relative to the store."""
    roles = sorted((key for key in inputs if key == role or key.startswith(f"{role} ")), key=_number)
    return [inputs[key] for key in roles]


def neighbour_mean_of(meta: Record) -> int:
    """Return the number of neighbours whose mean features a model reads; 0 for none."""
    return int(meta.get("features", {}).get("neighbour_mean", 0))


def describe_features(meta: Record) -> str:
    """Return a model's features in words; equal for models that read the same."""
    features = meta.get("features", {})
    described = [_describe(block) for block in features.get("blocks", [])]
    mean = neighbour_mean_of(meta)
    return "; ".join([*described, *([f"mean of {mean} neighbours"] if mean else [])])


def check_features(meta: Record, embed: Artifact, model: StoragePath) -> None:
    """Raise ModelError unless embeddings have the encoders and tiles that a model was trained on, in its order.

    A model of an earlier version, and one with its own image tower, record no blocks; its features are checked by their
    number.
    """
    expected = meta.get("features", {}).get("blocks")
    if expected is None:
        return
    found = features_record(embed)["blocks"]
    order = ", ".join(_describe(block) for block in expected)
    if len(found) != len(expected):
        msg = (
            f"embeddings: {model} reads {len(expected)} embeddings ({order}), got {len(found)}: list them in this order"
        )
        raise ModelError(msg)
    for number, (wanted, given) in enumerate(zip(expected, found, strict=True), 1):
        if _compared(wanted) != _compared(given):
            msg = (
                f"embeddings: number {number} has {_describe(given)}, and {model} was trained on {_describe(wanted)} "
                f"there; it reads {order}, in this order"
            )
            raise ModelError(msg)


def _joined(blocks: Sequence[Artifact], neighbour_mean: int) -> Artifact:
    context = functools.partial(neighbour_means, count=neighbour_mean) if neighbour_mean else None
    return join_embeddings_of(blocks, neighbour_mean=neighbour_mean, context=context)


def _compared(block: Record) -> dict[str, Any]:
    """Return what must be equal: weights and tiles, and how they were pooled; not the artifact's name."""
    return {key: value for key, value in block.items() if key not in {"embeddings", "encoder"}}


def _describe(block: Record) -> str:
    tile, more = block["tile"], [f"{key} {block[key]}" for key in ("scales", "layers", "views") if key in block]
    named = block["encoder"].get("name") or "of a model"
    return ", ".join([f"encoder '{named}' ({block['encoder_identity']}) on tiles of {tile['side']} um", *more])


def _number(role: str) -> int:
    tail = role.rpartition(" ")[2]
    return int(tail) if tail.isdigit() else 1
