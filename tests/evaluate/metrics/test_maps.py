"""Overlap, deletion and stability of maps: results that can be checked by hand, and the chance level."""

from dataclasses import asdict

import numpy as np
import pytest

from raystp.errors import SectionError
from raystp.evaluate.metrics.maps import deletion_curves, overlap, stability


def test_a_perfect_map_and_its_reverse() -> None:
    region = np.arange(20) < 4
    good = overlap(20.0 - np.arange(20), region, top=0.2)
    assert (good.iou, good.average_precision, good.auc, good.top) == (1.0, 1.0, 1.0, 4)
    bad = overlap(np.arange(20.0), region, top=0.2)
    assert (bad.iou, bad.auc) == (0.0, 0.0)


def test_overlap_by_hand() -> None:
    region = np.array([True, False, True, False, False])
    seen = overlap(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), region, top=0.4)  # two highest, one of two inside
    assert seen.iou == pytest.approx(1 / 3)
    assert seen.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert seen.auc == pytest.approx(5 / 6)
    assert seen.chance_average_precision == pytest.approx(0.4)
    assert seen.chance_iou == pytest.approx(0.8 / 3.2)


def test_a_constant_map_scores_what_chance_does() -> None:
    seen = overlap(np.zeros(30), np.arange(30) < 6, top=0.3)
    assert seen.iou == pytest.approx(seen.chance_iou)
    assert seen.average_precision == pytest.approx(seen.chance_average_precision)
    assert seen.auc == 0.5


def test_chance_is_what_random_maps_have_on_average() -> None:
    rng = np.random.default_rng(0)
    region = np.arange(100) < 20
    seen = [overlap(rng.random(100), region, top=0.2) for _ in range(300)]
    assert np.mean([one.auc for one in seen]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([one.iou for one in seen]) == pytest.approx(seen[0].chance_iou, abs=0.02)
    assert np.mean([one.average_precision for one in seen]) == pytest.approx(0.2, abs=0.04)


def test_order_of_tiles_changes_no_overlap_ties_included() -> None:
    rng = np.random.default_rng(1)
    values, region = rng.integers(0, 5, 60).astype(np.float64), rng.random(60) < 0.3
    order = rng.permutation(60)
    one, other = overlap(values, region), overlap(values[order], region[order])
    assert asdict(other) == pytest.approx(asdict(one))


def _mean_of_first(features: np.ndarray) -> float:
    return float(features[:, 0].mean())


def test_insertion_rises_early_and_deletion_falls_early_for_a_map_that_matters() -> None:
    features = np.random.default_rng(0).normal(size=(80, 3))
    curves = deletion_curves(_mean_of_first, features, features[:, 0], rng=np.random.default_rng(0), steps=10)
    assert curves.kept.tolist() == [1, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80]
    assert (np.diff(curves.insertion) < 0).all()  # each further tile is lower
    assert (np.diff(curves.deletion) > 0).all()
    assert curves.insertion[-1] == pytest.approx(curves.deletion[-1])
    areas = curves.areas()
    assert areas["deletion"] < areas["random"] - 0.3 < areas["insertion"] - 0.6
    assert areas["insertion_p"] == areas["deletion_p"] == pytest.approx(1 / 21)


def test_a_random_map_is_within_the_random_orders() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(80, 3))
    found = [
        deletion_curves(_mean_of_first, features, rng.random(80), rng=rng, steps=5, draws=19).areas() for _ in range(20)
    ]
    assert 0.3 < np.mean([areas["insertion_p"] for areas in found]) < 0.7
    assert 0.3 < np.mean([areas["deletion_p"] for areas in found]) < 0.7


def test_no_prediction_is_made_for_an_empty_bag() -> None:
    def counted(features: np.ndarray) -> float:
        assert len(features) > 0
        return float(len(features))

    curves = deletion_curves(counted, np.ones((3, 2)), np.arange(3.0), rng=np.random.default_rng(0), steps=50)
    assert curves.kept.tolist() == curves.insertion.tolist() == [1, 2, 3]
    assert curves.areas()["insertion_p"] == 1.0


def test_stability_of_equal_reversed_and_constant_maps() -> None:
    rising = np.arange(10.0)
    assert stability([rising, np.exp(rising)]).mean == pytest.approx(1.0)
    assert stability([rising, -rising]).least == pytest.approx(-1.0)
    seen = stability([rising, rising**3, np.ones(10)])
    assert (seen.pairs, seen.constant, seen.least) == (3, 1, 0.0)
    assert seen.mean == pytest.approx(1 / 3)


def test_errors_state_the_value_and_what_is_allowed() -> None:
    region = np.arange(4) < 2
    with pytest.raises(SectionError, match="nan or infinity at 1 of 4 tiles"):
        overlap(np.array([1.0, np.nan, 0.0, 2.0]), region)
    with pytest.raises(SectionError, match="a region of 0 of 4 tiles"):
        overlap(np.arange(4.0), region & False)
    with pytest.raises(SectionError, match=r"above 0 and at most 1, got 10\.0"):
        overlap(np.arange(4.0), region, top=10.0)
    with pytest.raises(SectionError, match="a map of 3 for 4 tiles"):
        deletion_curves(_mean_of_first, np.ones((4, 2)), np.arange(3.0), rng=np.random.default_rng(0))
    with pytest.raises(SectionError, match="at least 2 maps of the same tiles, got 1 maps"):
        stability([np.arange(4.0)])
