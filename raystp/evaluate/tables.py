"""The tables that `evaluate` writes beside the scores: differences, seeds, genes, and calibration."""

import pyarrow as pa

from raystp import tables
from raystp.tables import new_schema

COMPARISON = new_schema(
    "comparison",
    1,
    [
        *(tables.SCORES.field(name) for name in ("protocol", "panel", "model")),
        pa.field("against", pa.string(), nullable=False),  # the other model or control
        *(tables.SCORES.field(name) for name in ("section", "genes", "metric")),
        pa.field("difference", pa.float64(), nullable=False),  # model minus the other
        pa.field("low", pa.float64()),  # paired bootstrap 95 % interval
        pa.field("high", pa.float64()),
        pa.field("p", pa.float64()),  # two-sided; null with fewer than three units
        pa.field("p_holm", pa.float64()),  # over all of this metric and gene set, apart from controls
        pa.field("test", pa.string(), nullable=False),  # sign flips of patients | bootstrap of blocks within section...
        pa.field("units", pa.int64(), nullable=False),  # patients, sections, blocks or cases that were resampled
        pa.field("control", pa.bool_(), nullable=False),  # whether the other one is a control
    ],
)

SEEDS = new_schema(
    "seeds",
    1,
    [
        *(tables.SCORES.field(name) for name in ("protocol", "panel", "model", "section", "genes", "metric")),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("sd", pa.float64(), nullable=False),  # over seeds, n - 1
        pa.field("seeds", pa.int64(), nullable=False),
    ],
)
"""Scores of models that differ only in the seed of their training."""

SECTION_GENES = new_schema(
    "section_genes",
    1,
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("section", pa.string(), nullable=False),  # a section's name, or `mean` over those with a value
        pa.field("gene", pa.string(), nullable=False),
        pa.field("sections", pa.int64(), nullable=False),  # with a PCC of the gene
        pa.field("pcc", pa.float64()),  # over the spots of the section; null where the gene was not measured
        pa.field("mse", pa.float64()),
    ],
)
"""Score of each gene over spots, per section and as mean over sections."""

CASE_GENES = new_schema(
    "case_genes",
    1,
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("gene", pa.string(), nullable=False),
        pa.field("cases", pa.int64(), nullable=False),
        pa.field("pcc", pa.float64()),
        pa.field("auc_at_median", pa.float64()),
        pa.field("mse", pa.float64(), nullable=False),
    ],
)
"""Score of each gene over cases."""

SPREAD_COVERAGE = new_schema(
    "spread_coverage",
    1,
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("section", pa.string(), nullable=False),  # a section's name, or `pooled`
        pa.field("values", pa.int64(), nullable=False),  # measured and predicted genes of all spots
        pa.field("within_1", pa.float64(), nullable=False),  # share of truths within 1 spread; normal: 0.683
        pa.field("within_2", pa.float64(), nullable=False),  # normal: 0.954
        pa.field("factor", pa.float64()),  # the spread times this holds 68.3 % of the truths
        pa.field("zero", pa.int64(), nullable=False),  # values with spread 0
        pa.field("shares", pa.list_(pa.float64()), nullable=False),  # where a normal spread has 0.1 ... 0.9, 0.95, 0.99
    ],
)

FAR_SCORES = new_schema(
    "far_scores",
    1,
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("section", pa.string(), nullable=False),  # a section's name, or `pooled`
        pa.field("far", pa.int64(), nullable=False),  # measured tiles that are far from the reference index
        pa.field("near", pa.int64(), nullable=False),
        pa.field("mse_far", pa.float64()),
        pa.field("mse_near", pa.float64()),
        pa.field("pcc_far", pa.float64()),
        pa.field("pcc_near", pa.float64()),
        pa.field("rank_correlation", pa.float64()),  # of distance and squared error, over tiles
    ],
)

LEARNING_CURVE = new_schema(
    "learning_curve",
    1,
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("sections", pa.int64(), nullable=False),  # training sections
        pa.field("patients", pa.int64(), nullable=False),  # of these
        pa.field("trained", pa.list_(pa.string()), nullable=False),  # their names
        pa.field("genes", pa.int64(), nullable=False),  # that all points have a score of
        pa.field("pcc", pa.float64(), nullable=False),
        pa.field("mse", pa.float64(), nullable=False),
    ],
)
