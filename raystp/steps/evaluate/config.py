"""Configuration of `raystp evaluate`: the part that both kinds of targets share.

`targets` chooses the kind. `spots` scores against measured spots (`evaluate.spots.config`), `cases` against one label
per case (`evaluate.cases.config`).
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from pydantic import Field

from raystp.config import Location, StepConfig
from raystp.errors import ConfigError
from raystp.steps.run_config import TrackedRun

T = TypeVar("T", bound="EvaluateConfig")


class EvaluateConfig(StepConfig[TrackedRun]):
    """Which predictions to score, and against what."""

    command: ClassVar[str | None] = "evaluate"
    where: ClassVar[frozenset[str]] = frozenset({"predictions", "planted", "sets"})
    RENAMED: ClassVar[Mapping[str, str]] = {
        "bulk": "labels of whole cases are now `targets: cases` with `cases: {table: ...}`",
    }

    targets: Literal["spots", "cases"] = "spots"
    """What predictions are scored against: measured spots, or one label per case."""

    predictions: Annotated[list[str], Location("impute")] = Field(min_length=1)
    """`impute/<name>`, one per model, all of one protocol and one panel; the report is about the first. If models with
    attention maps differ only in their seed, the agreement of their maps is scored too."""

    genes: list[str] = Field(default_factory=list)
    """Genes that the report always shows."""

    permutations: int = Field(default=20, ge=0)
    """Models trained on permuted labels, for the permutation null; 0 for no null."""

    draws: int = Field(default=1000, ge=100)
    """Bootstrap draws of the intervals."""

    seed: int = 0

    sets: Annotated[dict[str, str], Location()] = Field(default_factory=dict)
    """Named gene sets, each a file as `panel.file` of `train` reads it: a row of scores for the genes of each that are
    in the panel. The sets of a GMT have no rows: each can be chosen in the maps of the report."""

    planted: Annotated[str | None, Location()] = None
    """Folder with the ground truth of a simulated cohort: its gene sets, and the expected expression of each spot,
    whose score is the upper limit for any model."""

    run: TrackedRun = Field(default_factory=TrackedRun)

    @classmethod
    def variant(cls: type[T], values: Mapping[str, Any]) -> type[T]:
        """Return the config class of the values' `targets`; raises ConfigError for another value."""
        if cls is not EvaluateConfig:
            return cls
        from raystp.steps.evaluate.cases.config import CasesEvaluateConfig  # noqa: PLC0415 -- it imports this module
        from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig  # noqa: PLC0415 -- the same

        if "targets" not in values and "cases" in values:
            msg = "cases: a table of whole cases needs `targets: cases`; the default is `targets: spots`"
            raise ConfigError(msg)
        targets = values.get("targets", "spots")
        if targets not in ("spots", "cases"):
            msg = f"targets: must be spots or cases, got {targets!r}"
            raise ConfigError(msg)
        kind: type[EvaluateConfig] = CasesEvaluateConfig if targets == "cases" else SpotsEvaluateConfig
        return cast("type[T]", kind)  # `cls` is EvaluateConfig here, so `kind` is a subclass of it

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; the targets count by the fingerprint of the spots or the digest of the table."""
        return {key: value for key, value in super().fingerprint_values().items() if key != "targets"}
