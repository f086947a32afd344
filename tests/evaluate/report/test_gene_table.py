"""The table of each gene's score over sections."""

import csv

import numpy as np
import pytest

from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.metrics.gene_scores import case_gene_scores, genes_csv, genes_table, section_gene_scores
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.tables import CASE_GENES

XY = np.zeros((4, 2))
UP, DOWN = np.arange(4.0), -np.arange(4.0)


def rows(**sections: tuple[np.ndarray, np.ndarray]) -> dict[str, dict[str, str]]:
    outcomes = {name: SectionOutcome(predicted, measured, XY, "P") for name, (predicted, measured) in sections.items()}
    text = genes_csv(section_gene_scores({"m": outcomes}), ["a", "b"])
    return {row["gene"]: row for row in csv.DictReader(text.splitlines())}


def test_a_genes_score_is_its_mean_over_the_sections_that_measured_it() -> None:
    first = (np.column_stack([UP, UP]), np.column_stack([UP, DOWN]))
    second = (np.column_stack([UP, UP]), np.column_stack([DOWN, np.full(4, np.nan)]))
    found = rows(S1=first, S2=second)
    assert [found[gene]["sections"] for gene in "ab"] == ["2", "1"]
    assert [float(found[gene]["pcc"]) for gene in "ab"] == pytest.approx([0.0, -1.0], abs=1e-6)
    assert float(found["b"]["mse"]) == pytest.approx(((UP - DOWN) ** 2).mean())


def test_a_gene_that_no_section_measured_has_no_score() -> None:
    missing = (np.column_stack([UP, UP]), np.column_stack([UP, np.full(4, np.nan)]))
    found = rows(S1=missing)
    assert (found["b"]["sections"], found["b"]["pcc"], found["b"]["mse"]) == ("0", "", "")


def test_the_table_has_each_section_and_null_where_there_is_no_score() -> None:
    outcomes = {
        "S1": SectionOutcome(np.column_stack([UP, UP]), np.column_stack([UP, DOWN]), XY, "P"),
        "S2": SectionOutcome(np.column_stack([UP, UP]), np.column_stack([DOWN, np.full(4, np.nan)]), XY, "P"),
    }
    rows = genes_table(section_gene_scores({"m": outcomes}), ["a", "b"]).to_pylist()
    assert [(row["section"], row["gene"], row["sections"]) for row in rows] == [
        ("S1", "a", 1),
        ("S1", "b", 1),
        ("S2", "a", 1),
        ("S2", "b", 0),
        ("mean", "a", 2),
        ("mean", "b", 1),
    ]
    assert [row["pcc"] for row in rows] == pytest.approx([1, -1, -1, None, 0, -1], abs=1e-6)


def test_genes_over_cases_have_an_auc_and_few_cases_no_correlation() -> None:
    outcome = CaseOutcome(["c1", "c2"], ["p1", "p2"], np.zeros((2, 2)), np.ones((2, 2)))
    scores = case_gene_scores({"m": outcome})
    table = genes_table(scores, ["a", "b"])
    assert table.schema.equals(CASE_GENES)
    assert table.to_pylist()[1] == {
        "model": "m",
        "gene": "b",
        "cases": 2,
        "pcc": None,
        "auc_at_median": None,
        "mse": 1.0,
    }
    assert genes_csv(scores, ["a", "b"]).splitlines()[:2] == ["model,gene,cases,pcc,auc_at_median,mse", "m,a,2,,,1"]
