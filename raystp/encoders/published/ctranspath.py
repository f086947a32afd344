"""CTransPath (Wang et al. 2022): Swin-T on a stem of convolutions, trained by contrast.

Its file was saved by a timm of its time, and lies outside the hub; its licence (GPL-3.0) is the weights' as well.
"""

import itertools
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from raystp.encoders import layouts
from raystp.encoders.card import Card
from raystp.units import MicronsPerPixel

PATCH = 4


class ConvStem(nn.Module):
    """Two strided convolutions and one of 1 x 1 in the place of Swin's patches; takes timm's arguments for those."""

    def __init__(
        self, *, img_size: tuple[int, int], embed_dim: int, norm_layer: type[nn.Module], **unread: Any
    ) -> None:
        del unread  # patch size, channels and format have one value each here
        super().__init__()
        self.patch_size = (PATCH, PATCH)
        self.img_size = img_size
        self.grid_size = (img_size[0] // PATCH, img_size[1] // PATCH)
        widths = (3, embed_dim // 8, embed_dim // 4)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            convolution = nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(widths[-1], embed_dim, kernel_size=1))
        self.norm = norm_layer(embed_dim)

    def forward(self, pixels: Float[torch.Tensor, "tile 3 pixel pixel"]) -> Float[torch.Tensor, "tile place place dim"]:
        """Return a map of a quarter of the side, channels last."""
        maps: torch.Tensor = self.norm(self.proj(pixels).permute(0, 2, 3, 1))
        return maps


CARDS = (
    Card(
        name="ctranspath",
        model="swin_tiny_patch4_window7_224",
        options={"embed_layer": ConvStem},
        pooling="mean of NHWC",
        dim=768,
        millions=27.5,
        mpp=(MicronsPerPixel(1.0),),
        licence="GPL-3.0",
        repository=None,
        layout=layouts.swin,
    ),
)
