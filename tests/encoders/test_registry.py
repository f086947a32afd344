"""Laws of every encoder in the registry."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raystp.encoders import registry
from raystp.encoders.encoder import EncoderSpec, encode
from raystp.errors import EncoderError
from raystp.units import TilePixels

WITHOUT_A_FILE = sorted(registry.ENCODERS.keys() - registry.CARDS.keys() - {"mobilenet_v1_pw12"})


def random_tiles(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def blobs(count: int, radius: int, generator: np.random.Generator) -> np.ndarray:
    """Return pink tiles with purple discs of one radius on a fifth of the area: equal colours, another texture."""
    offsets = np.arange(-radius, radius + 1)
    disc = offsets[:, None] ** 2 + offsets**2 <= radius**2
    tiles = np.full((count, 224, 224, 3), (230, 170, 200), dtype=np.uint8)
    for tile in tiles:
        for y, x in generator.integers(radius, 224 - radius, (int(0.2 * 224**2 / disc.sum()), 2)):
            tile[y - radius : y + radius + 1, x - radius : x + radius + 1][disc] = (90, 60, 140)
    return tiles


@pytest.mark.parametrize("name", WITHOUT_A_FILE)
def test_the_description_of_an_encoder_matches_it(name: str) -> None:
    spec = EncoderSpec(name)
    encoder, description = registry.build(spec), registry.describe(spec)
    assert (encoder.dim, encoder.tile_px) == (description.dim, description.tile_px)
    assert encoder.name == name
    assert registry.identity(spec) == description.identity
    assert len(encoder.digest) == 64


@pytest.mark.parametrize("name", WITHOUT_A_FILE)
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    encoder = registry.build(EncoderSpec(name))
    tiles = random_tiles(65, encoder.tile_px)
    one = encode(encoder, tiles, device="cpu", batch=1)
    for batch in (7, 64):
        np.testing.assert_allclose(encode(encoder, tiles, device="cpu", batch=batch), one, atol=1e-5)


@pytest.mark.parametrize("name", WITHOUT_A_FILE)
def test_float16_is_close_to_float32(name: str) -> None:
    encoder = registry.build(EncoderSpec(name))
    tiles = random_tiles(4, encoder.tile_px)
    exact = encode(encoder, tiles, device="cpu")
    np.testing.assert_allclose(encode(encoder, tiles, device="cpu", precision="float16"), exact, atol=5e-3)


def test_both_dictionaries_have_the_same_encoders() -> None:
    assert registry.ENCODERS.keys() == registry.DESCRIPTIONS.keys()


def test_an_unknown_name_is_reported_with_the_known_ones() -> None:
    for function in (registry.build, registry.describe, registry.identity):
        with pytest.raises(
            EncoderError, match=r"choose mobilenet_v1_pw12, tiny, .*uni_v1.*timm:<model>.*hf-hub:.*mean 'tiny'\?"
        ):
            function(EncoderSpec("tinny"))
        with pytest.raises(EncoderError, match=r"did you mean 'virchow2'\?"):
            function(EncoderSpec("virchow-2"))


def test_tiny_is_defined_by_its_seed() -> None:
    first, again, other = (registry.build(EncoderSpec("tiny", seed=seed)) for seed in (1, 1, 2))
    tiles = random_tiles(3, 224)
    np.testing.assert_array_equal(encode(first, tiles, device="cpu"), encode(again, tiles, device="cpu"))
    assert first.digest == again.digest != other.digest
    assert registry.identity(EncoderSpec("tiny", seed=2)) == "seed:2"


def test_the_filters_of_a_seed_never_change() -> None:
    digest = registry.build(EncoderSpec("tiny")).digest
    assert digest == "7f7b5a31937d4c8c45118c988e75957b44a4b8a6b14fa85c4b9db28676771a8c"


def test_tiny_does_not_change_the_random_state_of_torch() -> None:
    before = torch.get_rng_state()
    registry.build(EncoderSpec("tiny"))
    assert torch.equal(before, torch.get_rng_state())


def test_tiny_accepts_other_tile_sizes() -> None:
    encoder = replace(registry.build(EncoderSpec("tiny")), tile_px=TilePixels(32))
    assert encode(encoder, random_tiles(3, 32), device="cpu").shape == (3, 128)


def test_tiny_distinguishes_textures_of_equal_colours() -> None:
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
    with pytest.raises(EncoderError, match="creates its filters from `seed` and reads no weights"):
        registry.identity(EncoderSpec("tiny", weights="a.safetensors"))
    with pytest.raises(EncoderError, match="reads no weights, got abc"):
        registry.identity(EncoderSpec("tiny", sha256="abc"))


def test_mobilenet_needs_its_file() -> None:
    with pytest.raises(EncoderError, match="'mobilenet_v1_pw12' has no weights file: give the path"):
        registry.describe(EncoderSpec("mobilenet_v1_pw12"))


def test_mobilenet_refuses_another_file_unless_its_digest_is_given(tmp_path: Path) -> None:
    path = tmp_path / "mobilenet.safetensors"
    path.write_bytes(b"something else")
    digest = hashlib.sha256(b"something else").hexdigest()
    spec = EncoderSpec("mobilenet_v1_pw12", weights=str(path))
    with pytest.raises(EncoderError, match=f"has sha256 {digest}, expected ea65163649a0"):
        registry.identity(spec)
    assert registry.identity(replace(spec, sha256=digest)) == digest
