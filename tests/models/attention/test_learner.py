"""Bags from measured sections: as many parts as are asked for, and two kinds of labels."""

import numpy as np
import pytest
import torch

from raystp.expression.training_set import SpotTable
from raystp.models.attention.learner import compact_parts, mean_expression, pooled_expression, setup
from raystp.models.attention.options import AttentionOptions
from raystp.models.training.setup import SpotInputs


def _table(spots: int = 60, *, seed: int = 0) -> SpotTable:
    rng = np.random.default_rng(seed)
    return SpotTable(
        sections=("one",),
        slides=("one",),
        group=np.zeros(spots, np.int64),
        spots=tuple(str(number) for number in range(spots)),
        boxes=np.column_stack([rng.random((spots, 2)) * 1000, np.full(spots, 10.0)]),
        features=rng.normal(size=(spots, 5)).astype(np.float32),
        expression=rng.gamma(1.0, size=(spots, 4)).astype(np.float32),
        totals=rng.uniform(50, 500, spots),
    )


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7, 8, 13, 16, 59, 60])
def test_a_section_has_as_many_parts_as_are_asked_for_and_each_spot_is_in_one(parts: int) -> None:
    found = compact_parts(_table(), np.arange(60), parts)
    assert len(found) == parts
    assert sorted(np.concatenate(found).tolist()) == list(range(60))
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= 2


def test_a_section_of_fewer_spots_has_one_part_per_spot() -> None:
    assert [len(part) for part in compact_parts(_table(5), np.arange(5), 8)] == [1] * 5
    assert compact_parts(_table(5), np.arange(0), 8) == []


def test_labels_are_the_log_of_pooled_counts_or_the_mean_of_logs_which_is_lower() -> None:
    table, rows = _table(), np.arange(10, 30)
    shares = np.expm1(table.expression[rows].astype(np.float64))
    counts = shares * table.totals[rows, None] / 1e4
    pooled = np.log1p(1e4 * counts.sum(axis=0) / table.totals[rows].sum())
    np.testing.assert_allclose(pooled_expression(table, rows), pooled, rtol=1e-5)
    mean = mean_expression(table, rows)
    np.testing.assert_allclose(mean, table.expression[rows].mean(axis=0), rtol=1e-5)
    equal = SpotTable(**{**vars(table), "totals": np.full(60, 100.0)})
    assert (mean < pooled_expression(equal, rows)).all()


def test_setup_takes_the_labels_that_the_bags_name_and_records_their_mean() -> None:
    table = _table()
    for name, label in (("log_of_pooled", pooled_expression), ("mean_of_logs", mean_expression)):
        bags = {"parts": 4, "labels": name}
        inputs = SpotInputs(table, table, 5, {}, 0, torch.device("cpu"), bags=bags)
        made = setup(AttentionOptions(embedding=4, hidden=2), inputs)
        expected = np.stack([label(table, part) for part in compact_parts(table, np.arange(60), 4)])
        labels = made.train.at(np.arange(4))[2].numpy()
        np.testing.assert_allclose(labels, expected)
        assert made.bag_mean is not None
        np.testing.assert_allclose(made.bag_mean, expected.mean(axis=0), rtol=1e-6)
