"""Laws of models on the hub with timm's config, from a local cache of the hub; no request is made."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from raystp.encoders import registry, weights
from raystp.encoders.encoder import EncoderSpec, encode
from raystp.encoders.families import _torchvision
from raystp.errors import EncoderError

_torchvision.make_importable()
timm: Any = importlib.import_module("timm")

pytestmark = pytest.mark.slow  # importing timm alone takes up to 8 s

NAME = "hf-hub:maker/model"
PIXELS = {"input_size": [3, 96, 96], "mean": [0.7, 0.6, 0.7], "std": [0.2, 0.25, 0.2], "classifier": "fc"}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of `maker/model` in the hub's cache, which is read offline."""
    from huggingface_hub import constants  # noqa: PLC0415 -- as lazy as in the code under test

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--maker--model"
    folder = repository / "snapshots" / "1234"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1234")
    (folder / "config.json").write_text(
        json.dumps({"architecture": "resnet10t", "num_classes": 7, "pretrained_cfg": PIXELS})
    )
    return folder


def test_a_model_is_built_from_its_config_and_its_weights_without_its_classifier(cached: Path) -> None:
    network = timm.create_model("resnet10t", num_classes=7).eval()
    safetensors.torch.save_file(network.state_dict(), cached / "model.safetensors")
    encoder, description = registry.build(EncoderSpec(NAME)), registry.describe(EncoderSpec(NAME))
    assert (encoder.dim, encoder.tile_px) == (description.dim, description.tile_px) == (512, 96)
    assert (encoder.name, encoder.mean) == (NAME, (0.7, 0.6, 0.7))
    assert encoder.digest == weights.file_digest(EncoderSpec(NAME, weights=str(cached / "model.safetensors")))
    tiles = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    mean, std = (torch.tensor(PIXELS[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        pixels = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True)
    np.testing.assert_allclose(encode(encoder, tiles, device="cpu"), expected, atol=1e-5)


def test_the_digest_of_the_hubs_file_may_be_given(cached: Path) -> None:
    state = timm.create_model("resnet10t", num_classes=7).state_dict()
    torch.save(state, cached / "pytorch_model.bin")
    digest = weights.file_digest(EncoderSpec(NAME, weights=str(cached / "pytorch_model.bin")))
    pinned = EncoderSpec(NAME, sha256=digest)
    assert registry.build(pinned).digest == registry.identity(pinned) == digest
    with pytest.raises(EncoderError, match=f"has sha256 {digest}, expected {'0' * 64}"):
        registry.build(EncoderSpec(NAME, sha256="0" * 64))


def test_weights_are_identified_by_repository_and_revision() -> None:
    assert registry.identity(EncoderSpec(NAME)) == "hub:maker/model@main"
    assert registry.identity(EncoderSpec(f"{NAME}@v2")) == "hub:maker/model@v2"
    assert registry.identity(EncoderSpec(NAME, random=True, seed=2)) == "random:2"


def test_random_weights_are_defined_by_their_seed(cached: Path) -> None:
    assert cached.is_dir()
    digests = [registry.build(EncoderSpec(NAME, random=True, seed=seed)).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_failed_download_is_reported_with_alternatives(cached: Path) -> None:
    assert cached.is_dir()
    with pytest.raises(
        EncoderError, match=r"cannot download maker/other/config\.json.*give a local \.safetensors file"
    ):
        registry.describe(EncoderSpec("hf-hub:maker/other"))
    with pytest.raises(EncoderError, match=r"cannot download maker/model/model\.safetensors, which encoder"):
        registry.build(EncoderSpec(NAME))
    with pytest.raises(EncoderError, match="cannot download no repository at all"):
        registry.describe(EncoderSpec("hf-hub:no repository at all"))


@pytest.mark.parametrize("config", [{"model_type": "dinov2"}, {"architecture": "no_such_net"}, []])
def test_a_config_that_is_not_timms_is_refused(cached: Path, config: object) -> None:
    (cached / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"timm cannot build what its config\.json describes"):
        registry.describe(EncoderSpec(NAME))
