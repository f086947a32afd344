"""Configuration of an evaluation against measured spots."""

from typing import Annotated, ClassVar, Literal

from raystp.config import Location
from raystp.steps.evaluate.config import EvaluateConfig


class SpotsEvaluateConfig(EvaluateConfig):
    """Which predictions to score against which measured spots."""

    where: ClassVar[frozenset[str]] = EvaluateConfig.where | {"spots"}

    targets: Literal["spots"] = "spots"

    spots: Annotated[str, Location("spots")]
    """The measured spots, `spots/<name>`."""
