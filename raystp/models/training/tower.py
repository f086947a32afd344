"""The image encoder of a model that is trained from pixels: attached in one place, alike for every method.

A method is made for features. Attached to its model, the encoder (the tower) computes them from pixels in each forward
pass, before the model's own `forward`. Its weights are stored with the model's, under `ENCODER_PREFIX`. A model
without its tower, which is how one is opened to predict, reads features as any other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from raystp.models.arrays import ENCODER_PREFIX
from raystp.models.training.options import FitOptions

TOWER = ENCODER_PREFIX.removesuffix(".")
"""Name of the encoder among the parts of a model."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NORMALISATIONS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)

MakeOptimizer = Callable[[list[nn.Parameter], FitOptions], torch.optim.Optimizer]


def attach_tower(model: nn.Module, tower: nn.Module, inputs: tuple[int, ...], options: FitOptions) -> None:
    """Make a model of features one of pixels.

    Its `forward` then takes the pixels of some tiles, followed by its own arguments. Those at `inputs` are whole
    numbers in place of features: 0 for features of zeros, and n for the n-th tile. A layer whose learning rate is 0
    gets no gradient.
    """
    for rate, parameters in layer_rates(tower, options):
        for parameter in parameters:
            parameter.requires_grad_(rate > 0)
    model.add_module(TOWER, tower)
    model.register_forward_pre_hook(_EncodeFirst(inputs, options.freeze_batch_norm, options.encoder_tiles))


def layer_rates(tower: nn.Module, options: FitOptions) -> list[tuple[float, list[nn.Parameter]]]:
    """Return the learning rate of each layer, first to last: `encoder_lr * layer_decay ** (layers after it)`."""
    layers, rate = layers_of(tower), options.lr if options.encoder_lr is None else options.encoder_lr
    return [(rate * options.layer_decay ** (len(layers) - 1 - depth), one) for depth, one in enumerate(layers)]


def layers_of(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer of a network, first to last.

    Layers are the network's own parts in their order, those of containers one by one: blocks of a transformer, or of a
    stage of a convolutional network. A normalisation between two parts belongs to the one before it. Parameters outside
    all parts, such as position codes, belong to the first layer.
    """
    parts = [part for part in network.children() if next(part.parameters(), None) is not None]
    direct = list(network.parameters(recurse=False))
    if len(parts) == 1 and not direct and not isinstance(network, nn.ParameterList):
        return layers_of(parts[0])
    layers: list[list[nn.Parameter]] = [direct] if direct else []
    join_next, known = bool(direct), {id(one) for one in direct}
    for part in _opened(network):
        own = [one for one in part.parameters() if id(one) not in known]
        known |= {id(one) for one in own}
        if not own:
            continue
        if layers and (join_next or isinstance(part, _NORMALISATIONS)):
            layers[-1] += own
        else:
            layers.append(own)
        join_next = False
    return layers


def with_tower(make: MakeOptimizer, model: nn.Module) -> MakeOptimizer:
    """Return a function that makes the model's own optimiser, with a group for each layer of its tower.

    A group has the rate of its layer, also as `base_lr`, from which a method's schedule starts. Without a tower the
    optimiser is the method's.
    """
    tower = getattr(model, TOWER, None)
    if tower is None:
        return make

    def made(parameters: list[nn.Parameter], options: FitOptions) -> torch.optim.Optimizer:
        groups = [(rate, layer) for rate, layer in layer_rates(tower, options) if rate > 0]
        of_tower = {id(one) for one in tower.parameters()}
        optimizer = make([one for one in parameters if id(one) not in of_tower], options)
        for rate, layer in groups:
            optimizer.add_param_group(
                {"params": layer, "lr": rate, "base_lr": rate, "weight_decay": options.weight_decay}
            )
        return optimizer

    return made


def encoded(
    tower: nn.Module, pixels: Float[Tensor, "tile 3 pixel pixel"], at_once: int | None
) -> Float[Tensor, "tile feature"]:
    """Return the tower's row of each tile; with `at_once`, activations of so many tiles are kept at a time.

    Where there are more tiles, the activations are computed again for the gradient: a third more time.
    """
    parts = [pixels] if at_once is None else list(torch.split(pixels, at_once))
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.cat([tower(part) for part in parts])
    return torch.cat([checkpoint(tower, part, use_reentrant=False) for part in parts])


@dataclass(frozen=True)
class _EncodeFirst:
    """A hook before the model's `forward`: replaces numbers of tiles by the tower's features of these tiles."""

    inputs: tuple[int, ...]
    freeze_batch_norm: bool
    at_once: int | None

    def __call__(self, model: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        pixels, *own = arguments
        tower: nn.Module = getattr(model, TOWER)
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        if not trained:
            tower.eval()
        elif self.freeze_batch_norm:
            freeze_batch_norm(tower)
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            features = encoded(tower, pixels, self.at_once)
        rows = torch.cat([features.new_zeros(1, features.shape[1]), features])
        for position in self.inputs:
            own[position] = rows[own[position]]
        return tuple(own)


def freeze_batch_norm(network: nn.Module) -> None:
    """Make batch normalisations use their stored statistics, and leave them unchanged; their weights still train."""
    for part in network.modules():
        if isinstance(part, _BatchNorm):
            part.eval()


def _opened(network: nn.Module) -> Iterator[nn.Module]:
    for part in network.children():
        if isinstance(part, _CONTAINERS):
            yield from _opened(part)
        else:
            yield part
