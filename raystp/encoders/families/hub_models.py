"""`hf-hub:<owner>/<name>`: any image model on the hub that was published with timm, without its classifier.

Its config.json says what timm builds and what its pixels are; the weights are the repository's own, a local file, or
random. `@<revision>` behind the name pins one commit.
"""

from dataclasses import replace
from typing import Any

import torch

from raystp.encoders import weights
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import hub_files as hub
from raystp.encoders.families import timm_models as timm_family
from raystp.errors import EncoderError

PREFIX = "hf-hub:"


def build(spec: EncoderSpec) -> Encoder:
    """Build `hf-hub:<owner>/<name>`; raises EncoderError where its config or its weights cannot be had."""
    network = _create(spec)
    if spec.random:
        return timm_family.as_encoder(spec.name, network, weights.state_digest(network))
    if spec.weights is None:
        spec = replace(spec, weights=str(hub.download(_repository(spec), encoder=spec.name)))
    digest = weights.load(spec, network, without=timm_family.classifiers(network))
    return timm_family.as_encoder(spec.name, network, digest)


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Say what `build` would build; asks the hub, or its cache, for the config alone."""
    with torch.device("meta"):
        encoder = timm_family.as_encoder(spec.name, _create(spec), digest="")
    return EncoderDescription(identity(spec), encoder.dim, encoder.pixels)


def identity(spec: EncoderSpec) -> str:
    """Say which weights `build` would take, asking nobody: what was pinned, or the repository and its revision."""
    if spec.weights is not None:
        return weights.file_digest(spec)
    if spec.random:
        return f"random:{spec.seed}"
    if spec.sha256 is not None:
        return spec.sha256.lower()
    name, _, revision = _repository(spec).partition("@")
    return f"hub:{name}@{revision or 'main'}"


def _create(spec: EncoderSpec) -> Any:
    timm = timm_family.timm_itself()
    hub.download(_repository(spec), ["config.json"], encoder=spec.name)
    try:
        with timm_family.drawn_from(spec.seed):
            return timm.create_model(spec.name, pretrained=False, num_classes=0)
    except (KeyError, RuntimeError, TypeError) as error:
        msg = (
            f"encoder '{spec.name}': timm cannot build what its config.json describes ({error!r}): "
            f"models that were published for other libraries have cards of their own here, or none"
        )
        raise EncoderError(msg) from error


def _repository(spec: EncoderSpec) -> str:
    return spec.name.removeprefix(PREFIX)
