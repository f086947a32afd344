"""Load weights from a file: exactly the given one, complete, and without running code.

safetensors holds tensors only. Older files (.bin, .pt, .pth) are pickles, which can run any code when opened. torch
opens them with `weights_only`, which accepts tensors and plain containers and rejects everything else. Files with
another suffix are rejected before they are opened.
"""

import hashlib
import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import nn

from raystp.digests import digest
from raystp.encoders.encoder import EncoderSpec
from raystp.encoders.layouts import State
from raystp.errors import EncoderError, some
from raystp.storage import StoragePath

SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")

_NESTED_KEYS = ("model", "state_dict", "teacher")
"""Keys under which training code stores the weights, beside optimisers and counters."""


class _KeyDifference(NamedTuple):
    missing: list[str]
    unexpected: list[str]


def file_digest(spec: EncoderSpec) -> str:
    """Return the sha256 of the weights file; the whole file is read, also from an object store.

    Raises EncoderError without a file, for a file with another suffix, and where the digest is not `spec.sha256`;
    StorageError where the file cannot be read.
    """
    return _check_digest(spec, _path(spec))


def load(
    spec: EncoderSpec,
    network: nn.Module,
    *,
    without: Collection[str] = (),
    layout: Callable[[State], State] | None = None,
) -> str:
    """Load the weights file into the network, all of it and exactly, and return the file's sha256.

    `without` names submodules (a classifier) that the network may lack and the file may still contain. `layout` renames
    the file's tensors to the network's names. A network on the meta device takes the file's tensors as its own.

    Raises EncoderError like `file_digest`, for a damaged file, and for tensors that are not the network's;
    StorageError where the file cannot be read.
    """
    with _path(spec).local() as local:
        digest = _check_digest(spec, StoragePath.of(local))
        state = _read(spec, local)
    if layout is not None:
        state = layout(state)
    removed = {f"{module}.{tensor}" for module in without for tensor in ("weight", "bias")} - set(network.state_dict())
    for name in removed & state.keys():
        del state[name]
    _load_exactly(spec, network, state)
    return digest


def state_digest(network: nn.Module) -> str:
    """Return a sha256 of the network's tensors: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_suffix(name: str, encoder: str) -> None:
    """Raise EncoderError where a file's suffix is not one of weights."""
    if not name.endswith((SUFFIX, *PICKLE_SUFFIXES)):
        msg = (
            f"encoder '{encoder}': {name} is not a {SUFFIX} file, nor an older {', '.join(PICKLE_SUFFIXES)}; other "
            "kinds can run code and are never opened: if you trust the file, convert it with "
            "safetensors.torch.save_file"
        )
        raise EncoderError(msg)


def _path(spec: EncoderSpec) -> StoragePath:
    if spec.weights is None:
        msg = f"encoder '{spec.name}' has no weights file: give the path or URI of its {SUFFIX} file as `weights`"
        raise EncoderError(msg)
    path = StoragePath.of(spec.weights)
    check_suffix(path.name, spec.name)
    return path


def _check_digest(spec: EncoderSpec, path: StoragePath) -> str:
    sha256 = digest(path)
    if spec.sha256 is not None and sha256 != spec.sha256.lower():
        msg = (
            f"encoder '{spec.name}': {StoragePath.of(str(spec.weights))} has sha256 {sha256}, expected {spec.sha256}: "
            "another or damaged file. Use the right file, or set `sha256` to this digest if you mean this file"
        )
        raise EncoderError(msg)
    return sha256


def _read(spec: EncoderSpec, path: Path) -> State:
    """Read the tensors of a safetensors file, or of an older file that holds only tensors."""
    if not path.name.endswith(SUFFIX):
        return _read_pickle(spec, path)
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        msg = f"encoder '{spec.name}': {path.name} is not a complete safetensors file ({error}): download it again"
        raise EncoderError(msg) from None


def _read_pickle(spec: EncoderSpec, path: Path) -> State:
    try:
        state: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        msg = (
            f"encoder '{spec.name}': {path.name} holds more than tensors, or is damaged ({reason}): "
            f"download it again, or if you trust it, convert it with safetensors.torch.save_file"
        )
        raise EncoderError(msg) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"encoder '{spec.name}': {path.name} is not a complete weights file ({reason}): download it again"
        raise EncoderError(msg) from None
    for key in _NESTED_KEYS:
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        msg = f"encoder '{spec.name}': {path.name} is not a dictionary of tensors: save only the network's state_dict"
        raise EncoderError(msg)
    return {str(name): tensor for name, tensor in state.items()}


def _load_exactly(spec: EncoderSpec, network: nn.Module, state: State) -> None:
    expected = network.state_dict()
    misshapen = [
        f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
        for name, tensor in state.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    # strict=False, to report all differences in one message. torch accepts that BatchNorm's counters are absent.
    difference = _KeyDifference([], []) if misshapen else _assign(network, expected, state)
    faults = {"missing": difference.missing, "unknown": difference.unexpected, "of another shape": misshapen}
    reasons = "; ".join(f"{fault}: {some(names)}" for fault, names in faults.items() if names)
    if reasons:
        msg = f"encoder '{spec.name}': {StoragePath.of(str(spec.weights))} does not hold this network's weights; "
        raise EncoderError(msg + reasons)


def _assign(network: nn.Module, expected: State, state: State) -> _KeyDifference:
    """Load a file's tensors into the network, in its own types, and return the names that differ; empties `state`.

    A network on the meta device owns the tensors afterwards. They are copied first: safetensors maps its file into
    memory, so a later change of the file would change the weights.
    """
    if not any(parameter.is_meta for parameter in network.parameters()):
        keys = network.load_state_dict(state, strict=False)
    else:
        own = {}
        for name in list(state):
            tensor = state.pop(name)
            own[name] = tensor.to(expected[name].dtype, copy=True) if name in expected else tensor
        keys = network.load_state_dict(own, strict=False, assign=True)
    return _KeyDifference(list(keys.missing_keys), list(keys.unexpected_keys))
