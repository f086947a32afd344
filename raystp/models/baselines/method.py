"""The records of the baselines, which are fitted at once, and their options."""

import math
from dataclasses import dataclass
from typing import Literal

from raystp.models.method import Method, NoOptions
from raystp.models.training.options import check_at_least


@dataclass(frozen=True)
class KnnOptions:
    """Options of the kNN baseline."""

    k: int = 50
    """Number of neighbours whose expression is averaged."""

    def __post_init__(self) -> None:
        check_at_least(self, {"k": 1})


@dataclass(frozen=True)
class RidgeLowrankOptions:
    """Options of ridge with a low-rank output."""

    rank: int | None = None
    """Number of directions of expression that are predicted. By default it is chosen together with the penalty, by
    cross-validation over the training sections."""

    def __post_init__(self) -> None:
        if self.rank is not None:
            check_at_least(self, {"rank": 1})


@dataclass(frozen=True)
class KernelRidgeOptions:
    """Options of kernel ridge."""

    gamma: float | None = None
    """In exp(-gamma d^2), with d the distance of standardised features divided by the root of their number. By default
    it is chosen together with the penalty, by cross-validation over the training sections."""
    exact_spots: int = 20_000
    """Most training spots that are all used as references; that many need 8 bytes times their square, 3.2 GB."""
    landmarks: int = 4000
    """References where there are more spots, drawn from `fit.seed` (Nystroem)."""

    def __post_init__(self) -> None:
        check_at_least(self, {"exact_spots": 2, "landmarks": 2})
        if self.gamma is not None and not 0 < self.gamma < math.inf:
            msg = f"gamma must be finite and above 0, got {self.gamma}"
            raise ValueError(msg)


@dataclass(frozen=True)
class HestRidgeOptions:
    """Options of hest-bench's ridge."""

    pca: int | None = 256
    """Principal components that are regressed on: 256 in hest-bench's README. `null` takes all features, as its paper
    does. Lowered where there are fewer spots or features."""
    alpha: Literal["hest", "cv"] | float = "hest"
    """The penalty. `hest`: 100 / (dimensions * genes). `cv`: that of the highest PCC in a cross-validation over
    the training sections."""
    scale: bool = True
    """Whether features are scaled to mean 0 and standard deviation 1 first. hest-bench's code scales only before PCA:
    its paper is `{pca: null, scale: false}`."""

    def __post_init__(self) -> None:
        if self.pca is not None:
            check_at_least(self, {"pca": 1})
        if isinstance(self.alpha, float | int) and not 0 <= self.alpha < math.inf:
            msg = f"alpha must be hest, cv, or a finite number of at least 0, got {self.alpha}"
            raise ValueError(msg)


RIDGE = Method(name="ridge", title="ridge", options=NoOptions, module="raystp.models.baselines.ridge", is_trained=False)
"""Linear regression with an L2 penalty chosen by cross-validation."""

HEST_RIDGE = Method(
    name="hest_ridge",
    title="hest-bench's ridge",
    options=HestRidgeOptions,
    module="raystp.models.baselines.hest_ridge",
    is_trained=False,
    packages=("scikit-learn",),
)
"""The regression of hest-bench, to the last digit, for its protocols."""

RIDGE_LOWRANK = Method(
    name="ridge_lowrank",
    title="ridge, low rank",
    options=RidgeLowrankOptions,
    module="raystp.models.baselines.ridge_lowrank",
    is_trained=False,
    choices={"ridge_lowrank.rank": (None, 3, 10, 30)},
)
"""Ridge whose predictions span few directions of expression."""

KERNEL_RIDGE = Method(
    name="kernel_ridge",
    title="kernel ridge",
    options=KernelRidgeOptions,
    module="raystp.models.baselines.kernel_ridge",
    is_trained=False,
    keeps_expression=True,  # where all training spots are references, their weights give it
)
"""Ridge in the space of a Gaussian kernel."""

KNN = Method(
    name="knn",
    title="kNN",
    options=KnnOptions,
    module="raystp.models.baselines.knn",
    is_trained=False,
    keeps_expression=True,
    choices={"knn.k": (50, 20, 100, 200)},
)
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
