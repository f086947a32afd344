"""The encoders by name: two dictionaries that can be read, and `timm:<model>` for the rest.

A new encoder is a file with `build` and `describe`, and its line in each dictionary.
"""

import difflib
from collections.abc import Callable

from raystp.encoders import mobilenet, timm_family, tiny
from raystp.encoders.encoder import Description, Encoder, EncoderSpec
from raystp.errors import EncoderError

ENCODERS: dict[str, Callable[[EncoderSpec], Encoder]] = {
    "tiny": tiny.build,
    "mobilenet_v1_pw12": mobilenet.build,
}

DESCRIPTIONS: dict[str, Callable[[EncoderSpec], Description]] = {
    "tiny": tiny.describe,
    "mobilenet_v1_pw12": mobilenet.describe,
}


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder that a spec names; raises EncoderError where it is unknown or its weights cannot be had."""
    return timm_family.build(spec) if _is_timm(spec) else ENCODERS[spec.name](spec)


def describe(spec: EncoderSpec) -> Description:
    """Say what `build` would build: its weights' identity, its dim and its tiles' side, without building it.

    A weights file is read through once for its digest, which is checked. A `timm:` model costs the import of timm.
    """
    return timm_family.describe(spec) if _is_timm(spec) else DESCRIPTIONS[spec.name](spec)


def identity(spec: EncoderSpec) -> str:
    """Say which weights `build` would take, for a fingerprint.

    A file's sha256 (checked against `spec.sha256`), `seed:<n>`, `random:<seed>` or `hub:<model>:<tag>`. Raises as
    `build` does for an unknown name or another file than the one named.
    """
    return timm_family.identity(spec) if _is_timm(spec) else DESCRIPTIONS[spec.name](spec).identity


def _is_timm(spec: EncoderSpec) -> bool:
    """Say whether timm has this encoder; raises EncoderError where neither timm nor the registry can."""
    if spec.name.startswith(timm_family.PREFIX):
        return True
    if spec.name not in ENCODERS:
        near = difflib.get_close_matches(spec.name, ENCODERS, n=1)
        there = f"there are {', '.join(sorted(ENCODERS))}, and {timm_family.PREFIX}<model> for any model of timm"
        msg = f"no encoder '{spec.name}'; {there}" + (f"; did you mean '{near[0]}'?" if near else "")
        raise EncoderError(msg)
    return False
