"""Models and checkpoints on disk: safetensors for the arrays, JSON for everything else.

raystp unpickles nothing of its own. Ray Tune's sweep state is Ray's own pickle, so resume a sweep only from a store
that no other user can write to. The JSON file is written last and holds the SHA-256 of the arrays. A folder that is
incomplete, or that mixes the files of two models, is refused with a message that names the file.
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

from raystp.artifacts import without_keys
from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.training.fit import TrainState
from raystp.storage import StoragePath

SCHEMA_VERSION = 1
"""Version of a stored model and of a checkpoint."""

MODEL_FILES = ("model.safetensors", "model.json")
"""Files of a stored model."""

_STEP_OF = {"model": "train", "state": "train", "completion": "complete"}
"""Name of the files -> the step that writes them."""

_STORE_KEYS = ("schema_version", "kind", "sha256")
"""Keys of `model.json` that `save_model` adds to the caller's."""


def save_model(
    folder: StoragePath, kind: str, tensors: Mapping[str, np.ndarray | Tensor], meta: Mapping[str, object]
) -> None:
    """Write a model into a folder as `model.safetensors` and `model.json`.

    `meta` holds plain JSON values. `genes` (names, in the order of the outputs) and `d_image` (length of the image
    features) are required; without them ModelError is raised. See `ModelMeta` for the others that methods read.
    """
    _check_meta(meta, f"meta of the {kind} model for {folder}")
    arrays = {name: _array(value) for name, value in tensors.items()}
    _write(folder, "model", safetensors.numpy.save(arrays), {"kind": kind, **meta})


def load_model(folder: StoragePath) -> tuple[str, Arrays, dict[str, Any]]:
    """Return the kind, the arrays and the meta of a model that `save_model` wrote.

    Raises ModelError if a file is missing, damaged or of another schema version, or if the two files were not written
    together.
    """
    content, meta = _read(folder, "model")
    _check_meta(meta, str(folder / "model.json"))
    try:
        arrays = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise _damaged(folder / "model.safetensors", error) from None
    return str(meta["kind"]), arrays, {name: value for name, value in meta.items() if name not in _STORE_KEYS}


def save_completion(folder: StoragePath, method: str, arrays: Arrays, meta: Mapping[str, object]) -> None:
    """Write a fitted completion into a folder as `completion.safetensors` and `completion.json`."""
    ordered = {name: _array(value) for name, value in arrays.items()}
    _write(folder, "completion", safetensors.numpy.save(ordered), {"kind": method, **meta})


def load_completion(folder: StoragePath) -> tuple[str, Arrays, dict[str, Any]]:
    """Return the method, the arrays and the meta of `save_completion`; raises ModelError like `load_model`."""
    content, meta = _read(folder, "completion")
    try:
        arrays = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise _damaged(folder / "completion.safetensors", error) from None
    return str(meta["kind"]), arrays, {name: value for name, value in meta.items() if name not in _STORE_KEYS}


def save_state(folder: StoragePath, state: TrainState) -> None:
    """Write a checkpoint into a folder: weights, the optimiser's moments, the next epoch, the best weights so far."""
    tensors = {f"model/{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    for number, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in moments.items()}
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    fields = {
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_value": state.best_value,
        "best_is_poor": state.best_is_poor,
    }
    _write(folder, "state", content, fields)


def checkpoint_damage(folder: StoragePath) -> str:
    """Return what is wrong with a checkpoint's files, or nothing if they are whole; never raises ModelError."""
    try:
        _read_state(folder)
    except ModelError as error:
        return str(error)
    return ""


def load_state(folder: StoragePath, state: TrainState) -> None:
    """Restore a checkpoint into a state that was started with the same model and options.

    Raises ModelError if a file is missing or damaged, or if the checkpoint is of another model.
    """
    tensors, fields = _read_state(folder)
    try:
        state.model.load_state_dict(_with_prefix(tensors, "model/"))
    except RuntimeError as error:
        msg = f"the checkpoint {folder} is of another model: {error}; start a new training with another `name`"
        raise ModelError(msg) from None
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _with_prefix(tensors, "optimizer/").items():
        number, _, moment = name.partition("/")
        moments.setdefault(int(number), {})[moment] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.epoch, state.best = fields["epoch"], _with_prefix(tensors, "best/")
    state.best_epoch, state.best_value = fields["best_epoch"], fields["best_value"]
    state.best_is_poor = fields.get("best_is_poor", False)


def _read_state(folder: StoragePath) -> tuple[dict[str, Tensor], dict[str, Any]]:
    content, fields = _read(folder, "state")
    try:
        return safetensors.torch.load(content), fields
    except safetensors.SafetensorError as error:
        raise _damaged(folder / "state.safetensors", error) from None


def _write(folder: StoragePath, name: str, content: bytes, fields: Mapping[str, object]) -> None:
    (folder / f"{name}.safetensors").write_bytes(content)
    stored, sha256 = without_keys(dict(fields)), hashlib.sha256(content).hexdigest()
    fields = {**stored, "schema_version": SCHEMA_VERSION, "sha256": sha256}
    (folder / f"{name}.json").write_bytes(json.dumps(fields, indent=1, sort_keys=True, allow_nan=False).encode())


def _read(folder: StoragePath, name: str) -> tuple[bytes, dict[str, Any]]:
    json_path, arrays_path = folder / f"{name}.json", folder / f"{name}.safetensors"
    for path in (json_path, arrays_path):
        if not path.exists():
            msg = f"{folder} has no {path.name}: it holds no finished {name}; run `raystp {_STEP_OF[name]}` first"
            raise ModelError(msg)
    try:
        fields = json.loads(json_path.read_bytes())
        version, sha256 = fields["schema_version"], fields["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(json_path, error) from None
    if version != SCHEMA_VERSION:
        msg = (
            f"{json_path} is of schema version {version}, this raystp reads version {SCHEMA_VERSION}: "
            f"run `raystp {_STEP_OF[name]}` again with this version"
        )
        raise ModelError(msg)
    content = arrays_path.read_bytes()
    seen = hashlib.sha256(content).hexdigest()
    if seen != sha256:
        msg = (
            f"{arrays_path} has sha256 {seen}, but {json_path.name} states {sha256}: the two files were not written "
            f"together; copy both files again, or run `raystp {_STEP_OF[name]}` again"
        )
        raise ModelError(msg)
    return content, fields


def _check_meta(meta: Mapping[str, object], where: str) -> None:
    genes, d_image = meta.get("genes"), meta.get("d_image")
    if not isinstance(genes, list) or not genes or len(set(genes)) != len(genes):
        msg = f"{where}: `genes` must list each gene once, in the order of the outputs, got {str(genes)[:80]}"
        raise ModelError(msg)
    if not isinstance(d_image, int) or d_image < 1:
        msg = f"{where}: `d_image` must be the length of the image features, 1 or more, got {d_image!r}"
        raise ModelError(msg)


def _array(value: np.ndarray | Tensor) -> np.ndarray:
    # safetensors writes the buffer in memory order: a transposed view would be read back with its values permuted.
    return np.asarray(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value, order="C")


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _damaged(path: StoragePath, error: Exception) -> ModelError:
    return ModelError(
        f"{path} cannot be read ({type(error).__name__}: {error}): a damaged or altered file; "
        f"copy it again, or run `raystp {_STEP_OF[path.name.partition('.')[0]]}` again"
    )
