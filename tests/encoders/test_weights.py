"""Laws of weights files: complete, exactly the given one, and no code is run."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from raystp.encoders import weights
from raystp.encoders.encoder import EncoderSpec
from raystp.errors import EncoderError, StorageError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def spec_of(path: Path, sha256: str | None = None) -> EncoderSpec:
    return EncoderSpec("toy", weights=str(path), sha256=sha256)


def save(path: Path, state: dict[str, torch.Tensor]) -> Path:
    safetensors.torch.save_file(state, path)
    return path


def test_weights_and_digest_round_trip(tmp_path: Path) -> None:
    source, target = network(), network()
    path = save(tmp_path / "a.safetensors", source.state_dict())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.load(spec_of(path, digest.upper()), target) == digest == weights.file_digest(spec_of(path))
    assert weights.state_digest(source) == weights.state_digest(target)


def test_counters_of_batchnorm_may_be_absent(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    weights.load(spec_of(save(tmp_path / "a.safetensors", state)), network())


def test_another_digest_is_refused_and_both_are_shown(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", network().state_dict())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for function in (weights.file_digest, lambda spec: weights.load(spec, network())):
        with pytest.raises(EncoderError, match=f"has sha256 {digest}, expected {'0' * 64}"):
            function(spec_of(path, "0" * 64))


def test_missing_unknown_and_misshapen_tensors_are_reported(tmp_path: Path) -> None:
    state = network().state_dict()
    state["head.weight"] = state.pop("0.weight")
    with pytest.raises(EncoderError, match=r"a\.safetensors does not.*missing: '0.weight'; unknown: 'head.weight'"):
        weights.load(spec_of(save(tmp_path / "a.safetensors", state)), network())
    state = {**network().state_dict(), "0.weight": torch.zeros(3, 5)}
    with pytest.raises(EncoderError, match=r"of another shape: '0.weight \(3, 5\) for \(3, 2\)'"):
        weights.load(spec_of(save(tmp_path / "b.safetensors", state)), network())


def test_only_a_given_classifier_may_be_extra_in_the_file(tmp_path: Path) -> None:
    state = {**network().state_dict(), "head.weight": torch.zeros(3, 5), "head.bias": torch.zeros(3)}
    spec = spec_of(save(tmp_path / "a.safetensors", state))
    weights.load(spec, network(), without=["head"])
    with pytest.raises(EncoderError, match=r"unknown: 'head\.bias', 'head\.weight'"):
        weights.load(spec, network())


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", network().state_dict())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(EncoderError, match=r"a\.safetensors is not a complete safetensors file"):
        weights.load(spec_of(path), network())


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth", "a.bin", "a.pkl", "a.ckpt"])
def test_a_pickle_that_would_run_code_is_refused_and_never_run(tmp_path: Path, name: str) -> None:
    torch.save({"0.weight": Marker(tmp_path / "ran")}, tmp_path / name)
    messages = {".safetensors": "not a complete safetensors file", ".pkl": "never opened", ".ckpt": "never opened"}
    with pytest.raises(EncoderError, match=messages.get(Path(name).suffix, "holds more than tensors")):
        weights.load(spec_of(tmp_path / name), network())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin"])
@pytest.mark.parametrize("nest", [None, "model", "state_dict", "teacher"])
def test_an_older_file_of_tensors_is_read_and_its_digest_checked(tmp_path: Path, name: str, nest: str | None) -> None:
    source, target = network(), network()
    state = source.state_dict() if nest is None else {nest: source.state_dict(), "epoch": 3}
    torch.save(state, tmp_path / name)
    digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert weights.load(spec_of(tmp_path / name, digest), target) == digest
    assert weights.state_digest(source) == weights.state_digest(target)
    with pytest.raises(EncoderError, match=f"has sha256 {digest}, expected {'0' * 64}"):
        weights.load(spec_of(tmp_path / name, "0" * 64), network())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"not a pickle", b"\x80\x02}q\x00."])
def test_a_damaged_or_empty_older_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(EncoderError, match=r"a\.bin.*(download it again|does not hold this network's weights)"):
        weights.load(spec_of(tmp_path / "a.bin"), network())


def test_a_truncated_older_file_is_refused(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:-200])
    with pytest.raises(EncoderError, match=r"a\.bin is not a complete weights file"):
        weights.load(spec_of(tmp_path / "a.bin"), network())


def test_an_older_file_of_other_objects_is_refused(tmp_path: Path) -> None:
    for value in ([torch.zeros(2)], {"0.weight": 3}, torch.zeros(2)):
        torch.save(value, tmp_path / "a.bin")
        with pytest.raises(EncoderError, match=r"a\.bin is not a dictionary of tensors"):
            weights.load(spec_of(tmp_path / "a.bin"), network())


def test_a_network_on_the_meta_device_takes_the_files_tensors_and_can_be_trained(tmp_path: Path) -> None:
    source = network()
    path = save(tmp_path / "a.safetensors", {name: tensor.half() for name, tensor in source.state_dict().items()})
    with torch.device("meta"):
        target = network()
    weights.load(spec_of(path), target)
    assert all(p.dtype == torch.float32 and p.requires_grad and not p.is_meta for p in target.parameters())
    np.testing.assert_allclose(target.state_dict()["0.weight"], source.state_dict()["0.weight"], atol=1e-3)
    target(torch.rand(4, 2)).sum().backward()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_later_change_of_the_file_changes_no_weight(tmp_path: Path, device: str) -> None:
    path = save(tmp_path / "a.safetensors", network().state_dict())
    with torch.device(device):
        target = network()
    weights.load(spec_of(path), target)
    before = weights.state_digest(target)
    with path.open("r+b") as file:
        file.seek(-60, 2)
        file.write(b"\x01" * 60)
    assert weights.state_digest(target) == before


def test_a_layout_renames_the_tensors_of_the_file(tmp_path: Path) -> None:
    source, target = network(), network()
    path = save(tmp_path / "a.safetensors", {f"outer.{name}": t for name, t in source.state_dict().items()})
    weights.load(spec_of(path), target, layout=lambda state: {n.removeprefix("outer."): t for n, t in state.items()})
    assert weights.state_digest(source) == weights.state_digest(target)


def test_an_absent_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*absent\.safetensors"):
        weights.load(spec_of(tmp_path / "absent.safetensors"), network())
