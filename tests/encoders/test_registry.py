"""Laws of every encoder by name, and of the weights files behind them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from raystp.encoders import registry, weights
from raystp.encoders.encoder import EncoderSpec, encode
from raystp.errors import EncoderError, StorageError
from raystp.units import TilePixels

WITHOUT_A_FILE = sorted(set(registry.ENCODERS) - {"mobilenet_v1_pw12"})


def random_tiles(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def blobs(count: int, radius: int, generator: np.random.Generator) -> np.ndarray:
    """Pink tiles whose purple covers about a fifth, in spots of one radius: equal colours, another texture."""
    places = np.arange(-radius, radius + 1)
    disc = places[:, None] ** 2 + places**2 <= radius**2
    tiles = np.full((count, 224, 224, 3), (230, 170, 200), dtype=np.uint8)
    for tile in tiles:
        for y, x in generator.integers(radius, 224 - radius, (int(0.2 * 224**2 / disc.sum()), 2)):
            tile[y - radius : y + radius + 1, x - radius : x + radius + 1][disc] = (90, 60, 140)
    return tiles


@pytest.mark.parametrize("name", WITHOUT_A_FILE)
def test_what_is_said_of_an_encoder_before_it_is_built_holds(name: str) -> None:
    spec = EncoderSpec(name)
    encoder, description = registry.build(spec), registry.describe(spec)
    assert (encoder.dim, encoder.pixels) == (description.dim, description.pixels)
    assert encoder.name == name
    assert registry.identity(spec) == description.identity
    assert len(encoder.digest) == 64


@pytest.mark.parametrize("name", WITHOUT_A_FILE)
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    encoder = registry.build(EncoderSpec(name))
    tiles = random_tiles(65, encoder.pixels)
    one = encode(encoder, tiles, device="cpu", batch=1)
    for batch in (7, 64):
        np.testing.assert_allclose(encode(encoder, tiles, device="cpu", batch=batch), one, atol=1e-5)


@pytest.mark.parametrize("name", WITHOUT_A_FILE)
def test_float16_is_close_to_float32(name: str) -> None:
    encoder = registry.build(EncoderSpec(name))
    tiles = random_tiles(4, encoder.pixels)
    exact = encode(encoder, tiles, device="cpu")
    np.testing.assert_allclose(encode(encoder, tiles, device="cpu", precision="float16"), exact, atol=5e-3)


def test_both_dictionaries_know_the_same_encoders() -> None:
    assert registry.ENCODERS.keys() == registry.DESCRIPTIONS.keys()


def test_an_unknown_name_is_told_the_known_ones() -> None:
    for question in (registry.build, registry.describe, registry.identity):
        with pytest.raises(EncoderError, match=r"there are mobilenet_v1_pw12, tiny, and timm:<model>.*mean 'tiny'\?"):
            question(EncoderSpec("tinny"))


def test_tiny_is_its_seed() -> None:
    first, again, other = (registry.build(EncoderSpec("tiny", seed=seed)) for seed in (1, 1, 2))
    tiles = random_tiles(3, 224)
    np.testing.assert_array_equal(encode(first, tiles, device="cpu"), encode(again, tiles, device="cpu"))
    assert first.digest == again.digest != other.digest
    assert registry.identity(EncoderSpec("tiny", seed=2)) == "seed:2"


def test_filters_of_a_seed_stay_the_same_for_ever() -> None:
    digest = registry.build(EncoderSpec("tiny")).digest
    assert digest == "7f7b5a31937d4c8c45118c988e75957b44a4b8a6b14fa85c4b9db28676771a8c"


def test_tiny_leaves_the_random_state_of_torch_alone() -> None:
    before = torch.get_rng_state()
    registry.build(EncoderSpec("tiny"))
    assert torch.equal(before, torch.get_rng_state())


def test_tiny_serves_other_sides() -> None:
    encoder = replace(registry.build(EncoderSpec("tiny")), pixels=TilePixels(32))
    assert encode(encoder, random_tiles(3, 32), device="cpu").shape == (3, 128)


def test_tiny_sees_texture_where_the_colours_are_equal() -> None:
    generator = np.random.default_rng(0)
    tiles = np.concatenate([blobs(40, 4, generator), blobs(40, 10, generator)])
    truth = np.repeat([-1.0, 1.0], 40)
    rows = encode(registry.build(EncoderSpec("tiny")), tiles, device="cpu")
    trained = np.arange(80) % 2 == 0
    mean, std = rows[trained].mean(0), rows[trained].std(0) + 1e-6
    centred = (rows - mean) / std
    gram = centred[trained].T @ centred[trained] + 10 * np.eye(128)
    ridge = np.linalg.solve(gram, centred[trained].T @ truth[trained])
    assert (np.sign(centred[~trained] @ ridge) == truth[~trained]).all()


def test_a_constant_tile_has_no_texture_and_its_own_colour() -> None:
    tiles = np.full((1, 224, 224, 3), (255, 0, 255), dtype=np.uint8)
    rows = encode(registry.build(EncoderSpec("tiny")), tiles, device="cpu")[0]
    np.testing.assert_allclose(rows[:3], [1, -1, 1], atol=1e-5)
    np.testing.assert_allclose(rows[3:], 0, atol=1e-4)


def test_tiny_reads_no_file() -> None:
    with pytest.raises(EncoderError, match="makes its filters from `seed` and reads no file"):
        registry.identity(EncoderSpec("tiny", weights="a.safetensors"))


def test_mobilenet_wants_its_file() -> None:
    with pytest.raises(EncoderError, match="'mobilenet_v1_pw12' has no weights file: give the path"):
        registry.describe(EncoderSpec("mobilenet_v1_pw12"))


def test_mobilenet_refuses_another_file_unless_its_digest_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mobilenet.safetensors"
    path.write_bytes(b"something else")
    digest = hashlib.sha256(b"something else").hexdigest()
    spec = EncoderSpec("mobilenet_v1_pw12", weights=str(path))
    with pytest.raises(EncoderError, match=f"has sha256 {digest}, but ea65163649a0.* was wanted"):
        registry.identity(spec)
    assert registry.identity(replace(spec, sha256=digest)) == digest


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def spec_of(path: Path, sha256: str | None = None) -> EncoderSpec:
    return EncoderSpec("toy", weights=str(path), sha256=sha256)


def save(path: Path, state: dict[str, torch.Tensor]) -> Path:
    safetensors.torch.save_file(state, path)
    return path


def test_weights_come_back_from_their_file_and_its_digest_with_them(tmp_path: Path) -> None:
    source, target = network(), network()
    path = save(tmp_path / "a.safetensors", source.state_dict())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.load(spec_of(path, digest.upper()), target) == digest == weights.file_digest(spec_of(path))
    assert weights.state_digest(source) == weights.state_digest(target)


def test_counters_of_batchnorm_may_be_left_out(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    weights.load(spec_of(save(tmp_path / "a.safetensors", state)), network())


def test_another_digest_is_refused_with_both(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", network().state_dict())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for question in (weights.file_digest, lambda spec: weights.load(spec, network())):
        with pytest.raises(EncoderError, match=f"has sha256 {digest}, but {'0' * 64} was wanted"):
            question(spec_of(path, "0" * 64))


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    state = network().state_dict()
    state["head.weight"] = state.pop("0.weight")
    with pytest.raises(
        EncoderError, match=r"a\.safetensors does not.*it lacks '0.weight'; it holds unknown 'head.weight'"
    ):
        weights.load(spec_of(save(tmp_path / "a.safetensors", state)), network())
    state = {**network().state_dict(), "0.weight": torch.zeros(3, 5)}
    with pytest.raises(EncoderError, match=r"of another shape are '0.weight \(3, 5\) for \(3, 2\)'"):
        weights.load(spec_of(save(tmp_path / "b.safetensors", state)), network())


def test_only_a_named_classifier_may_be_left_in_the_file(tmp_path: Path) -> None:
    state = {**network().state_dict(), "head.weight": torch.zeros(3, 5), "head.bias": torch.zeros(3)}
    spec = spec_of(save(tmp_path / "a.safetensors", state))
    weights.load(spec, network(), without=["head"])
    with pytest.raises(EncoderError, match=r"it holds unknown 'head\.bias', 'head\.weight'"):
        weights.load(spec, network())


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", network().state_dict())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(EncoderError, match=r"a\.safetensors is not a whole safetensors file"):
        weights.load(spec_of(path), network())


class Marker:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth", "a.bin", "a.pkl"])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, name: str) -> None:
    torch.save({"0.weight": Marker(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(EncoderError, match="not a whole safetensors file" if "safe" in name else "never opened"):
        weights.load(spec_of(tmp_path / name), network())
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*absent\.safetensors"):
        weights.load(spec_of(tmp_path / "absent.safetensors"), network())
