"""Laws of the layouts: published names become timm's, and only named tensors are removed."""

import torch

from raystp.encoders import layouts


def numbered(*names: str) -> layouts.State:
    return {name: torch.full((1, 1), float(number)) for number, name in enumerate(names)}


def test_tensors_are_removed_by_whole_names() -> None:
    state = numbered("fc.weight", "fc.bias", "fc2.weight", "afc", "fc")
    assert layouts.without("fc")(state).keys() == {"fc2.weight", "afc"}


def test_query_key_and_value_become_one_matrix_in_this_order() -> None:
    name = "encoder.layer.7.attention.attention.{}.weight"
    state = layouts.transformers(
        {name.format(part): torch.full((1, 2), i) for i, part in enumerate(["query", "key", "value"])}
    )
    assert state.keys() == {"blocks.7.attn.qkv.weight"}
    assert state["blocks.7.attn.qkv.weight"].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_transformers_names_become_timms() -> None:
    names = {
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "encoder.layer.11.attention.output.dense.bias": "blocks.11.attn.proj.bias",
        "encoder.layer.0.intermediate.dense.weight": "blocks.0.mlp.fc1.weight",
        "encoder.layer.0.output.dense.weight": "blocks.0.mlp.fc2.weight",
        "encoder.layer.0.layernorm_before.bias": "blocks.0.norm1.bias",
        "encoder.layer.0.layer_scale2.lambda1": "blocks.0.ls2.gamma",
        "encoder.layer.0.mlp.weights_out.bias": "blocks.0.mlp.fc2.bias",
        "layernorm.weight": "norm.weight",
    }
    state = layouts.transformers(numbered(*names, "pooler.dense.weight", "embeddings.mask_token"))
    assert list(state) == list(names.values())


def test_the_position_embedding_of_the_class_token_is_added_to_it() -> None:
    state = layouts.dinov2(
        {
            "cls_token": torch.tensor([[[1.0]]]),
            "register_tokens": torch.tensor([[[5.0], [6.0]]]),
            "pos_embed": torch.tensor([[[10.0], [20.0], [30.0]]]),
            "mask_token": torch.zeros(1, 1),
            "blocks.0.mlp.w12.weight": torch.zeros(1),
            "blocks.0.mlp.w3.weight": torch.zeros(1),
        }
    )
    assert state.keys() == {"cls_token", "reg_token", "pos_embed", "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight"}
    assert state["cls_token"].item() == 11
    assert state["pos_embed"].flatten().tolist() == [20, 30]


def test_only_text_and_projection_of_conch_are_removed() -> None:
    state = layouts.conch(
        numbered(
            "visual.trunk.cls_token",
            "visual.attn_pool_contrast.query",
            "visual.ln_contrast.weight",
            "visual.proj_contrast",
            "visual.attn_pool_caption.query",
            "visual.ln_caption.bias",
            "text.cls_emb",
            "text_decoder.resblocks.0.ln_1.weight",
            "logit_scale",
            "visual.head.weight",
        )
    )
    assert list(state) == ["cls_token", "pool.query", "pool.norm.weight", "head.weight"]


def test_downsampling_layers_of_swin_move_to_the_next_stage() -> None:
    names = [f"layers.{n}.downsample.{part}.weight" for n in range(3) for part in ("norm", "reduction")]
    state = layouts.swin(
        numbered(*names, "layers.0.blocks.1.attn_mask", "layers.0.blocks.0.attn.relative_position_index")
    )
    assert list(state) == [name.replace(f".{n}.", f".{n + 1}.") for n in range(3) for name in names if f".{n}." in name]
    assert layouts.swin(state) == state


def ramp(grid: int) -> torch.Tensor:
    """Position embeddings equal to the column, after a class token of -1."""
    columns = torch.arange(grid, dtype=torch.float32).repeat(grid)
    return torch.cat([torch.tensor([-1.0]), columns]).reshape(1, -1, 1)


def test_position_embeddings_of_the_same_grid_are_not_changed() -> None:
    state = {"pos_embed": ramp(14)}
    assert torch.equal(layouts.transformers(state, grid=14)["pos_embed"], ramp(14))
    assert torch.equal(layouts.conch_v15({"pos_embed": ramp(28)}, grid=28)["pos_embed"], ramp(28))


def test_position_embeddings_of_another_grid_are_resized_to_the_centres_of_the_patches() -> None:
    positions = layouts.transformers({"pos_embed": ramp(37)}, grid=16)["pos_embed"].flatten()
    assert positions.shape == (257,)
    assert positions[0] == -1
    difference = positions[1:].reshape(16, 16)[5, 2:14] - ((torch.arange(16) + 0.5) * 37 / 16 - 0.5)[2:14]
    assert difference.abs().max() < 0.05  # the ripple of torch's bicubic on a ramp, which cancels out
    assert difference.mean().abs() < 5e-3


def test_position_embeddings_of_conch_are_scaled_like_its_own_code_does() -> None:
    positions = layouts.conch_v15({"pos_embed": ramp(14)}, grid=28)["pos_embed"].flatten()
    assert positions.shape == (785,)
    columns, middle = positions[1:].reshape(28, 28)[5, 4:24], torch.arange(28)[4:24] + 0.5
    assert (columns - (middle * 14 / 28.1 - 0.5)).mean().abs() < 5e-3
    assert (columns - (middle * 14 / 28 - 0.5)).mean().abs() > 2e-2


def test_position_embeddings_of_no_square_grid_are_not_changed() -> None:
    state = {"pos_embed": torch.zeros(1, 200, 4)}
    assert layouts.transformers(dict(state), grid=14)["pos_embed"].shape == (1, 200, 4)
