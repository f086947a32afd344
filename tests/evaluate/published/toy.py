"""Three sections of two patients, four spots each, three genes: small enough to score by hand."""

from collections.abc import Sequence

import anndata as ad
import numpy as np

from raystp.evaluate.published.protocol import FoldOutcome, GeneCounts, HeldOutSection

GENES = ("A", "B", "C")
LINE = ((0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (0.0, 4.0))
"""Four spots on the array: three in a row, and one without a neighbour."""


def held_out(
    section: str,
    counts: Sequence[Sequence[float]] | np.ndarray,
    predicted: Sequence[Sequence[float]] | np.ndarray,
    *,
    rows: Sequence[int] = (0, 1, 2, 3),
    totals: Sequence[float] = (10, 10, 10, 10),
) -> HeldOutSection:
    """Return a section of the patient that its name begins with; genes in columns."""
    return HeldOutSection(
        section=section,
        patient=section[0],
        counts=np.asarray(counts, np.float64),
        totals=np.asarray(totals, np.float64),
        array=np.asarray(LINE),
        rows=np.asarray(rows, np.int64),
        predicted=np.asarray(predicted, np.float32),
    )


def fold(number: int, *sections: HeldOutSection, genes: tuple[str, ...] = GENES) -> FoldOutcome:
    return FoldOutcome(number, genes, sections)


def drawn_sections(seed: int, genes: Sequence[str]) -> dict[str, GeneCounts]:
    """Return two sections of overdispersed counts, for rules of panels."""
    rng = np.random.default_rng(seed)
    mean = rng.gamma(0.6, 2, len(genes))
    sizes = {"a": 61, "b": 43}
    return {
        name: GeneCounts(tuple(genes), rng.poisson(rng.gamma(1.5, mean / 1.5, (spots, len(genes)))).astype(np.float64))
        for name, spots in sizes.items()
    }


def adata_of(section: GeneCounts) -> ad.AnnData:
    """Return a section as scanpy takes it."""
    adata = ad.AnnData(np.array(section.counts))  # a copy: scanpy changes it
    adata.var_names = list(section.genes)
    adata.obs_names = [str(number) for number in range(adata.n_obs)]
    return adata
