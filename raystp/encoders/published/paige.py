"""Virchow and Virchow2, of Paige.

DINOv2 transformers of 632 M parameters (Vorontsov et al. 2024; Zimmermann et al. 2024). The row is the class token and
the mean of the patches' tokens, without Virchow2's four registers.
"""

import dataclasses

from raystp.encoders.card import APACHE, AT_FOUR_SCALES, NON_COMMERCIAL, Card

_VIRCHOW: dict[str, object] = {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "dynamic_img_size": True}

VIRCHOW2 = Card(
    name="virchow2",
    model="vit_huge_patch14_224",
    options={**_VIRCHOW, "reg_tokens": 4},
    swiglu=True,
    pooling="class + mean",
    dim=2560,
    millions=631.2,
    mpp=AT_FOUR_SCALES,
    licence=NON_COMMERCIAL,
    gated=True,
    repository="paige-ai/Virchow2",
)

CARDS = (
    Card(
        name="virchow",
        model="vit_huge_patch14_224",
        options=_VIRCHOW,
        swiglu=True,
        pooling="class + mean",
        dim=2560,
        millions=631.2,
        licence=APACHE,
        gated=True,
        repository="paige-ai/Virchow",
    ),
    VIRCHOW2,
    dataclasses.replace(VIRCHOW2, name="virchow2-cls", pooling="class", dim=1280),
)
