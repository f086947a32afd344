"""How well each gene is predicted, and which genes a score is a mean over.

Every metric is per gene over the spots of one section (or of several, one below the other, which is `pooled`: offsets
between sections then count as signal, and the figure differs from the mean over sections).

A gene whose prediction or measurement has no spread has no correlation: its PCC is 0 and it is counted. It is never
dropped, because dropping before indexing shifts every gene set that is given as indices. A value that is not a number
is no such gene but a fault of the input, and raises.

Gene sets are index arrays into the panel. HEG and HVG are chosen on TRAINING statistics; HPG for a fold is chosen on
the other folds.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.stats import rankdata

from raystp.errors import ModelError, PanelError, SectionError, some

NO_SPREAD = 1e-6
"""A standard deviation below this share of the largest absolute value is float32 rounding, not spread."""

SET_SIZE = 50
"""Genes in HEG-50, HVG-50 and HPG-50."""


def pcc_per_gene(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> tuple[Float64[np.ndarray, "gene"], Bool[np.ndarray, "gene"]]:
    """Return each gene's Pearson correlation over spots, and which genes are constant on either side (their PCC is 0).

    Computed in float64; two copies of the matrices are held. Raises as `check_pair` does.
    """
    check_pair(predicted, measured)
    return _pearson(predicted.astype(np.float64), measured.astype(np.float64))


def spot_pcc(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> tuple[Float64[np.ndarray, "spot"], Bool[np.ndarray, "spot"]]:
    """Return each spot's Pearson correlation over genes, and which spots are constant on either side (their PCC is 0).

    High for any prediction that knows the genes' means: to be read beside the gene-mean baseline only.
    """
    check_pair(predicted, measured)
    return _pearson(predicted.T.astype(np.float64), measured.T.astype(np.float64))


def mse(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> Float64[np.ndarray, "gene"]:
    """Return each gene's mean squared error, in squared units of the measurement."""
    check_pair(predicted, measured)
    return np.asarray(np.square(predicted.astype(np.float64) - measured).mean(axis=0))


def mae(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> Float64[np.ndarray, "gene"]:
    """Return each gene's mean absolute error, in units of the measurement."""
    check_pair(predicted, measured)
    return np.asarray(np.abs(predicted.astype(np.float64) - measured).mean(axis=0))


def rvd(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> Float64[np.ndarray, "gene"]:
    """Return each gene's relative variance distance, (Var(predicted) - Var(measured))^2 / Var(measured)^2.

    0: the prediction spreads as the measurement does; 1: it does not spread at all. NaN for a gene measured without
    spread, for which the distance does not exist.
    """
    check_pair(predicted, measured)
    exists = ~is_constant(measured)
    variance = np.where(exists, measured.var(axis=0, dtype=np.float64), np.nan)
    return np.asarray(np.square(predicted.var(axis=0, dtype=np.float64) / variance - 1.0))


def is_constant(values: Float[np.ndarray, "spot gene"]) -> Bool[np.ndarray, "gene"]:
    """Say which genes have no spread over the spots, within `NO_SPREAD` of their largest absolute value."""
    return np.asarray(values.std(axis=0, dtype=np.float64) <= NO_SPREAD * np.abs(values).max(axis=0))


def check_pair(predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]) -> None:
    """Raise ModelError or SectionError where there are no spots, or where a value is not a finite number."""
    if predicted.size == 0:
        msg = f"there is nothing to score: {predicted.shape[0]} spots x {predicted.shape[1]} genes"
        raise SectionError(msg)
    for values, error, what in ((predicted, ModelError, "predicted"), (measured, SectionError, "measured")):
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=0)).tolist()
        if wrong:
            msg = (
                f"{len(wrong)} of {values.shape[1]} genes have {what} values that are not finite numbers, such as gene "
                f"number {some([str(gene) for gene in wrong], 3)}: a score over the rest would hide it"
            )
            raise error(msg)


def highest(values: Float[np.ndarray, "gene"], n: int, names: Sequence[str]) -> Int64[np.ndarray, "k"]:
    """Return the indices of the `n` highest values (all, where there are fewer), highest first.

    Ties go by name, so that the set does not depend on the panel's order. Raises PanelError for a value that is NaN.
    """
    if np.isnan(values).any():
        first = names[int(np.flatnonzero(np.isnan(values))[0])]
        msg = f"genes cannot be ranked: {int(np.isnan(values).sum())} values are NaN, the first for gene {first!r}"
        raise PanelError(msg)
    return np.lexsort((np.asarray(names), -values))[:n].astype(np.int64)


def gene_sets(
    mean: Float[np.ndarray, "gene"], variance: Float[np.ndarray, "gene"], names: Sequence[str], n: int = SET_SIZE
) -> dict[str, Int64[np.ndarray, "k"]]:
    """Return `all`, HEG-n and HVG-n from the TRAINING mean and variance of each gene.

    A panel of 20 genes has no HEG-50: the set is then called by its true size, HEG-20.
    """
    size = min(n, len(names))
    return {
        "all": np.arange(len(names), dtype=np.int64),
        f"HEG-{size}": highest(mean, size, names),
        f"HVG-{size}": highest(variance, size, names),
    }


def hpg(
    pcc: Float[np.ndarray, "fold gene"], names: Sequence[str], *, fold: int, n: int = SET_SIZE
) -> Int64[np.ndarray, "k"] | None:
    """Return the genes to report for one fold as its best predicted: best mean rank of PCC over the OTHER folds.

    None ("n/a") with fewer than two folds, since there is then nothing to choose them on but the fold itself.
    """
    if pcc.shape[0] < 2:  # noqa: PLR2004 -- two is the fewest that leaves one to choose on
        return None
    ranks = rankdata(np.delete(pcc, fold, axis=0), axis=1)  # 1 is worst; equal values share their mean rank
    return highest(ranks.mean(axis=0), n, names)


def shown(pcc: Float[np.ndarray, "gene"], names: Sequence[str], named: Sequence[str] = ()) -> list[tuple[int, str]]:
    """Return the genes to draw for a section, each with the reason: the best, the median, and those that were named.

    Best and median are picked on the very section they are drawn for: they show, they do not score. A gene appears
    once; named genes that the panel does not hold are left out.
    """
    order = highest(pcc, len(names), names).tolist()
    picked = {order[0]: "best predicted here", order[len(order) // 2]: "median of the panel here"}
    place = {name: at for at, name in enumerate(names)}
    for name in named:
        if name in place:
            picked[place[name]] = picked.get(place[name], "named in advance")
    return list(picked.items())


def _pearson(
    x: Float64[np.ndarray, "spot gene"], y: Float64[np.ndarray, "spot gene"]
) -> tuple[Float64[np.ndarray, "gene"], Bool[np.ndarray, "gene"]]:
    constant = is_constant(x) | is_constant(y)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum(axis=0))
    scale[constant] = np.inf
    return np.clip((x * y).sum(axis=0) / scale, -1.0, 1.0), constant
