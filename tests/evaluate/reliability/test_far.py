"""Scores of far against near tiles, with a planted error that grows with the distance."""

from dataclasses import fields

import numpy as np
import pytest

from raystp.evaluate.reliability.far import FEWEST_TILES, FarScore, FarTiles, far_scores
from raystp.evaluate.reliability.report import reliability_lines, reliability_parts
from raystp.evaluate.tables import FAR_SCORES


def test_errors_of_far_and_near_tiles_are_means_over_tiles_of_means_over_genes() -> None:
    measured = np.array([[0.0, 0.0], [1.0, 3.0], [2.0, np.nan], [np.nan, np.nan]])
    tiles = FarTiles(np.zeros((4, 2)), measured, np.array([0.1, 0.9, 0.8, 0.7]), np.array([False, True, True, True]))
    score, pooled = far_scores("m", {"S1": tiles}, "pooled")
    assert (score.far, score.near) == (2, 1)  # the last tile has no measured gene
    assert (score.mse_far, score.mse_near) == ((5.0 + 4.0) / 2, 0.0)
    assert (score.pcc_far, score.pcc_near, score.rank_correlation) == (None, None, None)
    assert (pooled.section, pooled.mse_far) == ("pooled", score.mse_far)


@pytest.mark.parametrize("worse", [True, False])
def test_an_error_that_grows_with_the_distance_is_found(worse: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    rng = np.random.default_rng(0)
    distance = rng.uniform(0, 1, 400)
    truth = rng.normal(size=(400, 20))
    size = 0.1 + 2 * distance if worse else np.full(400, 0.5)
    tiles = FarTiles(truth + size[:, None] * rng.normal(size=truth.shape), truth, distance, distance > 0.9)
    score = far_scores("m", {"S1": tiles}, "pooled")[0]
    assert score.mse_far is not None
    assert score.mse_near is not None
    assert score.pcc_far is not None
    assert score.pcc_near is not None
    assert score.rank_correlation is not None
    if worse:
        assert score.mse_far > 2 * score.mse_near
        assert score.pcc_far < score.pcc_near - 0.1
        assert score.rank_correlation > 0.9
    else:
        assert score.mse_far == pytest.approx(score.mse_near, rel=0.15)
        assert abs(score.rank_correlation) < 0.1


def test_pooled_is_the_score_of_all_tiles_together() -> None:
    rng = np.random.default_rng(0)

    def part(count: int) -> FarTiles:
        distance = rng.uniform(0, 1, count)
        return FarTiles(rng.normal(size=(count, 3)), rng.normal(size=(count, 3)), distance, distance > 0.5)

    parts = [part(30), part(12)]
    named = {f"S{number}": one for number, one in enumerate(parts)}
    whole = FarTiles(*(np.concatenate([getattr(one, f.name) for one in parts]) for f in fields(FarTiles)))
    assert far_scores("m", named, "pooled")[-1] == far_scores("m", {"pooled": whole}, "pooled")[0]
    assert far_scores("m", {}, "pooled") == []


def test_a_side_with_few_tiles_has_an_error_and_no_correlation() -> None:
    rng = np.random.default_rng(0)
    count = 3 * FEWEST_TILES
    far = np.arange(count) < FEWEST_TILES - 1
    tiles = FarTiles(rng.normal(size=(count, 3)), rng.normal(size=(count, 3)), np.linspace(1, 0, count), far)
    rows = far_scores("bleep", {"S1": tiles}, "pooled")
    assert rows[0].pcc_far is None
    assert rows[0].pcc_near is not None
    assert reliability_lines([], rows)[0].startswith("`bleep` far: MSE ")
    (table,) = reliability_parts([], rows)
    assert "n/a" in table.rows[0]  # type: ignore[union-attr]  # it is a table
    none = far_scores("bleep", {"S1": FarTiles(tiles.predicted, tiles.measured, tiles.distance, far & ~far)}, "pooled")
    assert reliability_lines([], none) == ["`bleep` far: none of 30 measured tiles is far from the reference index."]
    assert [field.name for field in fields(FarScore)] == FAR_SCORES.names
