"""Named protocols: what is kept apart between training and test, and which leak a score carries.

The same model scores 0.15, 0.19 or 0.71 on one dataset under three protocols, so every score is printed with the name
of its protocol. A protocol is one entry below. Protocols that papers used fix panel, labels and aggregation too: they
are in `raystp.evaluate.published`, under the names of `PublishedName`.
"""

from dataclasses import dataclass
from typing import Literal

from raystp.errors import ConfigError

PublishedName = Literal[
    "st-benching-833",
    "hest-readme",
    "hest-paper",
    "hest-alphacv",
    "triplex-250",
    "mclstexp-785",
    "bleep-liver",
    "stem-200",
]
"""The keys of `raystp.evaluate.published.registry.PUBLISHED`, for configs."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """How training and test are kept apart, in words that are printed with every score."""

    name: str
    split: Literal["patient", "section"]
    """The unit that is held out as a whole: no such unit is on both sides."""
    same_patient: Literal["refuse", "allow"]
    """Whether the training side, or a reference index, may hold other sections of a test patient."""
    description: str
    leak: str
    """One sentence: what a test score uses that is not available for a new patient."""


PROTOCOLS: dict[str, EvaluationProtocol] = {
    "patient": EvaluationProtocol(
        name="patient",
        split="patient",
        same_patient="refuse",
        description=(
            "Whole patients are held out. Panel, gene sets, normalisation and all choices come from training patients."
        ),
        leak="No known leak: no tissue of a test patient is on the training side.",
    ),
    "section": EvaluationProtocol(
        name="section",
        split="section",
        same_patient="allow",
        description=(
            "Whole sections are held out. Panel, gene sets, normalisation and all choices come from training sections."
        ),
        leak=(
            "Other sections of a test patient may be on the training side. The scores do not apply to a new patient, "
            "and are likely to be higher than they are for one."
        ),
    ),
}


def protocol_of(name: str) -> EvaluationProtocol:
    """Return the protocol with this name; raise ConfigError, listing the known names, if there is none."""
    if name not in PROTOCOLS:
        msg = f"protocol: unknown protocol {name!r}; choose from {', '.join(sorted(PROTOCOLS))}"
        raise ConfigError(msg)
    return PROTOCOLS[name]
