"""H-optimus-0, H-optimus-1 and H0-mini, of Bioptimus.

DINOv2 transformers with four registers: two of 1.1 G parameters, and one of 86 M that was distilled from the first
(Filiot et al. 2025). Mean and std are those of the makers' slides. H0-mini's row is the class token and the mean of the
patches' tokens, as its makers recommend; `h0-mini-cls` is the class token alone.
"""

import dataclasses

from raystp.encoders.card import APACHE, NON_COMMERCIAL, Card, Colour

_COLOURS: tuple[Colour, Colour] = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))

_H_OPTIMUS_0 = Card(
    name="hoptimus0",
    model="vit_giant_patch14_reg4_dinov2",
    options={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
    dim=1536,
    millions=1134.8,
    colours=_COLOURS,
    licence=APACHE,
    repository="bioptimus/H-optimus-0",
)

_H0_MINI = Card(
    name="h0-mini",
    model="vit_base_patch14_reg4_dinov2",
    options={"img_size": 224, "mlp_ratio": 5.33334, "init_values": 1e-5, "dynamic_img_size": True},
    swiglu=True,
    pooling="class + mean",
    dim=1536,
    millions=85.7,
    colours=_COLOURS,
    licence=NON_COMMERCIAL,
    gated=True,
    repository="bioptimus/H0-mini",
)

CARDS = (
    _H_OPTIMUS_0,
    dataclasses.replace(
        _H_OPTIMUS_0, name="hoptimus1", licence=NON_COMMERCIAL, gated=True, repository="bioptimus/H-optimus-1"
    ),
    _H0_MINI,
    dataclasses.replace(_H0_MINI, name="h0-mini-cls", pooling="class", dim=768),
)
