"""The table of each gene's score over sections."""

import csv

import numpy as np
import pytest

from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.report.score_tables import section_genes_csv

XY = np.zeros((4, 2))
UP, DOWN = np.arange(4.0), -np.arange(4.0)


def rows(**sections: tuple[np.ndarray, np.ndarray]) -> dict[str, dict[str, str]]:
    outcomes = {name: SectionOutcome(predicted, measured, XY, "P") for name, (predicted, measured) in sections.items()}
    text = section_genes_csv({"m": outcomes}, ["a", "b"])
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
