"""Weights from a file: the one that was named, whole, and nothing that can run code.

Only safetensors is read. A pickle (.pt, .pth, .bin) runs code of its maker's choosing when opened, so those are refused
by their name, before a byte is read.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from raystp import artifacts
from raystp.encoders.encoder import EncoderSpec
from raystp.errors import EncoderError, some
from raystp.storage import Place

ENDING = ".safetensors"


def file_digest(spec: EncoderSpec) -> str:
    """Return the sha256 of the weights file; the whole file is read, also from an object store.

    Raises:
        EncoderError: no file is named, it is not safetensors by name, or its digest is not `spec.sha256`.
        StorageError: it cannot be read.
    """
    return _checked_digest(spec, _place(spec))


def load(spec: EncoderSpec, network: nn.Module, *, without: Collection[str] = ()) -> str:
    """Load the weights file into the network, all of it and exactly, and return the file's sha256.

    `without` names submodules (a classifier) that the network may lack and the file may still hold.

    Raises:
        EncoderError: as `file_digest`; or the file is damaged, or its tensors are not the network's.
        StorageError: the file cannot be read.
    """
    with _place(spec).local() as path:
        digest = _checked_digest(spec, Place.of(path))
        state = _read(spec, path)
    left_out = {f"{module}.{tensor}" for module in without for tensor in ("weight", "bias")} - set(network.state_dict())
    _load_exactly(spec, network, {name: tensor for name, tensor in state.items() if name not in left_out})
    return digest


def state_digest(network: nn.Module) -> str:
    """Return a sha256 of the network's tensors: their names, types, shapes and values."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def check_ending(name: str, encoder: str) -> None:
    """Raise EncoderError where a file of weights is not safetensors by its name."""
    if not name.endswith(ENDING):
        msg = (
            f"encoder '{encoder}': {name} is not a {ENDING} file, and other kinds are never opened, since a pickle can "
            f"run code: convert it with safetensors.torch.save_file, on a machine where you trust it"
        )
        raise EncoderError(msg)


def _place(spec: EncoderSpec) -> Place:
    if spec.weights is None:
        msg = f"encoder '{spec.name}' has no weights file: give the path or URI of its {ENDING} file as `weights`"
        raise EncoderError(msg)
    place = Place.of(spec.weights)
    check_ending(place.name, spec.name)
    return place


def _checked_digest(spec: EncoderSpec, place: Place) -> str:
    digest = artifacts.digest(place)
    if spec.sha256 is not None and digest != spec.sha256.lower():
        msg = (
            f"encoder '{spec.name}': {Place.of(str(spec.weights))} has sha256 {digest}, but {spec.sha256} was wanted: "
            f"another or a damaged file; get the right one, or name this digest as `sha256` if the file is meant"
        )
        raise EncoderError(msg)
    return digest


def _read(spec: EncoderSpec, path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        msg = f"encoder '{spec.name}': {path.name} is not a whole safetensors file ({error}): get it again"
        raise EncoderError(msg) from None


def _load_exactly(spec: EncoderSpec, network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    wanted = network.state_dict()
    misshapen = [
        f"{name} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    # strict=False, so that what differs is told in one sentence; to torch, BatchNorm's absent counters do not differ.
    keys = None if misshapen else network.load_state_dict(state, strict=False)
    missing, unexpected = (keys.missing_keys, keys.unexpected_keys) if keys else ([], [])
    faults = {"it lacks": missing, "it holds unknown": unexpected, "of another shape are": misshapen}
    told = "; ".join(f"{words} {some(names)}" for words, names in faults.items() if names)
    if told:
        msg = f"encoder '{spec.name}': {Place.of(str(spec.weights))} does not hold this network's weights: {told}"
        raise EncoderError(msg)
