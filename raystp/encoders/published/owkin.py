"""Phikon and Phikon-v2, of Owkin.

An iBOT transformer of 86 M parameters (Filiot et al. 2023) and a DINOv2 one of 303 M (Filiot et al. 2024), both in
transformers' layout. transformers' ViT has another LayerNorm epsilon than timm's.
"""

import functools

from torch import nn

from raystp.encoders import layouts
from raystp.encoders.card import NON_COMMERCIAL, Card

CARDS = (
    Card(
        name="phikon",
        model="vit_base_patch16_224",
        options={"norm_layer": functools.partial(nn.LayerNorm, eps=1e-12)},
        dim=768,
        millions=85.8,
        licence="Owkin non-commercial",
        repository="owkin/phikon",
        layout=functools.partial(layouts.transformers, grid=14),
    ),
    Card(
        name="phikon_v2",
        model="vit_large_patch16_224",
        options={"init_values": 1e-5},
        dim=1024,
        millions=303.4,
        licence=f"Owkin non-commercial ({NON_COMMERCIAL})",
        repository="owkin/phikon-v2",
        files=("model.safetensors",),
        layout=functools.partial(layouts.transformers, grid=14),
    ),
)
