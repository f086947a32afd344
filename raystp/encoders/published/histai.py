"""Hibou-B and Hibou-L, of HistAI (Nechaev et al. 2024).

DINOv2 transformers with four registers and gated MLPs. Mean and std are those of the makers' slides. The file may be
in transformers' or in Meta's layout; the makers publish both.
"""

import dataclasses

from raystp.encoders import layouts
from raystp.encoders.card import APACHE, Card, Colour
from raystp.encoders.layouts import State

_COLOURS: tuple[Colour, Colour] = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))


def _layout(state: State) -> State:
    return layouts.dinov2(layouts.transformers(state))


_HIBOU_B = Card(
    name="hibou_b",
    model="vit_base_patch14_reg4_dinov2",
    options={"img_size": 224, "mlp_ratio": 4096 / 768},
    swiglu=True,
    dim=768,
    millions=85.7,
    colours=_COLOURS,
    licence=APACHE,
    gated=True,
    repository="histai/hibou-b",
    layout=_layout,
)

CARDS = (
    _HIBOU_B,
    dataclasses.replace(
        _HIBOU_B,
        name="hibou_l",
        model="vit_large_patch14_reg4_dinov2",
        options={"img_size": 224, "mlp_ratio": 5472 / 1024},
        dim=1024,
        millions=303.7,
        repository="histai/hibou-L",
    ),
)
