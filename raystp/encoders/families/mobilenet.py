"""`mobilenet_v1_pw12`: MobileNet v1 trained on ImageNet, up to its twelfth block.

A small general-purpose encoder, not a pathology model. Its row of 1024 values is the mean over the feature map after
`conv_pw_12` + BatchNorm + ReLU6. Howard et al. 2017, arXiv 1704.04861. The weights are Google's, converted by Keras;
Keras' padding and BatchNorm epsilon are kept. The file is not part of raystp: the user gives its path.
"""

from dataclasses import replace
from typing import Any

from torch import nn

from raystp.encoders import weights
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import timm_models as timm_family
from raystp.units import TilePixels

DIM = 1024
TILE_PX = TilePixels(224)
SHA256 = "ea65163649a00e564098faea4538fe419f2b734466add142c3ec6afefef8c2af"
"""Digest of the file that this network was checked with; set `sha256` in the spec to use another file."""


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder from its file; raises EncoderError without a file, and for another or a damaged one."""
    network = create()
    return timm_family.as_encoder(spec.name, network, weights.load(_with_digest(spec), network))


def create() -> nn.Module:
    """Create the network with random weights."""
    network: Any = timm_family.create(  # timm's MobileNetV3, whose blocks are a Sequential
        "mobilenetv1_100",
        pad_type="same",  # TensorFlow's: one pixel more on the right and below where the stride is 2
        bn_eps=1e-3,
        pretrained_cfg_overlay={
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "input_size": (3, TILE_PX, TILE_PX),
        },
    )
    # Before loading: the file ends with block 12, and block 13 would keep random weights.
    network.blocks[4] = network.blocks[4][:1]
    created: nn.Module = network
    return created


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Describe what `build` builds, after a check of the file's digest; raises EncoderError like `build`."""
    return EncoderDescription(weights.file_digest(_with_digest(spec)), DIM, TILE_PX)


def _with_digest(spec: EncoderSpec) -> EncoderSpec:
    return replace(spec, sha256=spec.sha256 or SHA256) if spec.weights is not None else spec
