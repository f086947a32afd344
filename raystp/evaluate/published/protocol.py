"""What a published protocol fixes: sections, folds, panel, labels, score and aggregation.

One record (`PublishedProtocol`) holds all of it. A pipeline reads the sections, the folds, the panel and the values of
`train` from it; `raystp evaluate --protocol` compares finished predictions with it, and computes the score.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Float64, Int64

Counts: TypeAlias = Float[np.ndarray, "spot gene"] | sp.csr_matrix
"""Raw counts."""


@dataclass(frozen=True)
class GeneCounts:
    """All genes of one section, for the rule of a panel."""

    genes: tuple[str, ...]
    counts: Counts


@dataclass(frozen=True)
class HeldOutSection:
    """One test section: what was predicted, and all that the protocols' labels are computed from."""

    section: str
    patient: str
    counts: Float64[np.ndarray, "spot gene"]
    """Raw counts of the panel's genes, of ALL spots of the section; NaN for a gene that it has not measured."""
    totals: Float64[np.ndarray, " spot"]
    """Counts of each spot over all genes of the section."""
    array: Float64[np.ndarray, "spot 2"]
    """Row and column of each spot on the printed array."""
    rows: Int64[np.ndarray, " tile"]
    """The spots that were predicted, as rows of `counts`."""
    predicted: Float[np.ndarray, "tile gene"]


@dataclass(frozen=True)
class FoldOutcome:
    """The test sections of one fold, as one model predicted them."""

    number: int
    genes: tuple[str, ...]
    """The panel, in the order of the columns."""
    sections: tuple[HeldOutSection, ...]


@dataclass(frozen=True)
class ProtocolScores:
    """The scores of one model under one protocol; the first metric is the one that the papers compare."""

    folds: tuple[Mapping[str, float], ...]
    """Metric -> value of each fold, in the order of the folds."""
    overall: Mapping[str, float]
    """Metric -> value over all folds, aggregated as the protocol does."""
    sd: Mapping[str, float]
    """Metric -> standard deviation over the folds (ddof 0); metrics that exist in folds only."""
    pcc: Float64[np.ndarray, "fold gene"]
    """PCC of each gene in each fold; NaN where it does not exist."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProtocolFold:
    """One fold of a protocol: names of sections. No section is on two sides."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedFigure:
    """Figures of one method under this protocol, as a secondary table has them."""

    method: str
    data: str
    """Which sections they are of."""
    values: Mapping[str, float]
    """Metric, as `ProtocolScores` names it -> value."""


SectionRule = Callable[[Sequence[str]], tuple[str, ...]]
"""Names of all sections -> those that the protocol uses, sorted."""
FoldRule = Callable[[Mapping[str, str]], list[ProtocolFold]]
"""Section -> patient, of the sections in use -> the folds."""
PanelRule = Callable[[Mapping[str, GeneCounts]], list[str]]
"""Section -> counts, of the sections in use, test sections included -> the genes."""


@dataclass(frozen=True)
class PublishedProtocol:
    """One published protocol."""

    name: str
    description: str
    """What is held out, and what is averaged."""
    leak: str
    """One sentence: what a test score uses that is not available for a new patient."""
    data: str
    """What a user must bring."""
    split: Literal["patient", "section"]
    """`split.protocol` of the trainings: which unit is held out as a whole."""
    sections: SectionRule
    folds: FoldRule
    score: Callable[[Sequence[FoldOutcome]], ProtocolScores]
    given_folds: bool = False
    """Whether files that come with the data give the folds; `folds` is the rule where there are none."""
    one_fold: bool = False
    """Whether some of the folds suffice: the papers report one."""
    panel: PanelRule | None = None
    """None where the panel is a fixed list that a user brings."""
    panel_size: int | None = None
    """Genes of the panel; None where the rule decides."""
    given_panel: bool = False
    """Whether a list that comes with the data takes the place of the rule."""
    train: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Values of `raystp train` that the protocol fixes, such as `labels`."""
    retrieval: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Values of `retrieval` of the papers, for methods that predict through a reference index."""
    method: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Values of `raystp train` that make the method the protocol was made for, where it is one."""
    absent: Literal["refuse", "zero"] = "refuse"
    """A gene of the panel that a section has not measured: refused, or counted as 0."""
    differs: tuple[str, ...] = ()
    """Where a run of raystp differs from the publication, one sentence each."""
    packages: tuple[str, ...] = ()
    """Packages whose version changes the digits, and is written beside the score."""
    figures: tuple[PublishedFigure, ...] = ()
    sections_published: int | None = None
    """How many sections the figures are of; None where they are of several data sets."""


def all_sections(names: Sequence[str]) -> tuple[str, ...]:
    """Return all sections, sorted."""
    return tuple(sorted(names))


def figures(
    data: str, metrics: Sequence[str], values: Mapping[str, Sequence[float | None]]
) -> tuple[PublishedFigure, ...]:
    """Return a row of a published table: method -> values of the metrics, None where it has none."""
    return tuple(
        PublishedFigure(method, data, {key: one for key, one in zip(metrics, row, strict=True) if one is not None})
        for method, row in values.items()
    )
