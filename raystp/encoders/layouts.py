"""Rename the tensors of a published file to timm's names. State in, state out.

Makers publish what their own code saved: Meta's DINOv2, transformers' ViT or Dinov2, CLIP towers beside a text model.
Tensors that a tile encoder does not need are removed by name: text, decoders, mask tokens, buffers that timm computes
itself. Any other extra tensor is reported as unknown when the state is loaded. A state in timm's names is not changed.
Names that begin with `pool.` belong to the pooling, all others to the trunk.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

State = dict[str, torch.Tensor]
Layout = Callable[[State], State]


def unchanged(state: State) -> State:
    """Return the state of a file that timm saved."""
    return state


def without(*names: str) -> Layout:
    """Return a layout that removes the modules and tensors with these names."""
    return lambda state: {name: t for name, t in state.items() if not any(_is_below(name, top) for top in names)}


def dinov2(state: State) -> State:
    """Rename Meta's DINOv2: packed gates, and registers without position embeddings."""
    state = _rename(state, {r"\.mlp\.w12\.": ".mlp.fc1.", r"\.mlp\.w3\.": ".mlp.fc2."})
    state.pop("mask_token", None)
    if "register_tokens" not in state:
        return state
    # timm adds position embeddings to patches only. The class token's is constant, so it is added to the token here.
    positions = state.pop("pos_embed")
    state["reg_token"] = state.pop("register_tokens")
    return state | {"cls_token": state["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}


_TRANSFORMERS = {
    r"^(?:vit|dinov2|model)\.": "",
    r"^embeddings\.position_embeddings$": "pos_embed",
    r"^embeddings\.(\w+)_tokens?$": r"\1_token",
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^encoder\.layer\.(\d+)\.": r"blocks.\1.",
    r"\.attention\.attention\.": ".attn.",
    r"\.attention\.output\.dense\.": ".attn.proj.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"\.output\.dense\.": ".mlp.fc2.",
    r"\.mlp\.weights_in\.": ".mlp.fc1.",
    r"\.mlp\.weights_out\.": ".mlp.fc2.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.layer_scale(\d)\.lambda1$": r".ls\1.gamma",
    r"^layernorm\.": "norm.",
}


def transformers(state: State, *, grid: int | None = None) -> State:
    """Rename transformers' ViT and Dinov2, and join its attention's query, key and value.

    `grid` is the number of patches along a side. Position embeddings of another grid are resized like transformers
    does.
    """
    state = without("pooler", "vit.pooler", "embeddings.mask_token", "dinov2.embeddings.mask_token")(state)
    state = _rename(state, _TRANSFORMERS)
    for name in [name for name in state if ".attn.query." in name]:
        parts = [state.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        state[name.replace(".query.", ".qkv.")] = torch.cat(parts)
    if "register_token" in state:
        state["register_tokens"] = state.pop("register_token")
        state = dinov2(state)
    elif "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    return _resize_positions(
        state, grid, lambda maps, side: functional.interpolate(maps, size=(side, side), mode="bicubic")
    )


def conch(state: State) -> State:
    """Rename CONCH's image tower; remove the projection to the text's space and the pooling for captions."""
    unused = ("text", "text_decoder", "logit_scale", "visual.proj_contrast", "visual.attn_pool_caption")
    state = without(*unused, "visual.ln_caption")(state)
    return _rename(state, {r"^visual\.": "", **_CONCH})


def conch_v15(state: State, *, grid: int) -> State:
    """Rename CONCH v1.5's image tower; its position embeddings are those of 224 px, resized like its own code does."""
    return _resize_positions(_rename(state, _CONCH), grid, _interpolate_like_dino)


_CONCH = {r"^trunk\.": "", r"^attn_pool_contrast\.": "pool.", r"^ln_contrast\.": "pool.norm."}


def swin(state: State) -> State:
    """Rename timm 0.5's Swin: a downsampling layer then ended a stage and now begins the next; masks were saved."""
    kept = {n: t for n, t in state.items() if not n.endswith(("attn_mask", "relative_position_index"))}
    if "layers.0.downsample.reduction.weight" not in kept:
        return kept

    def next_stage(match: "re.Match[str]") -> str:
        return f"layers.{int(match[1]) + 1}.downsample."

    return {re.sub(r"^layers\.(\d)\.downsample\.", next_stage, name): tensor for name, tensor in kept.items()}


def _is_below(name: str, top: str) -> bool:
    return name == top or name.startswith(f"{top}.")


def _rename(state: State, names: Mapping[str, str]) -> State:
    renamed = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in names.items():
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    return renamed


def _resize_positions(state: State, grid: int | None, resize: Callable[[torch.Tensor, int], torch.Tensor]) -> State:
    """Resize the position embeddings of a class token and a square grid of patches.

    Others are not changed; loading reports their shape.
    """
    positions = state.get("pos_embed")
    if positions is None or grid is None or positions.ndim != 3 or positions.shape[1] == grid**2 + 1:  # noqa: PLR2004 -- axes
        return state
    side = round((positions.shape[1] - 1) ** 0.5)
    if side**2 + 1 != positions.shape[1]:
        return state
    maps = positions[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = resize(maps, grid).permute(0, 2, 3, 1).flatten(1, 2)
    return state | {"pos_embed": torch.cat([positions[:, :1].float(), patches], dim=1)}


def _interpolate_like_dino(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Scale by a factor that is a tenth of a patch too large, as DINO's code does against rounding.

    The factor, not the size, decides which values are interpolated: with the exact size the result differs.
    """
    factor = (side + 0.1) / maps.shape[-1]
    return functional.interpolate(maps, scale_factor=(factor, factor), mode="bicubic")
