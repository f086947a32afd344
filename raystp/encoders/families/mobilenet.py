"""`mobilenet_v1_pw12`: MobileNet v1 trained on ImageNet, as far as its twelfth block.

A small general-purpose encoder, no pathology model: 1024 values, the mean over the map after `conv_pw_12` + BatchNorm +
ReLU6. Howard et al. 2017, arXiv 1704.04861; Google's weights by way of Keras, whose padding and BatchNorm epsilon are
kept. The file is not part of raystp: the user names it.
"""

from dataclasses import replace
from typing import Any

from raystp.encoders import weights
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import timm_models as timm_family
from raystp.units import TilePixels

DIM = 1024
PIXELS = TilePixels(224)
SHA256 = "ea65163649a00e564098faea4538fe419f2b734466add142c3ec6afefef8c2af"
"""Digest of the file that this network was checked with; `sha256` in the spec names another on purpose."""


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder from its file; raises EncoderError where no file, another or a damaged one is named."""
    network: Any = timm_family.create(
        "mobilenetv1_100",
        pad_type="same",  # TensorFlow's: one pixel more on the right and below where the stride is 2
        bn_eps=1e-3,
        pretrained_cfg_overlay={
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "input_size": (3, PIXELS, PIXELS),
        },
    )
    # Before the weights: the file ends with block 12, and block 13 must not stay random behind it.
    network.blocks[4] = network.blocks[4][:1]
    return timm_family.as_encoder(spec.name, network, weights.load(_pinned(spec), network))


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Say what `build` would build, after checking the file's digest; raises EncoderError as `build`."""
    return EncoderDescription(weights.file_digest(_pinned(spec)), DIM, PIXELS)


def _pinned(spec: EncoderSpec) -> EncoderSpec:
    return replace(spec, sha256=spec.sha256 or SHA256) if spec.weights is not None else spec
