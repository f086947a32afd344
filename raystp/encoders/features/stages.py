"""Features beside an encoder's own row: pooled responses of earlier stages, and the mean over turned or mirrored tiles.

A stage is one of the network's own steps: a stage of a convolutional network, or a block of a transformer. Its maps or
patch tokens are pooled to mean and standard deviation of each channel. All stages are taken in one forward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from raystp.encoders.encoder import Encoder
from raystp.encoders.features.options import LAST, MIDDLE, STAGE, FeatureOptions, Views
from raystp.encoders.pools import PooledEncoder
from raystp.errors import EncoderError

Pixels = Float[torch.Tensor, "tile 3 pixel pixel"]
Rows = Float[torch.Tensor, "tile row"]


def with_features(encoder: Encoder, options: FeatureOptions) -> Encoder:
    """Return the encoder with these layers and views; raises EncoderError for a stage that its network does not have.

    Its network is changed where `layers` name a stage: it then keeps the stage's responses in each pass.
    """
    network, dim = encoder.network, encoder.dim
    if options.layers != (LAST,):
        network = LayerFeatures(network, options.layers, encoder.name)
        dim = layers_dim(network, encoder.dim, encoder.tile_px)
    if options.views != "none":
        network = ViewMean(network, options.views)
    return replace(encoder, network=network, dim=dim)


def layers_dim(network: "LayerFeatures", dim: int, tile_px: int) -> int:
    """Return the length of the rows of a network whose own rows have `dim` values; it passes one black tile."""
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    was_training = network.training
    with torch.inference_mode():
        rows = network.eval()(torch.zeros((1, 3, tile_px, tile_px), device=device))
    network.train(was_training)
    own = network.layers.count(LAST)
    stages = sum(network.pooled[layer].shape[1] for layer in network.layers if layer != LAST)
    assert rows.shape[1] == own * dim + stages
    return int(rows.shape[1])


class LayerFeatures(nn.Module):
    """An encoder's own row, and mean and standard deviation of each channel of stages, concatenated."""

    def __init__(self, network: nn.Module, layers: Sequence[str], encoder: str) -> None:
        super().__init__()
        self.network, self.layers = network, tuple(layers)
        self.pooled: dict[str, Rows] = {}
        """The last pass: stage -> its pooled rows."""
        trunk: Any = network.trunk if isinstance(network, PooledEncoder) else network
        prefix, channels_last = getattr(trunk, "num_prefix_tokens", 0), getattr(trunk, "output_fmt", "") == "NHWC"
        stages = stages_of(trunk)
        for layer in self.layers:
            if layer != LAST:
                stage = stages[stage_number(layer, len(stages), encoder)]
                stage.register_forward_hook(self._keep(layer, prefix, channels_last=channels_last))

    def forward(self, pixels: Pixels) -> Rows:
        """Return a row per tile."""
        own = self.network(pixels)
        return torch.cat([own.float() if layer == LAST else self.pooled[layer] for layer in self.layers], dim=1)

    def _keep(self, layer: str, prefix: int, *, channels_last: bool) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            self.pooled[layer] = mean_and_deviation(output, prefix, channels_last=channels_last)

        return keep


class ViewMean(nn.Module):
    """The mean of a network's rows over views of each tile."""

    def __init__(self, network: nn.Module, views: Views) -> None:
        super().__init__()
        self.network, self.views = network, views

    def forward(self, pixels: Pixels) -> Rows:
        """Return a row per tile; the views are passed one after the other, in a fixed order."""
        mirrored = [pixels, pixels.flip(3)] if self.views == "flips" else [pixels]
        views = [torch.rot90(one, turn, (2, 3)) for one in mirrored for turn in range(4)]
        total: Rows = self.network(views[0]).float()
        for view in views[1:]:
            total = total + self.network(view).float()
        return total / len(views)


def mean_and_deviation(responses: torch.Tensor, prefix_tokens: int = 0, *, channels_last: bool = False) -> Rows:
    """Return mean and standard deviation of each channel over a tile, in float32.

    `responses` are maps (NCHW, or NHWC with `channels_last`) or tokens (tile, token, channel), of which the first
    `prefix_tokens` are left out.
    """
    if responses.ndim == 4:  # noqa: PLR2004 -- maps
        values = responses.flatten(1, 2) if channels_last else responses.flatten(2).transpose(1, 2)
    else:
        values = responses[:, prefix_tokens:]
    values = values.float()
    mean = values.mean(1, keepdim=True)
    deviation = ((values - mean).square().mean(1) + 1e-12).sqrt()
    return torch.cat([mean.squeeze(1), deviation], dim=1)


def stages_of(trunk: Any) -> list[nn.Module]:  # of any class of timm
    """Return the stages of a network in order; empty where its class is unknown."""
    for name in ("stages", "blocks", "layers"):
        found = getattr(trunk, name, None)
        if isinstance(found, nn.Sequential | nn.ModuleList):
            return list(found)
    names = [f"layer{number}" for number in range(1, 5)]
    return [getattr(trunk, name) for name in names if hasattr(trunk, name)]


def stage_number(layer: str, count: int, encoder: str) -> int:
    """Return the number of a layer's stage; raises EncoderError where the network does not have it."""
    number = (count - 1) // 2 if layer == MIDDLE else int(layer.removeprefix(STAGE))
    if not 0 <= number < count:
        known = f"{count} stages, {STAGE}0 to {STAGE}{count - 1}" if count else "no stages that raystp knows"
        msg = f"encoder '{encoder}' has {known}; layer '{layer}' is none of them: choose another, or `{LAST}`"
        raise EncoderError(msg)
    return number
