"""`tiny`: a small encoder of colour and texture with fixed random filters, in torch alone.

Three strided convolutions with random filters and ReLU. The row holds the mean and standard deviation of each filter's
responses over the tile, and the moments of the colours. No filter responds to a constant input, so filters measure
texture: over 3 um in the first layer and 15 um in the last, at 0.5 um/px, the scale of nuclei and fibres. This is
enough for a ridge regression to distinguish kinds of tissue, and worse than a trained encoder. Random filters with
pooled responses: Saxe et al. 2011, "On Random Weights and Unsupervised Feature Learning". About 1,000 tiles of 224 px
per CPU-second, including normalisation.
"""

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional

from raystp.encoders import weights
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.errors import EncoderError
from raystp.units import TilePixels

TILE_PX = TilePixels(224)
LAYERS = ((10, 7, 4), (16, 3, 2), (32, 3, 2))
"""Number of filters, kernel size and stride of each convolution."""

COLOUR_MOMENTS = 12
COLOUR_STRIDE = 4
"""Colour moments use every fourth pixel of every fourth row, the stride of the first layer: a third of the time."""

DIM = 2 * sum(filters for filters, _, _ in LAYERS) + COLOUR_MOMENTS


class TinyNetwork(nn.Module):
    """Random filters of a seed, and statistics of their responses; accepts any side of 32 px or more."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.filters = nn.ParameterList()
        self.stages = nn.ModuleList(nn.Identity() for _ in LAYERS)  # where `stages.py` reads the responses
        channels = 3
        for count, kernel, _ in LAYERS:
            # Uniform and in float64: the same bits on every kind of processor, unlike normal deviates.
            filters = torch.rand((count, channels, kernel, kernel), generator=generator, dtype=torch.float64)
            filters -= filters.mean((2, 3), keepdim=True)
            scale = (24 / (channels * kernel**2)) ** 0.5  # He et al. 2015: responses keep their variance through ReLU
            self.filters.append(nn.Parameter((filters * scale).float()))
            channels = count

    def forward(self, pixels: Float[torch.Tensor, "tile 3 pixel pixel"]) -> Float[torch.Tensor, "tile dim"]:
        """Return colour moments, then mean and standard deviation of every layer's responses."""
        statistics = [_colour_moments(pixels[:, :, ::COLOUR_STRIDE, ::COLOUR_STRIDE].float())]
        responses = pixels
        for filters, (_, _, stride), stage in zip(self.filters, LAYERS, self.stages, strict=True):
            responses = stage(torch.relu(functional.conv2d(responses, filters, stride=stride)))
            statistics += _mean_and_std(responses.flatten(2).float())
        return torch.cat(statistics, dim=1)


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder of `spec.seed`; raises EncoderError where a weights file or a digest is given."""
    description = describe(spec)
    network = TinyNetwork(spec.seed)
    return Encoder(
        name=spec.name,
        network=network,
        dim=description.dim,
        tile_px=description.tile_px,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        digest=weights.state_digest(network),
    )


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Describe what `build` builds; raises EncoderError where a weights file or a digest is given."""
    given = spec.weights or spec.sha256
    if given is not None:
        msg = f"encoder '{spec.name}' creates its filters from `seed` and reads no weights, got {given}: remove it"
        raise EncoderError(msg)
    return EncoderDescription(f"seed:{spec.seed}", DIM, TILE_PX)


def _mean_and_std(values: Float[torch.Tensor, "tile channel position"]) -> list[Float[torch.Tensor, "tile channel"]]:
    mean = values.mean(2, keepdim=True)
    # 1e-12 keeps the gradient of the root finite for a filter without responses, if the network is trained.
    return [mean.squeeze(2), ((values - mean).square().mean(2) + 1e-12).sqrt()]


def _colour_moments(pixels: Float[torch.Tensor, "tile 3 pixel pixel"]) -> Float[torch.Tensor, "tile 12"]:
    """Return mean, standard deviation, third central moment and covariance (RG, GB, BR) of the colours."""
    colours = pixels.flatten(2)
    centred = colours - colours.mean(2, keepdim=True)
    # No cube root of the third moment: near 0 it would amplify rounding, which depends on the batch.
    third = (centred * centred * centred).mean(2)
    covariance = (centred * centred.roll(-1, dims=1)).mean(2)
    return torch.cat([*_mean_and_std(colours), third, covariance], dim=1)
