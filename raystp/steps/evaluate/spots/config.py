"""Configuration of an evaluation against measured spots."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from raystp.config import Location
from raystp.evaluate.protocols import PublishedName
from raystp.steps.evaluate.config import EvaluateConfig


class SpotsEvaluateConfig(EvaluateConfig):
    """Which predictions to score against which measured spots."""

    where: ClassVar[frozenset[str]] = EvaluateConfig.where | {"spots", "curve"}

    targets: Literal["spots"] = "spots"

    spots: Annotated[str, Location("spots")]
    """The measured spots, `spots/<name>`."""

    protocol: PublishedName | None = None
    """Score as a publication did: `predictions` are then those of all folds (`impute/<name>-fold1` and so on) of one or
    more models. A run that differs from the protocol in sections, folds, panel or labels is refused."""

    curve: Annotated[list[str], Location("evaluate")] = Field(default_factory=list)
    """`evaluate/<name>` of the same methods in the same order, trained on fewer sections and scored on the same ones:
    the report shows score against number of training sections."""

    @model_validator(mode="after")
    def _protocol_has_own_sets(self) -> "SpotsEvaluateConfig":
        given = [name for name, value in (("sets", self.sets), ("planted", self.planted)) if value]
        if self.protocol is not None and given:
            msg = f"{given[0]}: protocol={self.protocol} scores its own gene sets alone: remove one of the two"
            raise ValueError(msg)
        return self

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; without a published protocol, as before the field existed."""
        values = super().fingerprint_values()
        if self.protocol is None:
            values.pop("protocol")
        return values
