"""Models and checkpoints on disk: safetensors for the arrays, JSON for the words. Nothing is ever unpickled.

The JSON is written last and holds the digest of the arrays, so a folder that was written in part, or mixed from two
models, is refused by name.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.training.fit import TrainState
from raystp.storage import StoragePath

SCHEMA_VERSION = 1
"""Version of a stored model and of a checkpoint."""

MODEL_FILES = ("model.safetensors", "model.json")
"""What a stored model is."""

_OWN = ("schema_version", "kind", "sha256")


def save_model(
    place: StoragePath, kind: str, tensors: Mapping[str, np.ndarray | Tensor], meta: Mapping[str, Any]
) -> None:
    """Write a model into a folder as `model.safetensors` and `model.json`.

    `meta` is plain JSON values: `genes` (names, in the order of the outputs) and `d_image` (the features' length) must
    be there, or ModelError is raised; `options` and `encoder` (name and digest of the weights) say how it was made.
    """
    _check_meta(meta, f"the {kind} model for {place}")
    arrays = {name: _array(value) for name, value in tensors.items()}
    _write(place, "model", safetensors.numpy.save(arrays), {"kind": kind, **meta})


def load_model(place: StoragePath) -> tuple[str, Arrays, dict[str, Any]]:
    """Return the kind, the arrays and the meta of a model that `save_model` wrote.

    Raises ModelError where a file is missing or damaged, of another schema version, or not the other's partner.
    """
    content, meta = _read(place, "model")
    _check_meta(meta, str(place / "model.json"))
    try:
        arrays = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise _damaged(place / "model.safetensors", error) from None
    return str(meta["kind"]), arrays, {name: value for name, value in meta.items() if name not in _OWN}


def save_state(place: StoragePath, training: TrainState) -> None:
    """Write a checkpoint into a folder: weights, the optimiser's moments, the next epoch, the best weights so far."""
    tensors = {f"model/{name}": value for name, value in training.model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in training.best.items()}
    for number, moments in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in moments.items()}
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    words = {"epoch": training.epoch, "best_epoch": training.best_epoch, "best_value": training.best_value}
    _write(place, "state", content, words)


def load_state(place: StoragePath, training: TrainState) -> None:
    """Put a checkpoint's values into a training that was started with the same model and options.

    Raises ModelError where a file is missing or damaged, or where the checkpoint is of another model.
    """
    content, words = _read(place, "state")
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise _damaged(place / "state.safetensors", error) from None
    try:
        training.model.load_state_dict(_under(tensors, "model/"))
    except RuntimeError as error:
        msg = f"the checkpoint {place} is of another model: {error}; begin a new training under another name"
        raise ModelError(msg) from None
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under(tensors, "optimizer/").items():
        number, _, moment = name.partition("/")
        state.setdefault(int(number), {})[moment] = value
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    training.epoch, training.best = words["epoch"], _under(tensors, "best/")
    training.best_epoch, training.best_value = words["best_epoch"], words["best_value"]


def _write(place: StoragePath, name: str, content: bytes, words: Mapping[str, Any]) -> None:
    (place / f"{name}.safetensors").write_bytes(content)
    words = {**words, "schema_version": SCHEMA_VERSION, "sha256": hashlib.sha256(content).hexdigest()}
    (place / f"{name}.json").write_bytes(json.dumps(words, indent=1, sort_keys=True, allow_nan=False).encode())


def _read(place: StoragePath, name: str) -> tuple[bytes, dict[str, Any]]:
    words_at, content_at = place / f"{name}.json", place / f"{name}.safetensors"
    for file in (words_at, content_at):
        if not file.exists():
            msg = f"{place} has no {file.name}: it holds no finished {name}; run `raystp train` first"
            raise ModelError(msg)
    try:
        words = json.loads(words_at.read_bytes())
        version, sha256 = words["schema_version"], words["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(words_at, error) from None
    if version != SCHEMA_VERSION:
        msg = (
            f"{words_at} is of schema version {version}, this raystp reads version {SCHEMA_VERSION}: "
            "run `raystp train` again with this version"
        )
        raise ModelError(msg)
    content = content_at.read_bytes()
    seen = hashlib.sha256(content).hexdigest()
    if seen != sha256:
        msg = (
            f"{content_at} has sha256 {seen}, {words_at.name} says {sha256}: not written together; copy or train again"
        )
        raise ModelError(msg)
    return content, words


def _check_meta(meta: Mapping[str, Any], where: str) -> None:
    genes, d_image = meta.get("genes"), meta.get("d_image")
    if not isinstance(genes, list) or not genes or len(set(genes)) != len(genes):
        msg = f"{where} must name its `genes`, each once, in the order of its outputs, got {str(genes)[:80]}"
        raise ModelError(msg)
    if not isinstance(d_image, int) or d_image < 1:
        msg = f"{where} must say the length of its image features as `d_image`, got {d_image!r}"
        raise ModelError(msg)


def _array(value: np.ndarray | Tensor) -> np.ndarray:
    # safetensors writes the buffer as it lies: a transposed view would come back scrambled.
    return np.asarray(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value, order="C")


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _damaged(file: StoragePath, error: Exception) -> ModelError:
    return ModelError(f"{file} cannot be understood ({type(error).__name__}: {error}): a damaged or altered file")
