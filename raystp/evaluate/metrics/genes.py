"""Metrics per gene, and the gene sets that a score is averaged over.

Every metric is per gene over the spots of one section, or over the concatenated spots of several sections (`pooled`).
Pooled scores count offsets between sections as signal, so they differ from the mean over sections.

A gene whose prediction or measurement is constant has no correlation: its PCC is 0 and it is counted. It is never
dropped, because dropping before indexing shifts every gene set that is given as indices. A value that is not finite is
an input error and raises.

A gene that a section has not measured is NaN there: `pcc_where_measured` gives it no PCC (NaN), never 0.

Gene sets are index arrays into the panel. HEG and HVG are chosen on TRAINING statistics.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from raystp.errors import ModelError, PanelError, SectionError, some
from raystp.missing import column_means, equal_columns, pair_where_predicted

NO_SPREAD = 1e-6
"""A standard deviation below this share of the largest absolute value is float32 rounding, so the gene is constant."""

FEWEST_SPOTS = 2
"""A correlation over fewer spots does not exist."""

SET_SIZE = 50
"""Genes in HEG-50 and HVG-50."""

GeneSets = Mapping[str, Int64[np.ndarray, "_"]]
"""Name of a gene set -> its indices into the panel."""


def pcc_per_gene(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> tuple[Float64[np.ndarray, "gene"], Bool[np.ndarray, "gene"]]:
    """Return each gene's Pearson correlation over spots, and which genes are constant on either side (their PCC is 0).

    Computed in float64; two copies of the matrices are held. Raises as `check_pair` does.
    """
    check_pair(predicted, measured)
    return _pearson(predicted.astype(np.float64), measured.astype(np.float64))


def pcc_where_measured(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> tuple[Float64[np.ndarray, "gene"], Bool[np.ndarray, "gene"]]:
    """Return what `pcc_per_gene` returns, each gene over the spots where it is measured (not NaN).

    A gene that is measured at fewer than two spots has no correlation: NaN, and not constant.
    """
    known = ~np.isnan(measured)
    if known.all() and len(measured) >= FEWEST_SPOTS:
        return pcc_per_gene(predicted, measured)
    pcc, constant = np.full(measured.shape[1], np.nan), np.zeros(measured.shape[1], bool)
    for rows, genes in equal_columns(known):
        if len(rows) >= FEWEST_SPOTS:
            pair = predicted[np.ix_(rows, genes)], measured[np.ix_(rows, genes)]
            pcc[genes], constant[genes] = pcc_per_gene(*pair)
    return pcc, constant


def validation_pcc(predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]) -> float:
    """Return the mean PCC over the genes that are measured and predicted; NaN where no gene has a PCC."""
    pcc = pcc_where_measured(*pair_where_predicted(predicted, measured))[0]
    existing = ~np.isnan(pcc)
    return float(pcc[existing].mean()) if existing.any() else float(np.nan)


def mse_and_spread(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> tuple[float, float]:
    """Return the mean squared error, and sd(predicted) / sd(measured), means over the measured and predicted genes.

    A gene that is measured as constant has no ratio. NaN where no gene has a value.
    """
    predicted, measured = pair_where_predicted(predicted, measured)
    known = ~np.isnan(measured)
    own, true = (np.where(known, values, np.nan).astype(np.float64) for values in (predicted, measured))
    error = column_means(np.square(own - true))
    spread, of_truth = (np.sqrt(column_means(np.square(values - column_means(values)))) for values in (own, true))
    varies = of_truth > NO_SPREAD * np.abs(np.nan_to_num(true)).max(axis=0)
    ratio = np.where(varies, spread, np.nan) / np.where(varies, of_truth, 1.0)
    means = [float(np.nanmean(values)) if (~np.isnan(values)).any() else float(np.nan) for values in (error, ratio)]
    return means[0], means[1]


def spot_pcc(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> tuple[Float64[np.ndarray, "spot"], Bool[np.ndarray, "spot"]]:
    """Return each spot's Pearson correlation over genes, and which spots are constant on either side (their PCC is 0).

    High for any prediction with the right mean per gene: compare it with the gene-mean baseline only.
    """
    check_pair(predicted, measured)
    return _pearson(predicted.T.astype(np.float64), measured.T.astype(np.float64))


def mse(
    predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]
) -> Float64[np.ndarray, "gene"]:
    """Return each gene's mean squared error, in squared units of the measurement."""
    check_pair(predicted, measured)
    return np.asarray(np.square(predicted.astype(np.float64) - measured).mean(axis=0))


def is_constant(values: Float[np.ndarray, "spot gene"]) -> Bool[np.ndarray, "gene"]:
    """Return which genes have no spread over the spots, within `NO_SPREAD` of their largest absolute value."""
    return np.asarray(values.std(axis=0, dtype=np.float64) <= NO_SPREAD * np.abs(values).max(axis=0))


def check_pair(predicted: Float[np.ndarray, "spot gene"], measured: Float[np.ndarray, "spot gene"]) -> None:
    """Raise SectionError for an empty matrix, ModelError or SectionError for a value that is not finite."""
    if predicted.size == 0:
        msg = f"nothing to score: {predicted.shape[0]} spots x {predicted.shape[1]} genes"
        raise SectionError(msg)
    for values, error, side in ((predicted, ModelError, "predicted"), (measured, SectionError, "measured")):
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=0)).tolist()
        if wrong:
            msg = (
                f"{len(wrong)} of {values.shape[1]} genes have {side} values that are nan or infinite, such as gene "
                f"number {some([str(gene) for gene in wrong], 3)}; a score over the other genes would hide the error"
            )
            raise error(msg)


def highest(values: Float[np.ndarray, "gene"], n: int, names: Sequence[str]) -> Int64[np.ndarray, "k"]:
    """Return the indices of the `n` highest values (all, if there are fewer), highest first.

    Ties are sorted by name, so the set does not depend on the panel's order. Raises PanelError for NaN.
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

    A panel of 20 genes has no HEG-50: the set is named by its true size, HEG-20.
    """
    size = min(n, len(names))
    return {
        "all": np.arange(len(names), dtype=np.int64),
        f"HEG-{size}": highest(mean, size, names),
        f"HVG-{size}": highest(variance, size, names),
    }


def named_sets(members: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, Int64[np.ndarray, "k"]]:
    """Return sets that are given by gene names as indices into the panel; genes outside it and empty sets are left out.

    The order within a set is that of `members`.
    """
    column = {name: number for number, name in enumerate(names)}
    sets = {name: [column[gene] for gene in genes if gene in column] for name, genes in members.items()}
    return {name: np.asarray(found, np.int64) for name, found in sets.items() if found}


def genes_to_show(
    pcc: Float[np.ndarray, "gene"], names: Sequence[str], listed: Sequence[str] = ()
) -> list[tuple[int, str]]:
    """Return the genes to draw, each with the reason: highest PCC, median PCC, and those that the config lists.

    Highest and median are chosen on the same data that is drawn: they illustrate, they are not a score. A gene appears
    once; listed genes outside the panel, and genes without a PCC (NaN: not measured), are left out.
    """
    known = np.flatnonzero(~np.isnan(pcc))
    if not len(known):
        return []
    order = known[highest(pcc[known], len(known), [names[gene] for gene in known.tolist()])].tolist()
    chosen = {order[0]: "highest PCC here", order[len(order) // 2]: "median PCC here"}
    column = {names[gene]: gene for gene in known.tolist()}
    for name in listed:
        if name in column:
            chosen.setdefault(column[name], "listed in the config")
    return list(chosen.items())


def _pearson(
    x: Float64[np.ndarray, "spot gene"], y: Float64[np.ndarray, "spot gene"]
) -> tuple[Float64[np.ndarray, "gene"], Bool[np.ndarray, "gene"]]:
    constant = is_constant(x) | is_constant(y)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum(axis=0))
    scale[constant] = np.inf
    return np.clip((x * y).sum(axis=0) / scale, -1.0, 1.0), constant
