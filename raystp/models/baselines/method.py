"""The records of the baselines, which are fitted at once, and their options."""

from dataclasses import dataclass

from raystp.models.method import Method, NoOptions
from raystp.models.training.options import check_at_least


@dataclass(frozen=True)
class KnnOptions:
    """Options of the kNN baseline."""

    k: int = 50
    """Number of neighbours whose expression is averaged."""

    def __post_init__(self) -> None:
        check_at_least(self, {"k": 1})


RIDGE = Method(name="ridge", title="ridge", options=NoOptions, module="raystp.models.baselines.ridge", is_trained=False)
"""Linear regression with an L2 penalty chosen by cross-validation."""

KNN = Method(name="knn", title="kNN", options=KnnOptions, module="raystp.models.baselines.knn", is_trained=False)
"""Mean expression of the nearest training tiles."""

GENE_MEAN = Method(
    name="gene_mean",
    title="gene mean",
    options=NoOptions,
    module="raystp.models.baselines.gene_mean",
    is_trained=False,
    is_learned=False,
)
"""The training mean of each gene, everywhere."""
