"""`hf-hub:<owner>/<name>`: any image model on the hub that was published with timm, without its classifier.

Its config.json states what timm builds and which pixels it expects. The weights are the repository's own, a local
file, or random. `@<revision>` after the name pins one commit.
"""

from dataclasses import replace
from typing import Any

import torch

from raystp.encoders import weights
from raystp.encoders.encoder import Encoder, EncoderDescription, EncoderSpec
from raystp.encoders.families import hub_files
from raystp.encoders.families import timm_models as timm_family
from raystp.errors import EncoderError

PREFIX = "hf-hub:"


def build(spec: EncoderSpec) -> Encoder:
    """Build `hf-hub:<owner>/<name>`; raises EncoderError where its config or its weights are not available."""
    network = create(spec)
    if spec.random:
        return timm_family.as_encoder(spec.name, network, weights.state_digest(network))
    if spec.weights is None:
        spec = replace(spec, weights=str(hub_files.download(_repository(spec), encoder=spec.name)))
    digest = weights.load(spec, network, without=timm_family.classifiers(network))
    return timm_family.as_encoder(spec.name, network, digest)


def describe(spec: EncoderSpec) -> EncoderDescription:
    """Describe what `build` builds; downloads only the config from the hub, or reads it from its cache."""
    with torch.device("meta"):
        encoder = timm_family.as_encoder(spec.name, create(spec), digest="")
    return EncoderDescription(identity(spec), encoder.dim, encoder.tile_px)


def identity(spec: EncoderSpec) -> str:
    """Return which weights `build` uses, without a request: the expected digest, or repository and revision."""
    if spec.weights is not None:
        return weights.file_digest(spec)
    if spec.random:
        return f"random:{spec.seed}"
    if spec.sha256 is not None:
        return spec.sha256.lower()
    name, _, revision = _repository(spec).partition("@")
    return f"hub:{name}@{revision or 'main'}"


def create(spec: EncoderSpec) -> Any:  # of any class of timm
    """Create the network that a repository's config.json describes, with random weights."""
    timm = timm_family.import_timm()
    hub_files.download(_repository(spec), ["config.json"], encoder=spec.name)
    try:
        with timm_family.seeded(spec.seed):
            return timm.create_model(spec.name, pretrained=False, num_classes=0)
    except (KeyError, RuntimeError, TypeError) as error:
        msg = (
            f"encoder '{spec.name}': timm cannot build what its config.json describes ({error!r}): "
            f"a model published for another library works only if raystp has a card for it"
        )
        raise EncoderError(msg) from error


def _repository(spec: EncoderSpec) -> str:
    return spec.name.removeprefix(PREFIX)
