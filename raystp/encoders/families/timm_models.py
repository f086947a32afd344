"""`timm:<model>`: any image model of timm, without its classifier.

Its weights are a local safetensors file, random weights if requested, or else the published ones from the hub. Tile
side, mean and std are those that timm states for the model. timm is imported when one of its models is first used,
since the import takes seconds.
"""

import contextlib
import difflib
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from raystp.encoders import weights
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import _torchvision, hub_files
from raystp.errors import EncoderError, some
from raystp.units import TilePixels

PREFIX = "timm:"


def build(spec: EncoderSpec) -> Encoder:
    """Build `timm:<model>`; raises EncoderError for an unknown model, and where its weights are not available."""
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
    """Return which weights `build` uses, without building; timm is imported only to find an unstated tag.

    The hub's weights are identified by model and tag, or by the expected sha256; a file by its sha256, random weights
    by their seed.
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
    """Describe what `build` builds; the model is created on torch's meta device, without memory or weights."""
    with torch.device("meta"):
        network = create(spec.name.removeprefix(PREFIX))
    encoder = as_encoder(spec.name, network, digest="")
    return EncoderDescription(identity(spec), encoder.dim, encoder.tile_px)


def create(model: str, *, seed: int = 0, **options: object) -> nn.Module:
    """Create a timm model without classifier, with random weights from the seed; `options` are timm's own.

    torch's random state is the same afterwards as before.
    """
    timm = _import_timm_with(model)
    with seeded(seed):
        network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **options)
    return network


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random generator in the block, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def packed_swiglu() -> Callable[..., nn.Module]:
    """Return timm's class for a gated MLP with both halves in one matrix."""
    swiglu: Callable[..., nn.Module] = import_timm().layers.SwiGLUPacked
    return swiglu


def as_encoder(name: str, network: Any, digest: str) -> Encoder:  # of any class of timm
    """Wrap a timm model, with the tile side, mean and std that timm states for it."""
    stated = import_timm().data.resolve_model_data_config(network)
    return Encoder(
        name=name,
        network=network,
        dim=int(network.head_hidden_size),
        tile_px=TilePixels(stated["input_size"][-1]),
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
    file = published.hf_hub_filename or f"model{weights.SUFFIX}"
    if not repository:
        msg = f"timm model '{model}' has no weights on the hub: {hub_files.ALTERNATIVES}"
        raise EncoderError(msg)
    if not file.endswith(weights.SUFFIX):
        msg = f"timm model '{model}' is published as {file}, not as a {weights.SUFFIX} file: {hub_files.ALTERNATIVES}"
        raise EncoderError(msg)
    source = f"{repository}@{revision}" if revision else repository
    return hub_files.download(source, [file], encoder=f"{PREFIX}{model}")


def load_published(model: str, path: Path) -> nn.Module:
    """Create a timm model from its published file, then remove its classifier.

    With the classifier, timm converts files of an older layout and is strict. Without it, timm would silently leave
    missing tensors random. Raises EncoderError where file and model differ.
    """
    timm = _import_timm_with(model)
    source = {"file": str(path), "custom_load": False}
    try:
        network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=source)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300)
        msg = f"the published file of timm model '{model}' does not hold the weights that this timm expects: {reason}"
        raise EncoderError(msg) from error
    network.reset_classifier(0)
    loaded: nn.Module = network
    return loaded


def classifiers(network: Any) -> tuple[str, ...]:  # of any class of timm
    """Return the names of a model's classifiers, which a published file contains and an encoder lacks."""
    names = network.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _published(model: str) -> Any:  # timm's PretrainedCfg, which is untyped
    """Return timm's record of a model's published weights."""
    published = _import_timm_with(model).get_pretrained_cfg(model)
    if published is None or not published.has_weights:
        msg = f"timm publishes no weights for model '{model}': {hub_files.ALTERNATIVES}"
        raise EncoderError(msg)
    return published


def _import_timm_with(model: str) -> ModuleType:
    """Return timm; raises EncoderError where it has no such model, or no such tag of it."""
    timm = import_timm()
    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        msg = f"timm {timm.__version__} has no model '{name}'" + (f"; did you mean {some(close)}?" if close else "")
        raise EncoderError(msg)
    tags = timm.list_pretrained(f"{name}.*")
    if tag and model not in tags:
        msg = f"timm {timm.__version__} has no weights '{tag}' of model '{name}'; there are {some(tags) or 'none'}"
        raise EncoderError(msg)
    return timm


def import_timm() -> ModuleType:
    """Import timm, which takes seconds, after torchvision was made importable."""
    _torchvision.make_importable()
    import timm  # noqa: PLC0415 -- takes seconds, and most runs do not need it

    module: ModuleType = timm
    return module
