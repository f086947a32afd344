"""Models that differ only in their seed are one row: the mean over seeds, with its standard deviation."""

from dataclasses import asdict, fields

import pytest

from raystp import tables
from raystp.evaluate.comparison.seeds import SeedScore, group_names, seed_lines, seed_rows, seed_scores
from raystp.evaluate.metrics.score import ScoreRow
from raystp.evaluate.tables import SEEDS

VALUES = {"a-0": 0.1, "a-1": 0.2, "a-2": 0.6, "b": 0.5}
ROWS = [ScoreRow("patient", "toy", name, "mean", "all", "PCC", value) for name, value in VALUES.items()]


def test_mean_and_deviation_are_over_seeds() -> None:
    (score,) = seed_scores(ROWS, {"bleep, mean of 3 seeds": ("a-0", "a-1", "a-2")})
    assert (score.model, score.seeds, score.section) == ("bleep, mean of 3 seeds", 3, "mean")
    assert (score.mean, score.sd) == pytest.approx((0.3, (0.07) ** 0.5))
    (row,) = seed_rows([score])
    assert (row.model, row.value, row.low) == ("bleep, mean of 3 seeds", score.mean, None)
    assert seed_lines([score])[0].startswith("`bleep, mean of 3 seeds`: PCC all 0.300 (sd 0.265)")
    assert [field.name for field in fields(SeedScore)] == SEEDS.names
    assert tables.of_rows([asdict(score)], SEEDS).num_rows == 1


def test_a_score_that_one_seed_does_not_have_is_left_out() -> None:
    more = [*ROWS, ScoreRow("patient", "toy", "a-0", "S1", "all", "PCC", 0.3)]
    assert len(seed_scores(more, {"g": ("a-0", "a-1", "a-2")})) == 1


def test_groups_are_named_by_method_or_by_their_first_model_where_a_method_has_several() -> None:
    methods = {"a": "bleep", "b": "bleep", "c": "bleep", "d": "bleep", "e": "ridge"}
    assert list(group_names(methods, [["a", "b"]])) == ["bleep, mean of 2 seeds"]
    assert group_names(methods, [["a", "b"], ["c", "d"]]) == {
        "a, mean of 2 seeds": ("a", "b"),
        "c, mean of 2 seeds": ("c", "d"),
    }
