"""CTransPath (Wang et al. 2022): Swin-T with a convolutional stem, trained with a contrastive loss.

Its file was saved by an old timm and is not on the hub. Its licence (GPL-3.0) covers the weights too.
"""

import itertools

import torch
from jaxtyping import Float
from torch import nn

from raystp.encoders import layouts
from raystp.encoders.card import Card
from raystp.units import MicronsPerPixel

PATCH = 4


class ConvStem(nn.Module):
    """Two strided convolutions and one of 1 x 1 instead of Swin's patch embedding; accepts the arguments of timm's."""

    def __init__(
        self, *, img_size: tuple[int, int], embed_dim: int, norm_layer: type[nn.Module], **unused: object
    ) -> None:
        del unused  # patch size, channels and format are fixed here
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

    def forward(self, pixels: Float[torch.Tensor, "tile 3 pixel pixel"]) -> Float[torch.Tensor, "tile row col dim"]:
        """Return a feature map of a quarter of the side, channels last."""
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
