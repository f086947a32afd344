"""Laws of every published encoder, with random weights: the real files are not available where these tests run.

The whole network is created on torch's meta device, where 1.1 billion parameters take no memory. Rows are computed by
the same network with one block of full width, from a file in the makers' own layout.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from raystp.encoders import registry
from raystp.encoders.card import Card
from raystp.encoders.encoder import Encoder, EncoderSpec, encode
from raystp.encoders.families import _torchvision
from raystp.encoders.families import cards as card_family
from raystp.encoders.layouts import State
from raystp.errors import EncoderError

_torchvision.make_importable()
timm: Any = importlib.import_module("timm")

pytestmark = pytest.mark.slow  # importing timm alone takes up to 8 s

NAMES = sorted(registry.CARDS)
CONVOLUTIONAL = {"ctranspath", "resnet50"}


def random_tiles(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def shallow(name: str) -> Card:
    """Return a card with one block; the two small networks are not changed."""
    card = registry.CARDS[name]
    return card if name in CONVOLUTIONAL else replace(card, options={**card.options, "depth": 1})


@pytest.fixture(scope="module", params=NAMES)
def card_and_encoder(request: pytest.FixtureRequest) -> tuple[Card, Encoder]:
    """Return a card of one block and its encoder with random weights; none is 0 or 1, as many initial ones are."""
    card = shallow(request.param)
    encoder = card_family.build(card, EncoderSpec(card.name, random=True, seed=1))
    with torch.no_grad():
        for parameter in encoder.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)), alpha=0.02)
    return card, encoder


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_network_has_the_size_and_dim_of_its_card(name: str) -> None:
    card = registry.CARDS[name]
    with torch.device("meta"), torch.inference_mode():
        network = card_family.create(card).eval()
        rows = network(torch.zeros(2, 3, card.tile_px, card.tile_px))
    assert rows.shape == (2, card.dim)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(card.millions, abs=0.06)


def test_a_file_in_the_makers_layout_gives_the_rows_of_the_network_it_was_saved_from(
    card_and_encoder: tuple[Card, Encoder], tmp_path: Path
) -> None:
    card, encoder = card_and_encoder
    path = tmp_path / card.files[0]
    save(path, published(card, encoder))
    spec = EncoderSpec(card.name, weights=str(path))
    loaded = card_family.build(card, spec)
    tiles = random_tiles(2, card.tile_px)
    np.testing.assert_allclose(rows_of(loaded, tiles), rows_of(encoder, tiles), atol=1e-5)
    assert (loaded.name, loaded.dim, loaded.tile_px) == (card.name, card.dim, card.tile_px)
    assert loaded.digest == card_family.describe(card, spec).identity
    path.unlink()  # up to 0.2 GB each


def test_rows_depend_on_both_halves_of_a_tile_and_not_on_the_batch(card_and_encoder: tuple[Card, Encoder]) -> None:
    card, encoder = card_and_encoder
    tiles, half = random_tiles(1, card.tile_px).repeat(3, axis=0), card.tile_px // 2
    tiles[1, :, :half], tiles[2, :, half:] = 0, 0
    rows = rows_of(encoder, tiles, batch=1)
    np.testing.assert_allclose(rows_of(encoder, tiles, batch=2), rows, atol=1e-5)
    assert min(np.abs(rows[one] - rows[other]).max() for one, other in ((0, 1), (0, 2), (1, 2))) > 1e-3


def test_a_file_of_another_network_is_refused_with_the_tensors_that_differ(tmp_path: Path) -> None:
    card = shallow("uni_v1")
    state = published(card, card_family.build(card, EncoderSpec("uni_v1", random=True)))
    state["blocks.0.attn.qkv.bogus"] = state.pop("blocks.0.attn.qkv.bias")
    save(tmp_path / "a.bin", state)
    with pytest.raises(
        EncoderError,
        match=r"a\.bin does not hold this network's weights; missing: 'trunk\.blocks\.0\.attn\.qkv\.bias'; "
        r"unknown: 'trunk\.blocks\.0\.attn\.qkv\.bogus'",
    ):
        card_family.build(card, EncoderSpec("uni_v1", weights=str(tmp_path / "a.bin")))
    save(tmp_path / "b.safetensors", {"cls_token": torch.zeros(1, 1, 768)})
    with pytest.raises(EncoderError, match=r"of another shape: 'trunk\.cls_token \(1, 1, 768\) for \(1, 1, 1024\)'"):
        card_family.build(card, EncoderSpec("uni_v1", weights=str(tmp_path / "b.safetensors")))


def test_hibou_is_read_from_metas_layout_too(tmp_path: Path) -> None:
    card = shallow("hibou_b")
    encoder = card_family.build(card, EncoderSpec("hibou_b", random=True))
    state = {
        name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3."): t for name, t in bare(encoder).items()
    }
    state |= with_class_token_position(state)
    state["register_tokens"], state["mask_token"] = state.pop("reg_token"), torch.zeros(1, 768)
    save(tmp_path / "hibou-b.pth", state)
    loaded = card_family.build(card, EncoderSpec("hibou_b", weights=str(tmp_path / "hibou-b.pth")))
    tiles = random_tiles(2, 224)
    np.testing.assert_allclose(rows_of(loaded, tiles), rows_of(encoder, tiles), atol=1e-5)


def test_random_weights_are_defined_by_their_seed() -> None:
    first, again, other = (
        card_family.build(shallow("conch_v1"), EncoderSpec("conch_v1", random=True, seed=seed)).digest
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_resnet50_ends_after_its_third_stage() -> None:
    encoder = registry.build(EncoderSpec("resnet50", random=True, seed=5))
    whole = timm.create_model("resnet50", features_only=True, out_indices=[3])
    kept = {name.removeprefix("trunk."): tensor for name, tensor in encoder.network.state_dict().items()}
    whole.load_state_dict({**whole.state_dict(), **kept})
    tiles = random_tiles(2, 224)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    pixels = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        expected = whole.eval()(pixels)[0].mean((2, 3))
    np.testing.assert_allclose(rows_of(encoder, tiles), expected, atol=1e-5)


def test_vit_names_need_no_prefix() -> None:
    spec = EncoderSpec("vit_tiny_patch16_224", random=True, seed=4)
    encoder, description = registry.build(spec), registry.describe(spec)
    assert encoder.name == "vit_tiny_patch16_224"
    assert encoder.digest == registry.build(replace(spec, name="timm:vit_tiny_patch16_224")).digest
    assert (encoder.dim, encoder.tile_px) == (description.dim, description.tile_px)


def rows_of(encoder: Encoder, tiles: np.ndarray, batch: int | None = None) -> np.ndarray:
    return encode(encoder, tiles, device="cpu", batch=batch)


def save(path: Path, state: State) -> None:
    whole = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(whole, path)
    else:
        torch.save({"model": whole} if path.suffix == ".pth" else whole, path)


def bare(encoder: Encoder) -> State:
    return {name.removeprefix("trunk."): tensor for name, tensor in encoder.network.state_dict().items()}


def published(card: Card, encoder: Encoder) -> State:
    """Return an encoder's weights in the layout of its makers."""
    state = bare(encoder)
    name = card.name.removesuffix("-cls")
    if name in {"phikon", "phikon_v2", "midnight12k", "hibou_b", "hibou_l"}:
        return dict(to_transformers(state, gated=card.swiglu or "dinov2" in card.model, plain=name == "phikon"))
    if name == "conch_v1":
        return dict(to_conch(state, "visual.")) | dict.fromkeys(
            ("text.cls_emb", "logit_scale", "visual.proj_contrast", "visual.ln_caption.bias"), torch.zeros(1)
        )
    if name == "conch_v15":
        return dict(to_conch(state, ""))
    if name == "ctranspath":
        return dict(to_old_swin(state)) | {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    if name == "resnet50":
        whole = timm.create_model("resnet50").state_dict()
        return {name: state.get(name, tensor) for name, tensor in whole.items()}
    return state


def to_conch(state: State, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in state.items():
        if name.startswith("pool.norm."):
            yield f"{prefix}ln_contrast.{name.removeprefix('pool.norm.')}", tensor
        elif name.startswith("pool."):
            yield f"{prefix}attn_pool_contrast.{name.removeprefix('pool.')}", tensor
        else:
            yield f"{prefix}trunk.{name}", tensor


def to_old_swin(state: State) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in state.items():
        head, mark, tail = name.partition(".downsample.")
        number = int(head.removeprefix("layers.")) - 1 if mark else None
        yield (f"layers.{number}.downsample.{tail}" if mark else name), tensor


def with_class_token_position(state: State) -> State:
    """Split the class token into a token and its position embedding: they are only ever added, and halves are exact."""
    half = state["cls_token"] / 2
    return {"cls_token": half, "pos_embed": torch.cat([half, state["pos_embed"]], dim=1)}


NAMES_OF_TRANSFORMERS = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "blocks.0.attn.proj.": "encoder.layer.0.attention.output.dense.",
    "blocks.0.ls1.gamma": "encoder.layer.0.layer_scale1.lambda1",
    "blocks.0.ls2.gamma": "encoder.layer.0.layer_scale2.lambda1",
    "norm.": "layernorm.",
}
OF_PLAIN_VIT = {
    "blocks.0.mlp.fc1.": "encoder.layer.0.intermediate.dense.",
    "blocks.0.mlp.fc2.": "encoder.layer.0.output.dense.",
    "blocks.0.norm1.": "encoder.layer.0.layernorm_before.",
    "blocks.0.norm2.": "encoder.layer.0.layernorm_after.",
}
OF_GATED_DINOV2 = {
    "blocks.0.mlp.fc1.": "encoder.layer.0.mlp.weights_in.",
    "blocks.0.mlp.fc2.": "encoder.layer.0.mlp.weights_out.",
}


def to_transformers(state: State, *, gated: bool, plain: bool) -> Iterator[tuple[str, torch.Tensor]]:
    names = NAMES_OF_TRANSFORMERS | (OF_PLAIN_VIT if plain else OF_GATED_DINOV2 if gated else {})
    if "reg_token" in state:
        state = state | with_class_token_position(state)
    if not plain:
        yield "embeddings.mask_token", torch.zeros(1, 8)
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                yield f"encoder.layer.0.attention.attention.{part}.{name.rpartition('.')[2]}", third
            continue
        old = next((old for old in names if name.startswith(old)), None)
        new = name if old is None else names[old] + name.removeprefix(old)
        yield new.replace("blocks.0.", "encoder.layer.0."), tensor
