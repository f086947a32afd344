"""A query is far from an index where its nearest row is farther than those of nearly all calibration queries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.errors import ModelError
from raystp.index.open import ReferenceIndex
from raystp.index.queries import calibrate, is_far, limit_per_section, queries_per_section, queries_table
from tests.index.toy import make_index


@pytest.fixture
def of_metric(tmp_path: Path) -> Any:
    def make(metric: Any) -> ReferenceIndex:
        return make_index(tmp_path / metric, "exact", metric=metric)[0]

    return make


def test_the_nearest_row_itself_is_at_distance_0_in_either_metric(of_metric: Any) -> None:
    cosine, l2 = of_metric("cosine"), of_metric("l2")
    assert cosine.nearest_distance(np.array([1, 0.75, 1.0000001], np.float32)).tolist() == [0, 0.25, 0]
    assert l2.nearest_distance(np.array([-0.0, -4, -9], np.float32)).tolist() == [0, 2, 3]


def test_one_calibration_query_in_a_hundred_is_far() -> None:
    distances = np.random.default_rng(0).permutation(10_000).astype(np.float32)
    quantiles = calibrate(distances)
    assert list(quantiles) == ["q50", "q95", "q99"]
    assert is_far(distances, quantiles).sum() == 100
    assert is_far(distances, quantiles, "q50").mean() == 0.5
    assert is_far(np.array([1e9, 0, quantiles["q99"]], np.float32), quantiles).tolist() == [True, False, False]


def test_without_distances_there_is_no_calibration() -> None:
    with pytest.raises(ModelError, match="no distances to calibrate on"):
        calibrate(np.zeros(0, np.float32))


def test_many_sections_store_few_queries_each() -> None:
    assert [queries_per_section(sections) for sections in (1, 16, 64, 100_000)] == [512, 512, 128, 8]
    table = queries_table(np.zeros((600, 4), np.float32), "S1", "P1")
    assert limit_per_section(table).num_rows == 512
