"""Weights from a file: the one that was named, whole, and nothing that can run code.

safetensors holds tensors and nothing else. Older files (.bin, .pt, .pth) are pickles, which run code of their maker's
choosing when opened: torch opens them with `weights_only`, which makes tensors and plain containers and refuses the
rest. Files of any other name are refused before a byte is read.
"""

import hashlib
import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from raystp import artifacts
from raystp.encoders.encoder import EncoderSpec
from raystp.errors import EncoderError, some
from raystp.storage import StoragePath

ENDING = ".safetensors"
OLDER = (".bin", ".pt", ".pth")

State = dict[str, torch.Tensor]

_NESTS = ("model", "state_dict", "teacher")
"""Where training code keeps the weights, beside optimisers and counters."""


def file_digest(spec: EncoderSpec) -> str:
    """Return the sha256 of the weights file; the whole file is read, also from an object store.

    Raises:
        EncoderError: no file is named, it is of another kind by its name, or its digest is not `spec.sha256`.
        StorageError: it cannot be read.
    """
    return _checked_digest(spec, _place(spec))


def load(
    spec: EncoderSpec,
    network: nn.Module,
    *,
    without: Collection[str] = (),
    layout: Callable[[State], State] | None = None,
) -> str:
    """Load the weights file into the network, all of it and exactly, and return the file's sha256.

    `without` names submodules (a classifier) that the network may lack and the file may still hold; `layout` gives the
    file's tensors the network's names. A network on the meta device takes the file's tensors as its own.

    Raises:
        EncoderError: as `file_digest`; or the file is damaged, or its tensors are not the network's.
        StorageError: the file cannot be read.
    """
    with _place(spec).local() as path:
        digest = _checked_digest(spec, StoragePath.of(path))
        state = _read(spec, path)
    if layout is not None:
        state = layout(state)
    left_out = {f"{module}.{tensor}" for module in without for tensor in ("weight", "bias")} - set(network.state_dict())
    for name in left_out & state.keys():
        del state[name]
    _load_exactly(spec, network, state)
    return digest


def state_digest(network: nn.Module) -> str:
    """Return a sha256 of the network's tensors: their names, types, shapes and values."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def check_ending(name: str, encoder: str) -> None:
    """Raise EncoderError where a file is not of weights by its name."""
    if not name.endswith((ENDING, *OLDER)):
        msg = (
            f"encoder '{encoder}': {name} is not a {ENDING} file, nor an older {', '.join(OLDER)}, and other kinds are "
            f"never opened, since they can run code: convert it with safetensors.torch.save_file, where you trust it"
        )
        raise EncoderError(msg)


def _place(spec: EncoderSpec) -> StoragePath:
    if spec.weights is None:
        msg = f"encoder '{spec.name}' has no weights file: give the path or URI of its {ENDING} file as `weights`"
        raise EncoderError(msg)
    place = StoragePath.of(spec.weights)
    check_ending(place.name, spec.name)
    return place


def _checked_digest(spec: EncoderSpec, place: StoragePath) -> str:
    digest = artifacts.digest(place)
    if spec.sha256 is not None and digest != spec.sha256.lower():
        msg = (
            f"encoder '{spec.name}': {StoragePath.of(str(spec.weights))} has sha256 {digest}, expected {spec.sha256}: "
            "another or damaged file. Use the right file, or set `sha256` to this digest if you mean this file"
        )
        raise EncoderError(msg)
    return digest


def _read(spec: EncoderSpec, path: Path) -> State:
    """Read a file's tensors, by its name as safetensors or as an older file of tensors alone."""
    if not path.name.endswith(ENDING):
        return _read_older(spec, path)
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        msg = f"encoder '{spec.name}': {path.name} is not a whole safetensors file ({error}): get it again"
        raise EncoderError(msg) from None


def _read_older(spec: EncoderSpec, path: Path) -> State:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        msg = (
            f"encoder '{spec.name}': {path.name} holds more than tensors, or is damaged ({reason}): "
            f"get it again, or convert it with safetensors.torch.save_file, where you trust it"
        )
        raise EncoderError(msg) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"encoder '{spec.name}': {path.name} is not a whole file of weights ({reason}): get it again"
        raise EncoderError(msg) from None
    for nest in _NESTS:
        state = state.get(nest, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        msg = f"encoder '{spec.name}': {path.name} holds no plain table of tensors: save the network's state_dict alone"
        raise EncoderError(msg)
    return {str(name): tensor for name, tensor in state.items()}


def _load_exactly(spec: EncoderSpec, network: nn.Module, state: State) -> None:
    wanted = network.state_dict()
    misshapen = [
        f"{name} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    # strict=False, so that what differs is told in one sentence; to torch, BatchNorm's absent counters do not differ.
    keys = None if misshapen else _assigned(network, wanted, state)
    missing, unexpected = (keys.missing_keys, keys.unexpected_keys) if keys else ([], [])
    faults = {"it lacks": missing, "it holds unknown": unexpected, "of another shape are": misshapen}
    told = "; ".join(f"{words} {some(names)}" for words, names in faults.items() if names)
    if told:
        msg = f"encoder '{spec.name}': {StoragePath.of(str(spec.weights))} does not hold this network's weights: {told}"
        raise EncoderError(msg)


def _assigned(network: nn.Module, wanted: State, state: State) -> Any:
    """Give the network a file's tensors, in its own types, and return the names that differ; `state` is used up.

    A network on the meta device owns them afterwards. They are copied first: safetensors maps its file into memory, and
    whoever wrote to the file later would change the weights.
    """
    if not any(parameter.is_meta for parameter in network.parameters()):
        return network.load_state_dict(state, strict=False)
    own = {}
    for name in list(state):
        tensor = state.pop(name)
        own[name] = tensor.to(wanted[name].dtype, copy=True) if name in wanted else tensor
    return network.load_state_dict(own, strict=False, assign=True)
