"""Laws of the encoders that timm builds: any model by name, and the truncated MobileNet with its real file."""

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from raystp.encoders import registry
from raystp.encoders.encoder import Encoder, EncoderSpec, encode
from raystp.encoders.families import _torchvision, mobilenet
from raystp.encoders.families import timm_models as timm_family
from raystp.errors import EncoderError
from raystp.units import TilePixels
from tests.conftest import SHARED

_torchvision.make_importable()
timm: Any = importlib.import_module("timm")

pytestmark = pytest.mark.slow  # importing timm alone takes up to 8 s

MOBILENET = SHARED / "weights" / "mobilenet_v1_imagenet.safetensors"
has_mobilenet = pytest.mark.skipif(not MOBILENET.is_file(), reason=f"the MobileNet weights are not at {MOBILENET}")


def random_tiles(count: int, side: int = 224) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def rows_of(encoder: Encoder, tiles: np.ndarray, batch: int | None = None) -> np.ndarray:
    small = replace(encoder, tile_px=TilePixels(tiles.shape[1]))
    return encode(small, tiles, device="cpu", batch=batch)


@pytest.fixture(scope="module")
def resnet() -> Encoder:
    return registry.build(EncoderSpec("timm:resnet18", random=True, seed=3))


def test_a_local_file_gives_the_rows_of_the_network_it_was_saved_from(tmp_path: Path, resnet: Encoder) -> None:
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(resnet.network.state_dict(), path)
    spec = EncoderSpec("timm:resnet18", weights=str(path))
    loaded = registry.build(spec)
    tiles = random_tiles(3, 64)
    np.testing.assert_array_equal(rows_of(loaded, tiles), rows_of(resnet, tiles))
    assert loaded.digest == registry.identity(spec)
    with pytest.raises(EncoderError, match=r"missing: 'layer1\.2\.conv1\.weight'.* and \d+ more"):
        timm_family.build(EncoderSpec("timm:resnet34", weights=str(path)))


def test_a_published_file_loads_without_its_classifier_from_the_hub_and_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    safetensors.torch.save_file(timm.create_model("resnet10t").state_dict(), path)
    local = registry.build(EncoderSpec("timm:resnet10t", weights=str(path)))
    published = timm_family.as_encoder("timm:resnet10t", timm_family.load_published("resnet10t", path), "")
    tiles = random_tiles(2, 64)
    np.testing.assert_array_equal(rows_of(local, tiles), rows_of(published, tiles))
    state = local.network.state_dict()
    safetensors.torch.save_file(state, path)
    with pytest.raises(EncoderError, match=r"does not hold the weights that this timm expects.*fc\.weight"):
        timm_family.load_published("resnet10t", path)


def test_random_weights_are_defined_by_their_seed_and_do_not_change_the_random_state(resnet: Encoder) -> None:
    before = torch.get_rng_state()
    again = registry.build(EncoderSpec("timm:resnet18", random=True, seed=3))
    other = registry.build(EncoderSpec("timm:resnet18", random=True, seed=4))
    assert torch.equal(before, torch.get_rng_state())
    assert resnet.digest == again.digest != other.digest
    assert registry.identity(EncoderSpec("timm:resnet18", random=True, seed=4)) == "random:4"


@pytest.mark.parametrize("model", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_the_description_of_a_timm_model_matches_it(model: str) -> None:
    spec = EncoderSpec(f"timm:{model}", random=True)
    encoder, description = registry.build(spec), registry.describe(spec)
    assert (encoder.dim, encoder.tile_px) == (description.dim, description.tile_px)
    assert encode(encoder, random_tiles(2), device="cpu").shape == (2, encoder.dim)


def test_pixels_are_normalised_as_timm_states(resnet: Encoder) -> None:
    tiles = random_tiles(2)
    stated = timm.data.resolve_model_data_config(resnet.network)
    transform = timm.data.create_transform(**{**stated, "crop_pct": 1.0})
    pixels = torch.stack([transform(Image.fromarray(tile)) for tile in tiles])
    with torch.inference_mode():
        expected = resnet.network.eval()(pixels).numpy()
    np.testing.assert_allclose(encode(resnet, tiles, device="cpu"), expected, atol=1e-5)


def test_rows_of_a_resnet_do_not_depend_on_the_batch(resnet: Encoder) -> None:
    tiles = random_tiles(9, 64)
    one = rows_of(resnet, tiles, batch=1)
    np.testing.assert_allclose(rows_of(resnet, tiles, batch=7), one, atol=1e-5)
    np.testing.assert_allclose(rows_of(resnet, tiles, batch=64), one, atol=1e-5)


def test_published_weights_are_identified_by_model_and_tag() -> None:
    assert registry.identity(EncoderSpec("timm:resnet18")) == "hub:resnet18:a1_in1k"
    assert registry.identity(EncoderSpec("timm:resnet18.a2_in1k")) == "hub:resnet18:a2_in1k"


def test_an_unknown_model_or_tag_is_reported_with_close_ones() -> None:
    with pytest.raises(EncoderError, match=r"has no model 'resnet81'; did you mean .*'resnet18'"):
        registry.build(EncoderSpec("timm:resnet81", random=True))
    with pytest.raises(EncoderError, match=r"no weights 'mine' of model 'resnet18'; there are .*'resnet18\.a1_in1k'"):
        registry.build(EncoderSpec("timm:resnet18.mine"))


def test_a_model_without_published_weights_is_reported_with_alternatives() -> None:
    with pytest.raises(EncoderError, match="publishes no weights for model 'nf_resnet26': give a local"):
        registry.build(EncoderSpec("timm:nf_resnet26"))


def test_a_failed_download_is_reported_with_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants  # noqa: PLC0415 -- as lazy as in the code under test

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        EncoderError, match=r"timm/resnet18\.a1_in1k/model\.safetensors.*give a local \.safetensors file"
    ):
        registry.build(EncoderSpec("timm:resnet18"))


def test_timm_is_imported_only_when_needed() -> None:
    program = (
        "import sys; from raystp.encoders import registry, encoder; registry.build(encoder.EncoderSpec('tiny')); "
        "registry.identity(encoder.EncoderSpec('timm:resnet18', random=True)); "
        "print(sorted({'timm', 'torchvision'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_an_imported_torchvision_is_not_replaced() -> None:
    before = sys.modules["torchvision"]
    _torchvision.make_importable()
    assert sys.modules["torchvision"] is before


def test_mobilenet_needs_its_file() -> None:
    with pytest.raises(EncoderError, match="'mobilenet_v1_pw12' has no weights file: give the path"):
        registry.build(EncoderSpec("mobilenet_v1_pw12"))


@has_mobilenet
def test_the_real_mobilenet_matches_its_description() -> None:
    spec = EncoderSpec("mobilenet_v1_pw12", weights=str(MOBILENET))
    encoder, description = registry.build(spec), registry.describe(spec)
    assert encoder.digest == description.identity == mobilenet.SHA256
    assert (encoder.dim, encoder.tile_px) == (description.dim, description.tile_px) == (1024, 224)
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)


@has_mobilenet
def test_rows_of_the_real_mobilenet_do_not_depend_on_the_batch() -> None:
    encoder = registry.build(EncoderSpec("mobilenet_v1_pw12", weights=str(MOBILENET)))
    tiles = random_tiles(9)
    one, seven = (encode(encoder, tiles, device="cpu", batch=batch) for batch in (1, 7))
    np.testing.assert_allclose(seven, one, atol=1e-5)
    assert one.shape == (9, 1024)
    assert ((one >= 0) & (one <= 6)).all()  # means of ReLU6
