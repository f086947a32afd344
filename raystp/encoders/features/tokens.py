"""Spatial tokens: what an encoder sees at each place of a tile, before it pools the places to one row.

They are the feature map of the last stage of a convolutional network, or the patch tokens of a transformer, averaged to
a square grid. They are those of the tile as it is, also where rows are averaged over views.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional

from raystp.encoders.encoder import Encoder
from raystp.encoders.features.stages import stages_of
from raystp.encoders.pools import PooledEncoder
from raystp.errors import EncoderError

MAPS_NDIM = 4
"""Axes of feature maps; tokens have three."""

Pixels = Float[torch.Tensor, "tile 3 pixel pixel"]
Tokens = Float[torch.Tensor, "tile token channel"]


@dataclass(frozen=True)
class TokenGrid:
    """The spatial tokens of one tile."""

    side: int
    """Rows, and columns, of the grid."""
    channels: int
    """Length of a token."""

    @property
    def values(self) -> int:
        """Numbers of a tile: two bytes each, as they are stored."""
        return self.side**2 * self.channels


def with_tokens(encoder: Encoder, grid: int, *, trunk: nn.Module, keep_row: bool = True) -> Encoder:
    """Return the encoder whose rows are followed by grid x grid spatial tokens, token by token, row by row.

    `trunk` is the encoder's bare network, which its `network` contains. Without `keep_row` the rows are the tokens
    alone. Raises EncoderError for a network without a map of at least grid x grid places.
    """
    network = SpatialTokens(encoder.network, bare(trunk), grid, encoder.name, keep_row=keep_row)
    tokens = token_grid(network, encoder.tile_px)
    return replace(encoder, network=network, dim=(encoder.dim if keep_row else 0) + tokens.values)


def token_grid(network: "SpatialTokens", tile_px: int) -> TokenGrid:
    """Return what a network's spatial tokens are; it passes one black tile. Raises the errors of a pass."""
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    was_training = network.training
    with torch.inference_mode():
        network.eval()(torch.zeros((1, 3, tile_px, tile_px), device=device))
    network.train(was_training)
    return TokenGrid(network.grid, int(network.kept[0].shape[2]))


def bare(network: nn.Module) -> Any:  # of any class of timm
    """Return the network without its makers' pooling."""
    return network.trunk if isinstance(network, PooledEncoder) else network


class SpatialTokens(nn.Module):
    """A network's rows, followed by the spatial tokens of its last stage."""

    def __init__(self, network: nn.Module, trunk: Any, grid: int, encoder: str, *, keep_row: bool = True) -> None:
        super().__init__()
        self.network, self.grid, self.encoder, self.keep_row = network, grid, encoder, keep_row
        self.kept: list[Tokens] = []
        """The tokens of the last call: of its first pass, which is the tile as it is."""
        self._prefix = getattr(trunk, "num_prefix_tokens", 0)
        self._channels_last = getattr(trunk, "output_fmt", "") == "NHWC"
        _last_stage(trunk, encoder).register_forward_hook(self._keep)
        self.train(network.training)

    def forward(self, pixels: Pixels) -> Float[torch.Tensor, "tile row"]:
        """Return a row per tile."""
        self.kept.clear()
        rows = self.network(pixels).float()
        if not self.kept:
            msg = f"encoder '{self.encoder}' does not use its last stage, so it has no spatial tokens: remove `tokens`"
            raise EncoderError(msg)
        tokens = self.kept[0].flatten(1)
        return torch.cat([rows, tokens], dim=1) if self.keep_row else tokens

    def _keep(self, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        if not self.kept:
            maps = _maps(output, self._prefix, self.encoder, channels_last=self._channels_last)
            self.kept.append(grid_tokens(maps, self.grid, self.encoder))


def grid_tokens(maps: Float[torch.Tensor, "tile channel row col"], grid: int, encoder: str) -> Tokens:
    """Return maps averaged to grid x grid places, row by row, in float32.

    Where the map's side is no multiple of `grid`, the averaged windows overlap (PyTorch's adaptive mean). Raises
    EncoderError for a map of fewer places.
    """
    rows, columns = maps.shape[2:]
    if min(rows, columns) < grid:
        msg = (
            f"encoder '{encoder}' has a map of {rows} x {columns} places for its tiles, and tokens={grid} needs "
            f"{grid} x {grid}: set tokens to {min(rows, columns)} or less"
        )
        raise EncoderError(msg)
    means: torch.Tensor = functional.adaptive_avg_pool2d(maps.float(), grid)
    return means.flatten(2).transpose(1, 2)


def _maps(output: torch.Tensor, prefix: int, encoder: str, *, channels_last: bool) -> torch.Tensor:
    """Return a stage's output as maps (NCHW); tokens of the whole tile, the first `prefix`, are left out."""
    if output.ndim == MAPS_NDIM:
        return output.permute(0, 3, 1, 2) if channels_last else output
    patches = output[:, prefix:]
    side = math.isqrt(patches.shape[1])
    if side**2 != patches.shape[1]:
        msg = f"encoder '{encoder}' has {patches.shape[1]} patch tokens, which are no square map: remove `tokens`"
        raise EncoderError(msg)
    return patches.transpose(1, 2).reshape(len(patches), -1, side, side)


def _last_stage(trunk: Any, encoder: str) -> nn.Module:
    """Return the module whose output a network pools: its last norm where it has one, or its last stage."""
    norm = getattr(trunk, "norm", None)
    if isinstance(norm, nn.Module):
        return norm
    stages = stages_of(trunk)
    if not stages:
        msg = f"encoder '{encoder}' has no stages that raystp knows, so it has no spatial tokens: remove `tokens`"
        raise EncoderError(msg)
    return stages[-1]
