"""The score of each gene: per section and as mean over sections, or over cases; as values, as a table, as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from raystp import tables
from raystp.evaluate.metrics.cases import CASES, CaseOutcome, auc_at_median
from raystp.evaluate.metrics.genes import mse, pcc_per_gene, pcc_where_measured
from raystp.evaluate.metrics.score import MEAN, SectionOutcome
from raystp.evaluate.tables import CASE_GENES, SECTION_GENES
from raystp.missing import column_means


@dataclass(frozen=True)
class GeneScores:
    """The scores of all genes of the panel, of one model; NaN where a gene has none."""

    model: str
    section: str
    """A section's name, `mean` over the sections that have a value, or `cases`."""
    n: Int64[np.ndarray, "gene"]
    """Sections with a PCC of the gene, or cases."""
    pcc: Float64[np.ndarray, "gene"]
    mse: Float64[np.ndarray, "gene"]
    auc: Float64[np.ndarray, "gene"] | None = None
    """AUC at the median, over cases only."""


def section_gene_scores(outcomes: Mapping[str, Mapping[str, SectionOutcome]]) -> list[GeneScores]:
    """Return, for each model, the scores of each section and then their mean; `outcomes` is model -> section."""
    found = []
    for model, sections in outcomes.items():
        pcc = np.stack([pcc_where_measured(one.predicted, one.measured)[0] for one in sections.values()])
        error = np.stack([column_means((one.predicted - one.measured) ** 2) for one in sections.values()])
        known = (~np.isnan(pcc)).astype(np.int64)
        found += [GeneScores(model, name, *row) for name, *row in zip(sections, known, pcc, error, strict=True)]
        found.append(GeneScores(model, MEAN, known.sum(axis=0), column_means(pcc), column_means(error)))
    return found


def case_gene_scores(outcomes: Mapping[str, CaseOutcome]) -> list[GeneScores]:
    """Return each model's scores over cases; no PCC and no AUC with too few cases."""
    found = []
    for model, one in outcomes.items():
        error, count = mse(one.predicted, one.measured), np.full(one.measured.shape[1], len(one.cases), np.int64)
        pcc, auc = np.full(len(count), np.nan), np.full(len(count), np.nan)
        if one.has_correlation:
            pcc, auc = pcc_per_gene(one.predicted, one.measured)[0], auc_at_median(one.predicted, one.measured)
        found.append(GeneScores(model, CASES, count, pcc, error, auc))
    return found


def genes_table(scores: Sequence[GeneScores], genes: Sequence[str]) -> pa.Table:
    """Return a row per model, section and gene in `SECTION_GENES`; over cases in `CASE_GENES`."""
    over_cases = scores[0].section == CASES
    parts = []
    for one in scores:
        names, values = [pa.array([one.model] * len(genes)), tables.strings(genes)], [one.pcc, one.mse]
        if over_cases:
            assert one.auc is not None  # as `case_gene_scores` returns
            columns = [*names, one.n, *(_nullable(each) for each in (one.pcc, one.auc)), one.mse]
        else:
            section = pa.array([one.section] * len(genes))
            columns = [names[0], section, names[1], one.n, *(_nullable(each) for each in values)]
        parts.append(tables.of_columns(columns, CASE_GENES if over_cases else SECTION_GENES))
    return pa.concat_tables(parts)


def genes_csv(scores: Sequence[GeneScores], genes: Sequence[str]) -> str:
    """Return the means over sections, or the scores over cases, as CSV; a value that does not exist is empty."""
    over_cases = scores[0].section == CASES
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["model", "gene", *(["cases", "pcc", "auc_at_median", "mse"] if over_cases else ["sections", "pcc", "mse"])]
    )
    for one in scores:
        if one.section in {MEAN, CASES}:
            values = [each for each in (one.pcc, one.auc, one.mse) if each is not None]
            for gene, count, *row in zip(genes, one.n.tolist(), *values, strict=True):
                writer.writerow([one.model, gene, count, *("" if np.isnan(value) else f"{value:.6g}" for value in row)])
    return out.getvalue()


def _nullable(values: Float64[np.ndarray, "gene"]) -> pa.Array:
    """Return values with null in place of NaN."""
    return pa.array(values, pa.float64(), from_pandas=True)
