"""Paired differences over the sections and patients of all folds, against values counted by hand."""

from itertools import product

import numpy as np
import pytest

from raystp.evaluate.comparison.differences import PairedDifference, primary
from raystp.evaluate.comparison.fold_differences import FoldParts, fold_differences

WHERE = ("patient", "toy", "mean")
PCC, MSE = ("PCC", "all"), ("MSE", "all")
PARTS = {f"fold {patient}, S{number}": f"P{patient}" for patient, number in product(range(5), range(2))}
"""Five patients, two sections each."""

Scores = dict[str, dict[tuple[str, str], float]]


def scores(offset: float) -> Scores:
    values = np.random.default_rng(0).normal(0.3, 0.1, len(PARTS))
    return {part: {PCC: value + offset, MSE: 1 - value} for part, value in zip(PARTS, values.tolist(), strict=True)}


def compare(ours: Scores, theirs: Scores, parts: FoldParts | None = None) -> list[PairedDifference]:
    found = {"a": ours, "b": theirs}
    return fold_differences(found, {("a", "b"): False}, FoldParts(PARTS) if parts is None else parts, where=WHERE)


def test_a_difference_is_over_parts_and_its_p_over_patients() -> None:
    row = primary(compare(scores(0.02), scores(0.0)), "a", "b")
    assert row is not None
    assert (row.test, row.units) == ("sign flips of patients", 5)
    assert row.difference == pytest.approx(0.02)
    assert (row.low, row.high) == pytest.approx((0.02, 0.02))  # the same in each patient, however much these differ
    assert row.p == 2 / 32


def test_a_patient_counts_by_the_sum_of_its_sections() -> None:
    differences = dict(zip(PARTS, [0.1, 0.3, -0.1, 0.1, 0.2, 0.2, 0.1, 0.0, -0.05, -0.05], strict=True))
    ours = {part: {PCC: one[PCC] + differences[part]} for part, one in scores(0.0).items()}
    row = primary(compare(ours, scores(0.0)), "a", "b")
    assert row is not None
    by_patient = [0.4, 0.0, 0.4, 0.1, -0.1]
    sums = [
        sum(sign * one for sign, one in zip(signs, by_patient, strict=True)) for signs in product((1, -1), repeat=5)
    ]
    assert row.p == sum(abs(one) >= sum(by_patient) - 1e-9 for one in sums) / 32
    assert row.difference == pytest.approx(sum(by_patient) / 10)


def test_equal_models_differ_by_0_with_p_1() -> None:
    rows = compare(scores(0.0), scores(0.0))
    assert [(row.metric, row.difference, row.low, row.high, row.p) for row in rows] == [
        ("PCC", 0, 0, 0, 1),
        ("MSE", 0, 0, 0, 1),
    ]


def test_a_part_that_one_model_lacks_is_left_out_for_both() -> None:
    ours = scores(0.02)
    first, second = list(ours)[:2]
    del ours[first]
    ours[second] = {MSE: 0.1}
    row = primary(compare(ours, scores(0.0)), "a", "b")
    assert row is not None
    assert row.units == 4
    assert row.difference == pytest.approx(0.02)
    assert compare({}, scores(0.0)) == []


def test_cases_have_a_part_and_a_unit_for_each_fold() -> None:
    parts = {f"fold {number}, cases": f"fold {number}" for number in range(4)}
    values = {name: {part: {PCC: value} for part in parts} for name, value in (("a", 0.4), ("b", 0.1))}
    row = primary(compare(values["a"], values["b"], FoldParts(parts, "folds")), "a", "b")
    assert row is not None
    assert (row.test, row.units, row.p) == ("sign flips of folds", 4, 2 / 16)


def test_two_sections_have_a_difference_without_p() -> None:
    few = dict(list(PARTS.items())[:2])
    ours, theirs = ({part: one[part] for part in few} for one in (scores(0.02), scores(0.0)))
    row = primary(compare(ours, theirs, FoldParts(few)), "a", "b")
    assert row is not None
    assert row.difference == pytest.approx(0.02)
    assert (row.low, row.high, row.p, row.p_holm) == (None, None, None, None)
    assert (row.test, row.units) == ("sections", 2)
