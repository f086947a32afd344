"""Options of the baselines."""

from dataclasses import dataclass

from raystp.models.training.options import check_at_least


@dataclass(frozen=True)
class KnnOptions:
    """Options of the kNN baseline."""

    k: int = 50
    """Neighbours whose expression is averaged."""

    def __post_init__(self) -> None:
        check_at_least(self, {"k": 1})
