"""Kaiko's five transformers (Aben et al. 2024) and Midnight-12k (Karasikov et al. 2025), of kaiko.ai.

All were trained at four scales. The five are on the hub as timm models, under the name of the person who converted
them. Midnight (1.1 G parameters) is in transformers' layout. Its row is the class token and the mean of the patches'
tokens; `midnight12k-cls` is the class token alone.
"""

import dataclasses
import functools

from raystp.encoders import layouts
from raystp.encoders.card import AT_FOUR_SCALES, HALF, MIT, Card

_OWNER, _TAG = "1aurent", "kaiko_ai_towards_large_pathology_fms"


def _kaiko(name: str, model: str, *, dim: int, millions: float, side: int = 224) -> Card:
    return Card(
        name=name,
        model=model,
        options={"img_size": side, "dynamic_img_size": True},
        dim=dim,
        millions=millions,
        mpp=AT_FOUR_SCALES,
        colours=HALF,
        licence="Kaiko non-commercial",
        repository=f"{_OWNER}/{model}.{_TAG}",
    )


_MIDNIGHT = Card(
    name="midnight12k",
    model="vit_giant_patch14_dinov2",
    options={"img_size": 224},
    pooling="class + mean",
    dim=3072,
    millions=1134.8,
    mpp=AT_FOUR_SCALES,
    colours=HALF,
    licence=MIT,
    repository="kaiko-ai/midnight",
    files=("model.safetensors",),
    layout=functools.partial(layouts.transformers, grid=16),
)

CARDS = (
    _kaiko("kaiko-vits16", "vit_small_patch16_224", dim=384, millions=21.7),
    _kaiko("kaiko-vits8", "vit_small_patch8_224", dim=384, millions=21.7),
    _kaiko("kaiko-vitb16", "vit_base_patch16_224", dim=768, millions=85.8),
    _kaiko("kaiko-vitb8", "vit_base_patch8_224", dim=768, millions=85.8),
    _kaiko("kaiko-vitl14", "vit_large_patch14_reg4_dinov2", dim=1024, millions=304.4, side=518),
    _MIDNIGHT,
    dataclasses.replace(_MIDNIGHT, name="midnight12k-cls", pooling="class", dim=1536),
)
