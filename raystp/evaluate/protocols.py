"""Named protocols: what is kept apart, and which leak a figure carries.

The same model scores 0.15, 0.19 or 0.71 on one dataset under three protocols, so no figure is printed without its
protocol's name. A protocol is one entry below. The published ones (hest-readme, triplex-250, ...) differ by further
switches: each becomes a field of `EvaluationProtocol` whose default is the leak-free way.
"""

from dataclasses import dataclass
from typing import Literal

from raystp.errors import ConfigError


@dataclass(frozen=True)
class EvaluationProtocol:
    """How training and test are kept apart, in words that are printed with every figure."""

    name: str
    split: Literal["patient", "section"]
    """What is held out as a whole: no such unit is on both sides."""
    same_patient: Literal["refuse", "allow"]
    """Whether the training side, or a reference bank, may hold other sections of a test patient."""
    description: str
    leak: str
    """One sentence: what a test figure knows that it would not know of a new patient."""


PROTOCOLS: dict[str, EvaluationProtocol] = {
    "patient": EvaluationProtocol(
        name="patient",
        split="patient",
        same_patient="refuse",
        description=(
            "Whole patients are held out. Panel, gene sets, normalisation and every choice come from training patients."
        ),
        leak="No leak is known: no tissue of a test patient is on the training side.",
    ),
    "section": EvaluationProtocol(
        name="section",
        split="section",
        same_patient="allow",
        description=(
            "Whole sections are held out. Panel, gene sets, normalisation and every choice come from training sections."
        ),
        leak=(
            "Other sections of a test patient may be on the training side: the figures then say nothing about a new "
            "patient, and are likely to be higher than for one."
        ),
    ),
}


def protocol_of(name: str) -> EvaluationProtocol:
    """Return the protocol of that name; raise ConfigError with the names there are."""
    if name not in PROTOCOLS:
        msg = f"no such protocol; there are {', '.join(sorted(PROTOCOLS))}, got {name!r}"
        raise ConfigError(msg)
    return PROTOCOLS[name]
