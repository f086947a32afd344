"""Prov-GigaPath's tile encoder, of Providence and Microsoft (Xu et al. 2024).

A DINOv2 transformer of 1.1 G parameters with patches of 16 px (timm's name of the architecture says 14). Its makers do
not resize tiles: they crop the central 224 px of 256 px at 0.5 um/px, so its tile is 112 um.
"""

from raystp.encoders.card import APACHE, Card

CARDS = (
    Card(
        name="gigapath",
        model="vit_giant_patch14_dinov2",
        options={
            "img_size": 224,
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
            "init_values": 1e-5,
            "dynamic_img_size": True,
        },
        swiglu=True,
        dim=1536,
        millions=1135.0,
        licence=f"{APACHE}, with conditions of use",
        gated=True,
        repository="prov-gigapath/prov-gigapath",
        files=("pytorch_model.bin",),
    ),
)
