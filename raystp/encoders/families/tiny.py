"""`tiny`: a small encoder of colour and texture with fixed random filters, from torch alone.

Three strided convolutions with random filters and ReLU, each summed up by the mean and the spread of its responses over
the tile, beside the moments of the colours. No filter answers to a constant input, so they measure texture: over 3 um
in the first layer and 15 um in the last, at 0.5 um/px, which is nuclei and fibres. Enough for a ridge regression to
tell kinds of tissue apart; no match for a trained encoder. Random filters with pooled responses: Saxe et al. 2011, "On
Random Weights and Unsupervised Feature Learning". About 1,000 tiles of 224 px per CPU-second, normalising included.
"""

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional

from raystp.encoders import weights
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.errors import EncoderError
from raystp.units import TilePixels

PIXELS = TilePixels(224)
LAYERS = ((10, 7, 4), (16, 3, 2), (32, 3, 2))
"""Width, kernel and stride of each convolution."""

COLOUR_MOMENTS = 12
COLOUR_STRIDE = 4
"""Colours are counted on every fourth pixel of every fourth row, as the first layer strides: a third of the time."""

DIM = 2 * sum(width for width, _, _ in LAYERS) + COLOUR_MOMENTS


class TinyNetwork(nn.Module):
    """Random filters of a seed, and statistics of their responses; serves any side of 32 px or more."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.filters = nn.ParameterList()
        channels = 3
        for width, kernel, _ in LAYERS:
            # Uniform and in float64: the same bits on every kind of processor, which normal deviates would not be.
            filters = torch.rand((width, channels, kernel, kernel), generator=generator, dtype=torch.float64)
            filters -= filters.mean((2, 3), keepdim=True)
            scale = (24 / (channels * kernel**2)) ** 0.5  # He et al. 2015: responses keep their size through ReLU
            self.filters.append(nn.Parameter((filters * scale).float()))
            channels = width

    def forward(self, pixels: Float[torch.Tensor, "tile 3 pixel pixel"]) -> Float[torch.Tensor, "tile dim"]:
        """Return colour moments, then mean and standard deviation of every layer's responses."""
        statistics = [_colour_moments(pixels[:, :, ::COLOUR_STRIDE, ::COLOUR_STRIDE].float())]
        responses = pixels
        for filters, (_, _, stride) in zip(self.filters, LAYERS, strict=True):
            responses = torch.relu(functional.conv2d(responses, filters, stride=stride))
            statistics += _mean_and_spread(responses.flatten(2).float())
        return torch.cat(statistics, dim=1)


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder of `spec.seed`; raises EncoderError where a weights file or its digest is named."""
    description = describe(spec)
    network = TinyNetwork(spec.seed)
    return Encoder(
        name=spec.name,
        network=network,
        dim=description.dim,
        pixels=description.pixels,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        digest=weights.state_digest(network),
    )


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Say what `build` would build; raises EncoderError where a weights file or its digest is named."""
    named = spec.weights or spec.sha256
    if named is not None:
        msg = f"encoder '{spec.name}' makes its filters from `seed` and reads no file, got {named}: leave it out"
        raise EncoderError(msg)
    return EncoderDescription(f"seed:{spec.seed}", DIM, PIXELS)


def _mean_and_spread(values: Float[torch.Tensor, "tile channel place"]) -> list[Float[torch.Tensor, "tile channel"]]:
    mean = values.mean(2, keepdim=True)
    # The small number keeps the root's slope finite for a filter that never answers, should the network be trained.
    return [mean.squeeze(2), ((values - mean).square().mean(2) + 1e-12).sqrt()]


def _colour_moments(pixels: Float[torch.Tensor, "tile 3 pixel pixel"]) -> Float[torch.Tensor, "tile 12"]:
    """Mean, standard deviation, third central moment and covariance (RG, GB, BR) of the colours."""
    colours = pixels.flatten(2)
    apart = colours - colours.mean(2, keepdim=True)
    # No cube root of the third moment: near 0 it would blow up the last bits, which move with the batch.
    third = (apart * apart * apart).mean(2)
    covariance = (apart * apart.roll(-1, dims=1)).mean(2)
    return torch.cat([*_mean_and_spread(colours), third, covariance], dim=1)
