"""Configuration of an evaluation against labels of whole cases."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.train.cases.config import CasesConfig


class CasesEvaluateConfig(EvaluateConfig):
    """Which predictions to score against which labels of whole cases."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "spots": "spots: measured spots need `targets: spots`; with `targets: cases` remove `spots`",
    }

    targets: Literal["cases"]

    cases: CasesConfig
    """Table of the cases' labels; each held-out case is scored against its row. If it is the table that the model was
    trained on, its training cases give the ridge baseline and the permutation null."""

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; the table counts by its digest."""
        values = super().fingerprint_values()
        values.pop("cases")
        return {**values, "cases": self.cases.fingerprint_values()}
