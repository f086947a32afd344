"""Scores of maps from arrays: a map that finds its region, one that matters for the prediction, and two seeds."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from raystp.evaluate.metrics.map_scores import (
    MAX_GENES,
    NO_MAPS,
    RANDOM_ORDERS,
    deletion_scores,
    genes_to_test,
    overlap_scores,
    stability_scores,
)
from raystp.evaluate.metrics.score import ScoreLabel

LABEL = ScoreLabel("patient", "all", "toy")


class Linear:
    """A model whose prediction is the mean of one feature per gene, and whose maps are that feature."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def maps(self, features: np.ndarray, genes: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        values = np.asarray(features[:, : len(genes or ())], np.float32)
        return {"attention": values, "contribution": np.float32(self.sign) * values}

    def removable(self, features: np.ndarray, gene: str) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        column = int(gene[1:])
        parts = np.asarray(features[:, [column, column]], np.float32)
        return parts, lambda rows: float(rows[:, 0].mean())


def slides(count: int = 2) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    return iter([rng.normal(size=(30, 2)).astype(np.float32) for _ in range(count)])


def test_planted_genes_are_tested_before_listed_ones_and_those_before_the_most_variable() -> None:
    panel, variance = [f"g{number}" for number in range(20)], np.arange(20.0)
    assert genes_to_test(panel, variance, planted=["g3", "x"], listed=["g4"]) == ["g3"]
    assert genes_to_test(panel, variance, planted=["x"], listed=["g4"]) == ["g4"]
    assert genes_to_test(panel, variance, planted=[], listed=[]) == [f"g{n}" for n in range(19, 19 - MAX_GENES, -1)]


def test_a_map_equal_to_the_planted_expression_overlaps_wholly() -> None:
    planted = np.random.default_rng(1).random((20, 2)).astype(np.float32)
    scores = overlap_scores(LABEL, [({"attention": planted, "contribution": -planted}, planted)])
    values = {row.metric: row.value for row in scores.rows}
    assert values == {
        "attention AUC": 1.0,
        "attention IoU": 1.0,
        "contribution AUC": 0.0,
        "contribution IoU": 0.0,
    }
    assert {(row.genes, row.section, row.n) for row in scores.rows} == {("planted", "mean", 40)}
    assert len(scores.lines) == 2
    assert scores.lines[0].startswith("`toy` attention: over 2 planted genes and sections, AUC 1.000 (chance 0.5)")


def test_a_prediction_falls_without_its_highest_tiles() -> None:
    scores = deletion_scores(LABEL, Linear(), slides(), ["g0", "g1"], seed=0)
    assert [row.metric for row in scores.rows] == ["attention deletion", "contribution deletion"]
    for row in scores.rows:
        assert row.null_mean is not None
        assert row.value < row.null_mean - 0.3
        assert row.n == 60
    assert f"lower than all {RANDOM_ORDERS} random orders for 4 of 4 genes and slides" in scores.lines[0]


def test_opposite_maps_of_two_seeds_disagree() -> None:
    scores = stability_scores(LABEL, {0: Linear(), 7: Linear(-1.0)}, slides(), ["g0"])
    values = {row.metric: row.value for row in scores.rows}
    assert values == {"attention stability": pytest.approx(1.0), "contribution stability": pytest.approx(-1.0)}
    assert "maps of seeds 0, 7 is 1.000 (chance 0), lowest of 2 pairs 1.000" in scores.lines[0]


def test_without_sections_or_slides_there_is_no_row() -> None:
    assert overlap_scores(LABEL, []) == NO_MAPS
    assert deletion_scores(LABEL, Linear(), [], ["g0"], seed=0) == NO_MAPS
    assert stability_scores(LABEL, {0: Linear(), 1: Linear()}, [], ["g0"]) == NO_MAPS
