"""Scores of cases: named gene sets, the best genes of a test, and kNN on mean features."""

from pathlib import Path

import numpy as np
import pytest

from raystp.errors import ConfigError
from raystp.evaluate.metrics.cases import TOP_PICKED, WELL_PREDICTED, CaseOutcome, picked_rows, score_cases
from raystp.evaluate.metrics.genes import named_sets, pcc_per_gene
from raystp.evaluate.metrics.score import ScoreLabel
from raystp.evaluate.report.score_tables import cases_text
from raystp.steps.evaluate.cases.controls import neighbour_count
from raystp.steps.evaluate.predictions import sets_of_files
from raystp.steps.train.cases.retrieval import UNVALIDATED_K

LABEL = ScoreLabel("patient", "all", "m")


def _outcome(genes: int, *, cases: int = 12, noise: float = 1.0) -> CaseOutcome:
    rng = np.random.default_rng(genes)
    measured = rng.normal(size=(cases, genes))
    names = [f"P{number}" for number in range(cases)]
    return CaseOutcome(names, names, measured + noise * rng.normal(size=(cases, genes)), measured)


def test_the_score_of_a_named_set_is_the_mean_of_its_genes_rows(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_text("g5\ng2\nABSENT\ng7\n")
    genes = [f"g{number}" for number in range(9)]
    sets = sets_of_files({"mine": str(tmp_path / "set.txt")}, {"all": np.arange(9)}, genes)
    outcome = _outcome(9)
    pcc = pcc_per_gene(outcome.predicted, outcome.measured)[0]
    rows = score_cases(LABEL, outcome, sets, rng=np.random.default_rng(0), draws=100)
    assert {row.genes for row in rows} == {"mine"}
    assert next(row.value for row in rows if row.metric == "PCC") == pytest.approx(pcc[[5, 2, 7]].mean())


def test_a_set_without_a_gene_of_the_panel_and_a_set_of_a_known_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_text("A\n")
    files = {"mine": str(tmp_path / "set.txt")}
    with pytest.raises(ConfigError, match=r"sets\.mine: none of its 1 genes \('A'\) is in the panel of 1 genes"):
        sets_of_files(files, {}, ["B"])
    with pytest.raises(ConfigError, match="sets: 'mine' is the name of another gene set"):
        sets_of_files(files, {"mine": np.arange(1)}, ["A"])


def test_genes_that_this_test_picks_are_counted_and_named_so() -> None:
    outcome = _outcome(1200)
    pcc = pcc_per_gene(outcome.predicted, outcome.measured)[0]
    rows = {(row.metric, row.genes): row for row in picked_rows(LABEL, outcome, [f"g{n}" for n in range(1200)])}
    assert rows[WELL_PREDICTED, "all"].value == (pcc >= 0.4).sum()
    assert rows["PCC", TOP_PICKED].value == pytest.approx(np.sort(pcc)[-1000:].mean())
    assert [row.metric for row in picked_rows(LABEL, _outcome(5), list("abcde"))] == [WELL_PREDICTED]
    assert picked_rows(LABEL, _outcome(5, cases=2), list("abcde")) == []
    text = cases_text(list(rows.values()), ["m"], 12)
    assert "PCC top-1000 (picked on test)" in text
    assert f"{int((pcc >= 0.4).sum())}" in text.splitlines()[-1]


def test_the_number_of_neighbours_of_the_control_is_chosen_among_training_cases() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 2)).astype(np.float32)
    near = np.concatenate([features, np.sin(3 * features)], axis=1).astype(np.float32)
    folds = np.arange(80) % 5
    noise = (features[:, :1] + 3 * rng.normal(size=(80, 30))).astype(np.float32)
    assert neighbour_count(features, near, folds) < neighbour_count(features, noise, folds)
    assert neighbour_count(features[:3], near[:3], np.arange(3)) == 2
    assert neighbour_count(features[:3], near[:3], np.zeros(3, np.int64)) == 1


def test_cases_of_one_patient_choose_no_number_of_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    assert neighbour_count(values, values, np.zeros(80, np.int64)) == UNVALIDATED_K
    assert neighbour_count(values[:20], values[:20], np.zeros(20, np.int64)) == 5


def test_sets_of_names_are_indices_into_the_panel() -> None:
    assert named_sets({"mine": ["b", "x"]}, ["a", "b"])["mine"].tolist() == [1]
