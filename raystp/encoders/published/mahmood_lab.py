"""UNI, UNI2-h, CONCH and CONCH v1.5, of Mahmood Lab.

UNI and UNI2-h are DINOv2 transformers (Chen et al. 2024). CONCH's image tower (Lu et al. 2024) is used as its makers
use it on images alone: its row is the pooled query, normalised, before the projection to the text's space. CONCH and
CONCH v1.5 expect 512 px at 0.5 um/px, downsampled to 448 px.
"""

import functools

from raystp.encoders import layouts
from raystp.encoders.card import CLIP, NON_COMMERCIAL, Card
from raystp.units import MicronsPerPixel, TilePixels

_DOWNSAMPLED = (MicronsPerPixel(0.5 * 512 / 448),)

CARDS = (
    Card(
        name="uni_v1",
        model="vit_large_patch16_224",
        options={"init_values": 1e-5, "dynamic_img_size": True},
        dim=1024,
        millions=303.4,
        licence=NON_COMMERCIAL,
        gated=True,
        repository="MahmoodLab/UNI",
        files=("pytorch_model.bin",),
    ),
    Card(
        name="uni_v2",
        model="vit_giant_patch14_224",
        options={
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "init_values": 1e-5,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
        },
        swiglu=True,
        dim=1536,
        millions=681.4,
        licence=NON_COMMERCIAL,
        gated=True,
        repository="MahmoodLab/UNI2-h",
        files=("pytorch_model.bin",),
    ),
    Card(
        name="conch_v1",
        model="vit_base_patch16_224",
        options={"img_size": 448},
        pooling="query",
        dim=512,
        millions=87.6,
        tile_px=TilePixels(448),
        mpp=_DOWNSAMPLED,
        colours=CLIP,
        licence=NON_COMMERCIAL,
        gated=True,
        repository="MahmoodLab/conch",
        files=("pytorch_model.bin",),
        layout=layouts.conch,
    ),
    Card(
        name="conch_v15",
        model="vit_large_patch16_224",
        options={"img_size": 448, "init_values": 1e-6},
        pooling="plain query",
        dim=768,
        millions=306.7,
        tile_px=TilePixels(448),
        mpp=_DOWNSAMPLED,
        licence=NON_COMMERCIAL,
        gated=True,
        repository="MahmoodLab/conchv1_5",
        files=("pytorch_model_vision.bin",),
        layout=functools.partial(layouts.conch_v15, grid=28),
    ),
)
