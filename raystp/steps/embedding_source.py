"""Which embeddings a step reads: one artifact, or several that are joined; and whether a model was trained on such."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from raystp.artifacts import Artifact, open_artifact, resolve
from raystp.errors import ConfigError, ModelError
from raystp.expression.embeddings.join import Features, features_record, join_embeddings_of
from raystp.models.arrays import tower_identity
from raystp.models.neighbours import neighbour_means
from raystp.storage import StoragePath

Record = Mapping[str, Any]
"""A model's record."""


def open_embeddings(
    store: str,
    names: str | Sequence[str],
    *,
    neighbour_mean: int = 0,
    neighbour_means: Sequence[int] = (),
    tokens: int = 0,
) -> Artifact:
    """Open embeddings, joined in the order of the names; raises ConfigError where they do not belong together.

    The mean features of `neighbour_mean` neighbours are appended, or of each number in `neighbour_means`. With
    `tokens`, so many spatial tokens of each place are read instead of its vector. Raises ConfigError where they are not
    kept, and for both together.
    """
    listed = [names] if isinstance(names, str) else names
    counts = neighbour_means or ([neighbour_mean] if neighbour_mean else [])
    if tokens and counts:
        msg = f"neighbour_mean={counts[0]} appends to vectors, and this model reads {tokens} spatial tokens: set it to "
        raise ConfigError(msg + "neighbour_mean=0")
    return _joined([resolve(store, name, "embed") for name in listed], counts, tokens)


def open_embeddings_for(meta: Record, store: str, names: str | Sequence[str], model: StoragePath) -> Artifact:
    """Open the embeddings that a model reads, with its neighbours' mean; raises ModelError for other features."""
    embed = open_embeddings(store, names, neighbour_means=neighbour_means_of(meta), tokens=tokens_of(meta))
    check_features(meta, embed, model)
    return embed


def reopen_embeddings(meta: Record, paths: Sequence[StoragePath]) -> Artifact:
    """Open the embeddings that a model has predicted from, by their paths in the order of the blocks."""
    return _joined([open_artifact(path, "embed") for path in paths], neighbour_means_of(meta), tokens_of(meta))


def input_folders(inputs: Mapping[str, str], role: str) -> list[str]:
    """Return the folders that a manifest lists under `role`, `role 2` and so on; relative to the store."""
    roles = sorted((key for key in inputs if key == role or key.startswith(f"{role} ")), key=_number)
    return [inputs[key] for key in roles]


def neighbour_means_of(meta: Record) -> list[int]:
    """Return the numbers of neighbours whose mean features a model reads: one block of columns for each."""
    recorded = meta.get("features", {}).get("neighbour_mean", 0)
    return [int(one) for one in (recorded if isinstance(recorded, list) else [recorded]) if one]


def tokens_of(meta: Record) -> int:
    """Return the number of spatial tokens of each place that a model reads; 0 for one that reads vectors."""
    return int(meta.get("features", {}).get("tokens", 0))


def describe_features(meta: Record) -> str:
    """Return a model's features in words; equal for models that read the same."""
    described = [describe_block(block) for block in meta.get("features", {}).get("blocks", [])]
    tokens = [f"{tokens_of(meta)} spatial tokens"] if tokens_of(meta) else []
    return "; ".join([*described, *(f"mean of {count} neighbours" for count in neighbour_means_of(meta)), *tokens])


def check_features(meta: Record, embed: Artifact, model: StoragePath) -> None:
    """Raise ModelError unless embeddings have the encoders and tiles that a model was trained on, in its order.

    A model with an image encoder of its own reads what that encoder gives. One of an earlier version records no blocks;
    its features are checked by their number.
    """
    if meta.get("trained_tower"):
        _check_of_tower(embed, model)
        return
    expected = meta.get("features", {}).get("blocks")
    if expected is None:
        return
    found = features_record(embed)["blocks"]
    order = ", ".join(describe_block(block) for block in expected)
    if len(found) != len(expected):
        msg = (
            f"embeddings: {model} reads {len(expected)} embeddings ({order}), got {len(found)}: list them in this order"
        )
        raise ModelError(msg)
    for number, (wanted, given) in enumerate(zip(expected, found, strict=True), 1):
        if compared(wanted) != compared(given):
            msg = (
                f"embeddings: number {number} has {describe_block(given)}, and {model} was trained on "
                f"{describe_block(wanted)} there; it reads {order}, in this order"
            )
            raise ModelError(msg)


def _check_of_tower(embed: Artifact, model: StoragePath) -> None:
    wanted = tower_identity(open_artifact(model, "train").manifest.fingerprint)
    found = [block["encoder_identity"] for block in features_record(embed)["blocks"]]
    if found != [wanted]:
        msg = (
            f"embeddings: {embed.path} is of another encoder ({', '.join(found)}), and {model} reads the one that was "
            f"trained with it: run `raystp embed` with encoder.trained={model.uri}, and use those embeddings"
        )
        raise ModelError(msg)


def compared(block: Record) -> dict[str, Any]:
    """Return what must be equal: weights and tiles, and how they were pooled; not the artifact's name."""
    return {key: value for key, value in block.items() if key not in {"embeddings", "encoder"}}


def describe_block(block: Record) -> str:
    """Return a block in words: encoder, tiles, and what differs from the encoder's own row."""
    tile, more = block["tile"], [f"{key} {block[key]}" for key in ("scales", "layers", "views") if key in block]
    named = block["encoder"].get("name") or "of a model"
    return ", ".join([f"encoder '{named}' ({block['encoder_identity']}) on tiles of {tile['side']} um", *more])


def _joined(blocks: Sequence[Artifact], counts: Sequence[int], tokens: int) -> Artifact:
    context = functools.partial(_means, counts=tuple(counts)) if counts else None
    return join_embeddings_of(blocks, neighbour_means=counts, context=context, tokens=tokens)


def _means(
    features: Features, centres: Float64[np.ndarray, "tile 2"], *, counts: Sequence[int]
) -> Float32[np.ndarray, "tile column"]:
    """Return the mean features of so many neighbours, number after number."""
    return np.concatenate([neighbour_means(features, centres, count=count) for count in counts], axis=1)


def _number(role: str) -> int:
    tail = role.rpartition(" ")[2]
    return int(tail) if tail.isdigit() else 1
