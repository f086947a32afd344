"""Laws of the cards: complete, described without timm, and a warning for other tiles than those of training."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from raystp.encoders import registry
from raystp.encoders.card import APACHE, Card
from raystp.encoders.encoder import EncoderSpec
from raystp.encoders.families import cards as card_family
from raystp.errors import EncoderError
from raystp.units import Microns, MicronsPerPixel, TilePixels

NAMES = sorted(registry.CARDS)

DIMS = {
    "uni_v1": 1024,
    "uni_v2": 1536,
    "conch_v1": 512,
    "conch_v15": 768,
    "virchow2": 2560,
    "gigapath": 1536,
    "hoptimus0": 1536,
    "hoptimus1": 1536,
    "phikon": 768,
    "phikon_v2": 1024,
    "midnight12k": 3072,
    "resnet50": 1024,
}
"""Row lengths that other tools have for these names."""


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_complete(name: str) -> None:
    card = registry.CARDS[name]
    assert card.name == name
    assert card.licence
    assert card.tile_px in (224, 448)
    assert all(0 < value < 1 for values in card.colours for value in values)
    assert all(0.1 < mpp < 4 for mpp in card.mpp)
    assert card.repository is None or card.repository.count("/") == 1


@pytest.mark.parametrize(("name", "dim"), DIMS.items())
def test_known_names_have_the_row_length_of_other_tools(name: str, dim: int) -> None:
    assert registry.CARDS[name].dim == dim


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_is_described_without_its_weights(name: str) -> None:
    card = registry.CARDS[name]
    description = registry.describe(EncoderSpec(name, random=True, seed=3))
    assert (description.dim, description.tile_px, description.mpp) == (card.dim, card.tile_px, card.mpp)
    assert description.identity == registry.identity(EncoderSpec(name, random=True, seed=3)) == "random:3"


def test_weights_of_the_hub_are_identified_by_digest_if_given_and_else_by_repository() -> None:
    assert registry.identity(EncoderSpec("uni_v1")) == "hub:MahmoodLab/UNI@main"
    assert registry.identity(EncoderSpec("uni_v1", sha256="AB" * 32)) == "ab" * 32


def test_a_local_file_is_known_by_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"weights")
    digest = registry.identity(EncoderSpec("uni_v1", weights=str(path)))
    assert registry.describe(EncoderSpec("uni_v1", weights=str(path), sha256=digest)).identity == digest
    with pytest.raises(EncoderError, match=f"has sha256 {digest}, expected {'0' * 64}"):
        registry.identity(EncoderSpec("uni_v1", weights=str(path), sha256="0" * 64))


def test_an_encoder_that_is_not_on_the_hub_needs_its_file() -> None:
    for function in (registry.identity, registry.describe, registry.build):
        with pytest.raises(EncoderError, match=r"'ctranspath' is not on the hub: give a local .*GPL-3\.0"):
            function(EncoderSpec("ctranspath"))


def test_describing_all_encoders_imports_no_timm() -> None:
    program = (
        "import sys; from raystp.encoders import registry; from raystp.encoders.encoder import EncoderSpec\n"
        "for name in registry.CARDS: registry.describe(EncoderSpec(name, random=True))\n"
        "print(sorted({'timm', 'torchvision', 'huggingface_hub'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def card_of(*mpp: float) -> Card:
    scales = tuple(MicronsPerPixel(value) for value in mpp)
    return Card(name="toy", model="", dim=3, millions=0.0, mpp=scales, licence=APACHE, repository=None)


@pytest.mark.parametrize("side", [112.0, 128.0, 100.0])
def test_tiles_near_the_trained_scale_give_no_warning(side: float) -> None:
    assert card_of(0.5).tile_warning(Microns(side), TilePixels(224)) is None


def test_tiles_of_any_trained_scale_give_no_warning() -> None:
    for side in (56.0, 112.0, 224.0, 448.0):
        assert card_of(0.25, 0.5, 1.0, 2.0).tile_warning(Microns(side), TilePixels(224)) is None


def test_tiles_of_another_scale_give_a_warning_with_the_right_size() -> None:
    warning = card_of(0.5).tile_warning(Microns(55.0), TilePixels(224))
    assert warning is not None
    assert "'toy' was trained at 0.5 um/px, tiles of 55 um and 224 px are at 0.246" in warning
    assert "use tiles of 112 um" in warning
    assert "use tiles of 448 um" in (card_of(0.5, 2.0).tile_warning(Microns(900.0), TilePixels(224)) or "")


def test_tiles_of_another_pixel_size_give_a_warning() -> None:
    assert "expects tiles of 224 px, these have 256 px" in (
        card_of(0.5).tile_warning(Microns(128.0), TilePixels(256)) or ""
    )


def test_encoders_of_photographs_and_without_a_card_give_no_warning() -> None:
    assert card_of().tile_warning(Microns(55.0), TilePixels(224)) is None
    assert registry.tile_warning(EncoderSpec("tiny"), Microns(55.0), TilePixels(224)) is None
    assert "trained at 0.5" in (registry.tile_warning(EncoderSpec("phikon"), Microns(55.0), TilePixels(224)) or "")


def test_a_failed_download_is_reported_with_alternatives_and_the_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants  # noqa: PLC0415 -- as lazy as in the code under test

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        EncoderError,
        match=r"MahmoodLab/UNI/pytorch_model\.bin.*'uni_v1'.*gated: accept its terms at https://huggingface\.co/MahmoodLab/"
        r"UNI and log in: give a local \.safetensors file",
    ):
        registry.build(EncoderSpec("uni_v1"))
    with pytest.raises(EncoderError, match=r"owkin/phikon/model\.safetensors.*\): give a local"):
        registry.build(EncoderSpec("phikon"))
    with pytest.raises(EncoderError, match="a/b/model"):
        card_family.download(replace(card_of(), repository="a/b"))


def test_files_in_the_hubs_cache_are_found_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants  # noqa: PLC0415 -- as lazy as in the code under test

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--a--b"
    (kept / "snapshots" / "1234").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("1234")
    (kept / "snapshots" / "1234" / "pytorch_model.bin").write_bytes(b"weights")
    card = replace(card_of(), repository="a/b")
    assert Path(card_family.download(card)).read_bytes() == b"weights"
    (kept / "snapshots" / "1234" / "model.safetensors").write_bytes(b"safe")
    assert Path(card_family.download(card)).read_bytes() == b"safe"
