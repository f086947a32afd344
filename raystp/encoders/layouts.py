"""Layouts: the tensors of a published file, under the names that timm gives them. State in, state out.

Makers publish what their own code saved: Meta's DINOv2, transformers' ViT or Dinov2, CLIP towers beside a text model.
What a tile encoder is without (text, decoders, mask tokens, buffers that timm computes itself) is dropped by name, so
that anything else still stands out as unknown. A state in timm's names passes unchanged. Names that begin with `pool.`
are the pooling's, all others the trunk's.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

State = dict[str, torch.Tensor]
Layout = Callable[[State], State]


def same(state: State) -> State:
    """Return a file as it is: it was saved by timm."""
    return state


def without(*names: str) -> Layout:
    """Return a layout that leaves out whatever has one of these names, or a name below it."""
    return lambda state: {name: t for name, t in state.items() if not any(_below(name, top) for top in names)}


def dinov2(state: State) -> State:
    """Rename Meta's DINOv2: packed gates, and registers that have no place of their own."""
    state = _renamed(state, {r"\.mlp\.w12\.": ".mlp.fc1.", r"\.mlp\.w3\.": ".mlp.fc2."})
    state.pop("mask_token", None)
    if "register_tokens" not in state:
        return state
    # timm adds places to patches alone: what the class token's place adds to it, it always adds.
    places = state.pop("pos_embed")
    state["reg_token"] = state.pop("register_tokens")
    return state | {"cls_token": state["cls_token"] + places[:, :1], "pos_embed": places[:, 1:]}


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
    """Rename transformers' ViT and Dinov2, and join what its attention keeps as query, key and value.

    `grid` is the patches along a side; places that were learned on another grid are resized to it as transformers does.
    """
    state = without("pooler", "vit.pooler", "embeddings.mask_token", "dinov2.embeddings.mask_token")(state)
    state = _renamed(state, _TRANSFORMERS)
    for name in [name for name in state if ".attn.query." in name]:
        parts = [state.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        state[name.replace(".query.", ".qkv.")] = torch.cat(parts)
    if "register_token" in state:
        state["register_tokens"] = state.pop("register_token")
        state = dinov2(state)
    elif "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    return _regridded(state, grid, lambda maps, to: functional.interpolate(maps, size=(to, to), mode="bicubic"))


def conch(state: State) -> State:
    """Take CONCH's image tower, without its projection to the text's space and without its caption's pooling."""
    unread = ("text", "text_decoder", "logit_scale", "visual.proj_contrast", "visual.attn_pool_caption")
    state = without(*unread, "visual.ln_caption")(state)
    return _renamed(state, {r"^visual\.": "", **_CONCH})


def conch_v15(state: State, *, grid: int) -> State:
    """Take CONCH v1.5's image tower; its places are those of 224 px, and stretched as its own code stretches them."""
    return _regridded(_renamed(state, _CONCH), grid, _stretched)


_CONCH = {r"^trunk\.": "", r"^attn_pool_contrast\.": "pool.", r"^ln_contrast\.": "pool.norm."}


def swin(state: State) -> State:
    """Rename timm 0.5's Swin: its stages ended with what now begins them, and its masks were saved."""
    kept = {n: t for n, t in state.items() if not n.endswith(("attn_mask", "relative_position_index"))}
    if "layers.0.downsample.reduction.weight" not in kept:
        return kept

    def later(found: "re.Match[str]") -> str:
        return f"layers.{int(found[1]) + 1}.downsample."

    return {re.sub(r"^layers\.(\d)\.downsample\.", later, name): tensor for name, tensor in kept.items()}


def _below(name: str, top: str) -> bool:
    return name == top or name.startswith(f"{top}.")


def _renamed(state: State, names: Mapping[str, str]) -> State:
    renamed = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in names.items():
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    return renamed


def _regridded(state: State, grid: int | None, resize: Callable[[torch.Tensor, int], torch.Tensor]) -> State:
    """Resize places of a class token and of patches on another square grid; others are left to be refused."""
    places = state.get("pos_embed")
    if places is None or grid is None or places.ndim != 3 or places.shape[1] == grid**2 + 1:  # noqa: PLR2004 -- axes
        return state
    side = round((places.shape[1] - 1) ** 0.5)
    if side**2 + 1 != places.shape[1]:
        return state
    maps = places[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = resize(maps, grid).permute(0, 2, 3, 1).flatten(1, 2)
    return state | {"pos_embed": torch.cat([places[:, :1].float(), patches], dim=1)}


def _stretched(maps: torch.Tensor, to: int) -> torch.Tensor:
    """Stretch by a factor that is a tenth of a patch too large, as DINO's code does to be sure of the size.

    The factor, not the size, decides where values are taken from, so that an exact size gives other values.
    """
    factor = (to + 0.1) / maps.shape[-1]
    return functional.interpolate(maps, scale_factor=(factor, factor), mode="bicubic")
