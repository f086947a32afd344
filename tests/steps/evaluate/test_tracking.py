"""What an evaluation logs as metrics: means by model, and the folds of a published protocol by their number."""

import numpy as np

from raystp.evaluate.metrics.folds import CrossValidatedScore
from raystp.evaluate.metrics.score import ScoreRow
from raystp.steps.evaluate.tracking import score_metrics
from raystp.steps.pipeline.tracking import fold_metrics


def _row(model: str, section: str, value: float) -> ScoreRow:
    return ScoreRow("patient", "all", model, section, "all", "PCC", value)


def test_folds_have_metrics_of_one_name_and_their_number_is_the_step() -> None:
    rows = [_row("a", "mean", 0.2), _row("a", "fold 0", 0.1), _row("a", "fold 1", 0.3), _row("a", "S1", 0.9)]
    assert score_metrics(rows, "cv") == {
        0: {"PCC all/a": 0.2, "fold PCC all/a": 0.1},
        1: {"fold PCC all/a": 0.3},
    }
    assert score_metrics([_row("a-fold2", "mean", 0.2)], "cv-fold2") == {0: {"PCC all/a": 0.2}}
    assert score_metrics([_row("a", "mean", float(np.nan))], "cv") == {0: {}}


def test_the_table_of_folds_is_curves_with_mean_deviation_and_interval() -> None:
    found = fold_metrics([CrossValidatedScore("a", "PCC", "all", (0.1, float(np.nan), 0.3), (0.0, 0.5))])
    assert {key: round(value, 6) for key, value in found[0].items()} == {
        "mean PCC all/a": 0.2,
        "sd PCC all/a": 0.141421,
        "low PCC all/a": 0.0,
        "high PCC all/a": 0.5,
    }
    assert [found[number] for number in (1, 2, 3)] == [{"PCC all/a": 0.1}, {}, {"PCC all/a": 0.3}]
