"""The config of `evaluate`: which predictions, against what was measured."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from raystp.config import Location, StepConfig
from raystp.steps.run_config import TrackedRun
from raystp.steps.train.bulk_config import BulkConfig


class EvaluateConfig(StepConfig[TrackedRun]):
    """Which predictions to score against which measured spots, or labels of whole cases."""

    where: ClassVar[frozenset[str]] = frozenset({"spots", "predictions", "planted"})

    spots: Annotated[str | None, Location("spots")] = None
    """The measured spots, `spots/<name>`; without them, `bulk`."""

    bulk: BulkConfig | None = None
    """Instead of `spots`, a table of whole cases' expression: each held-out case's prediction is scored against its
    row. It is best the table of the training: its training cases give the ridge and the null to compare with."""

    predictions: Annotated[list[str], Location("impute")] = Field(min_length=1)
    """`impute/<name>`, one per model, of one protocol and one panel; the first is the one that the report is about.
    Of attention regression, those of several seeds: how alike their maps are is then said too."""

    genes: list[str] = Field(default_factory=list)
    """Genes to draw in any case."""

    permutations: int = Field(default=20, ge=0)
    """Models trained on shuffled measurements, for the null; 0 for none."""

    draws: int = Field(default=1000, ge=100)
    """Bootstrap draws of the intervals."""

    seed: int = 0

    planted: Annotated[str | None, Location()] = None
    """Folder with what a synthetic cohort planted: its gene sets, and the expected expression, whose score is a
    ceiling."""

    run: TrackedRun = Field(default_factory=TrackedRun)

    @model_validator(mode="after")
    def _against_one(self) -> "EvaluateConfig":
        if (self.spots is None) == (self.bulk is None):
            seen = "neither is given" if self.spots is None else "both are given"
            msg = f"`spots` (measured spots) or `bulk` (a table of whole cases) is scored against, one of them: {seen}"
            raise ValueError(msg)
        return self

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; the table's digest stands among the inputs, not its path here."""
        values = super().fingerprint_values()
        values.pop("bulk")
        return values | ({"bulk": self.bulk.fingerprint_values()} if self.bulk is not None else {})
