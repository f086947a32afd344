"""`resnet50` as used in pathology: ImageNet's ResNet-50 up to its third stage, 1024 values (Lu et al. 2021, CLAM).

Not a pathology model; um/px does not apply to photographs. The whole network, of 2048 values, is `timm:resnet50`.
"""

from raystp.encoders import layouts
from raystp.encoders.card import Card

CARDS = (
    Card(
        name="resnet50",
        model="resnet50",
        cut=("layer4",),
        pooling="mean of NCHW",
        dim=1024,
        millions=8.5,
        mpp=(),
        licence="BSD-3-Clause",
        repository="timm/resnet50.tv_in1k",
        files=("model.safetensors",),
        layout=layouts.without("fc"),
    ),
)
