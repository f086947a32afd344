"""`timm:<model>`: any image model of timm, without its classifier.

Its weights are a local safetensors file, or random where that is asked for by name, or else the published ones from
the hub. What it wants of its pixels (side, mean, std) is what timm states for it. timm is imported when one of its
models is first wanted, since that takes seconds.
"""

import contextlib
import difflib
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raystp.encoders import weights
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import _torchvision
from raystp.encoders.families import hub_files as hub
from raystp.errors import EncoderError, some
from raystp.units import TilePixels

PREFIX = "timm:"


def build(spec: EncoderSpec) -> Encoder:
    """Build `timm:<model>`; raises EncoderError where the model or its weights cannot be had as named."""
    model = spec.name.removeprefix(PREFIX)
    if spec.weights is None and not spec.random:
        path = download(model)
        digest = weights.file_digest(replace(spec, weights=str(path)))
        return as_encoder(spec.name, load_published(model, path), digest)
    network = create(model, seed=spec.seed)
    if spec.random:
        return as_encoder(spec.name, network, weights.state_digest(network))
    return as_encoder(spec.name, network, weights.load(spec, network, without=classifiers(network)))


def identity(spec: EncoderSpec) -> str:
    """Say which weights `build` would take, building nothing; timm is imported only to find an unnamed tag.

    The hub's weights are known by model and tag, or by the sha256 that they must have; a file by its sha256, random
    ones by their seed.
    """
    if spec.weights is not None:
        return weights.file_digest(spec)
    if spec.random:
        return f"random:{spec.seed}"
    if spec.sha256 is not None:
        return spec.sha256.lower()
    model, _, tag = spec.name.removeprefix(PREFIX).partition(".")
    return f"hub:{model}:{tag or _published(model).tag}"


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Say what `build` would build; the model is laid out on torch's meta device, without memory or weights."""
    with torch.device("meta"):
        network = create(spec.name.removeprefix(PREFIX))
    encoder = as_encoder(spec.name, network, digest="")
    return EncoderDescription(identity(spec), encoder.dim, encoder.pixels)


def create(model: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """Create a timm model without classifier, its random weights from the seed; `options` are timm's own.

    torch's random state is the same afterwards as before.
    """
    timm = _timm_with(model)
    with drawn_from(seed):
        network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **options)
    return network


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from a seed; its random state is the same afterwards as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def packed_swiglu() -> Callable[..., nn.Module]:
    """Return what makes timm's gated MLP with both halves in one matrix."""
    return timm_itself().layers.SwiGLUPacked  # type: ignore[no-any-return]  # timm has no types


def as_encoder(name: str, network: Any, digest: str) -> Encoder:
    """Wrap a timm model, with the side, mean and std that timm states for it."""
    timm = timm_itself()
    stated = timm.data.resolve_model_data_config(network)
    return Encoder(
        name=name,
        network=network,
        dim=int(network.head_hidden_size),
        pixels=TilePixels(stated["input_size"][-1]),
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        digest=digest,
    )


def download(model: str) -> Path:
    """Return the published safetensors file of a timm model, from the hub or its cache on this machine.

    Raises EncoderError where the model has none, or the hub cannot be reached.
    """
    published = _published(model)
    repository, _, revision = (published.hf_hub_id or "").partition("@")
    file = published.hf_hub_filename or f"model{weights.ENDING}"
    if not repository:
        msg = f"timm model '{model}' has no weights on the hub: {hub.WAY}"
        raise EncoderError(msg)
    if not file.endswith(weights.ENDING):
        msg = f"timm model '{model}' is published as {file}, which is no {weights.ENDING} file: {hub.WAY}"
        raise EncoderError(msg)
    place = f"{repository}@{revision}" if revision else repository
    return hub.download(place, [file], encoder=f"{PREFIX}{model}")


def load_published(model: str, path: Path) -> nn.Module:
    """Create a timm model from its published file, then take its classifier off.

    timm translates files of an older layout, and is strict with the classifier on; without, it would leave what is
    missing random and say nothing. Raises EncoderError where file and model differ.
    """
    timm = _timm_with(model)
    source = {"file": str(path), "custom_load": False}
    try:
        network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=source)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300)
        msg = f"the published file of timm model '{model}' does not hold the weights that this timm wants: {reason}"
        raise EncoderError(msg) from error
    network.reset_classifier(0)
    return network  # type: ignore[no-any-return]  # timm has no types


def classifiers(network: Any) -> tuple[str, ...]:
    """Return the names of a model's classifiers, which a published file holds and an encoder is without."""
    names = network.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _published(model: str) -> Any:
    """Return what timm knows of a model's published weights."""
    published = _timm_with(model).get_pretrained_cfg(model)
    if published is None or not published.has_weights:
        msg = f"timm publishes no weights for model '{model}': {hub.WAY}"
        raise EncoderError(msg)
    return published


def _timm_with(model: str) -> Any:
    """Return timm; raises EncoderError where it has no such model, or no such tag of it."""
    timm = timm_itself()
    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        msg = f"timm {timm.__version__} has no model '{name}'" + (f"; near to it are {some(near)}" if near else "")
        raise EncoderError(msg)
    tags = timm.list_pretrained(f"{name}.*")
    if tag and model not in tags:
        msg = f"timm {timm.__version__} has no weights '{tag}' of model '{name}'; there are {some(tags) or 'none'}"
        raise EncoderError(msg)
    return timm


def timm_itself() -> Any:
    """Import timm, which takes seconds, beside whatever torchvision is there."""
    _torchvision.make_importable()
    import timm  # noqa: PLC0415 -- takes seconds, and most runs need none of it

    return timm
