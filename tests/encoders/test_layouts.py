"""Laws of the layouts: published names become timm's, what is unread is dropped by name, and nothing else is."""

import torch

from raystp.encoders import layouts


def numbered(*names: str) -> layouts.State:
    return {name: torch.full((1, 1), float(number)) for number, name in enumerate(names)}


def test_what_is_left_out_is_left_out_by_whole_names() -> None:
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


def test_what_the_class_tokens_place_adds_is_kept_where_registers_have_no_place() -> None:
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


def test_conchs_text_and_projection_are_dropped_and_nothing_else() -> None:
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


def test_swins_stages_begin_with_what_once_ended_the_one_before() -> None:
    names = [f"layers.{n}.downsample.{part}.weight" for n in range(3) for part in ("norm", "reduction")]
    state = layouts.swin(
        numbered(*names, "layers.0.blocks.1.attn_mask", "layers.0.blocks.0.attn.relative_position_index")
    )
    assert list(state) == [name.replace(f".{n}.", f".{n + 1}.") for n in range(3) for name in names if f".{n}." in name]
    assert layouts.swin(state) == state


def ramp(grid: int) -> torch.Tensor:
    """Places that tell their column, behind a class token's of -1."""
    columns = torch.arange(grid, dtype=torch.float32).repeat(grid)
    return torch.cat([torch.tensor([-1.0]), columns]).reshape(1, -1, 1)


def test_places_of_the_same_grid_are_left_as_they_are() -> None:
    state = {"pos_embed": ramp(14)}
    assert torch.equal(layouts.transformers(state, grid=14)["pos_embed"], ramp(14))
    assert torch.equal(layouts.conch_v15({"pos_embed": ramp(28)}, grid=28)["pos_embed"], ramp(28))


def test_places_of_another_grid_lie_where_the_patches_do() -> None:
    places = layouts.transformers({"pos_embed": ramp(37)}, grid=16)["pos_embed"].flatten()
    assert places.shape == (257,)
    assert places[0] == -1
    apart = places[1:].reshape(16, 16)[5, 2:14] - ((torch.arange(16) + 0.5) * 37 / 16 - 0.5)[2:14]
    assert apart.abs().max() < 0.05  # the ripple of torch's bicubic on a ramp, which cancels out
    assert apart.mean().abs() < 5e-3


def test_conchs_places_are_stretched_by_a_tenth_of_a_patch_too_much() -> None:
    places = layouts.conch_v15({"pos_embed": ramp(14)}, grid=28)["pos_embed"].flatten()
    assert places.shape == (785,)
    columns, middle = places[1:].reshape(28, 28)[5, 4:24], torch.arange(28)[4:24] + 0.5
    assert (columns - (middle * 14 / 28.1 - 0.5)).mean().abs() < 5e-3
    assert (columns - (middle * 14 / 28 - 0.5)).mean().abs() > 2e-2


def test_places_of_no_square_are_left_to_be_refused() -> None:
    state = {"pos_embed": torch.zeros(1, 200, 4)}
    assert layouts.transformers(dict(state), grid=14)["pos_embed"].shape == (1, 200, 4)
