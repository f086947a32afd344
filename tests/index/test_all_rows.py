"""With every row voting, blocks, shards and processes answer as one; temperatures join the mean and the nearest row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.impute.weights import WEIGHTS, RowWeights
from raystp.index import all_rows
from raystp.index.expression.forms import Form
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.remote import RemoteIndex, ShardGroup
from raystp.storage import StoragePath
from tests.index.test_unmeasured import QUERIES, ROWS, by_hand, opened, with_missing, written
from tests.index.toy import make_index, reference


def weighting(name: str, temperature: float | None = None, *, squares: bool = True) -> RowWeights:
    return RowWeights(WEIGHTS[name], temperature, squares)


def every_row(index: ReferenceIndex, name: str, temperature: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows, best first, and their weights, as an ordinary search gives them."""
    scores, rows = index.search_exactly(QUERIES, index.rows.num_rows)
    one = WEIGHTS[name]
    values = scores if one.input == "scores" else index.squared_distances(QUERIES, rows)
    return rows, one.compute(values, temperature)


@pytest.mark.parametrize("name", ["mean", "softmax", "weighted_average", "inverse_square"])
@pytest.mark.parametrize("stored", [(1, "float32"), (3, "csr"), (3, "float16")], ids=str)
def test_all_rows_give_what_a_search_for_all_of_them_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stored: tuple[int, Form]
) -> None:
    shards, form = stored
    monkeypatch.setattr(all_rows, "_ROWS", 37)
    monkeypatch.setattr(all_rows, "_QUERIES", 7)
    rows, true = with_missing(reference(ROWS))
    index = opened(tmp_path, rows, shards=shards, form=form)
    mean, variance = by_hand(true, *every_row(index, name))
    tolerance = 2e-3 if form == "float16" else 2e-5
    for genes in (None, np.array([2, 0])):
        found = index.mean_of_all_rows(QUERIES, weighting(name), genes=genes)
        np.testing.assert_allclose(found[0], mean if genes is None else mean[:, genes], atol=tolerance)
        assert found[1] is not None
        np.testing.assert_allclose(found[1], variance if genes is None else variance[:, genes], atol=tolerance)


def test_equal_weights_of_all_rows_give_each_genes_mean_where_it_is_measured(tmp_path: Path) -> None:
    rows, true = with_missing(reference(ROWS))
    mean, variance = opened(tmp_path, rows).mean_of_all_rows(QUERIES, weighting("mean", squares=False))
    np.testing.assert_allclose(mean, np.tile(np.nanmean(true, axis=0), (len(QUERIES), 1)), rtol=1e-5)
    assert variance is None


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_temperature_joins_the_nearest_row_and_the_mean_of_all(tmp_path: Path, metric: Any) -> None:
    index, _ = make_index(tmp_path, "exact", metric=metric)
    nearest = index.expression(index.search(QUERIES, 1)[1][:, 0])
    cold, _ = index.mean_of_all_rows(QUERIES, weighting("softmax", 1e-6))
    np.testing.assert_allclose(cold, nearest, atol=1e-4)
    hot, _ = index.mean_of_all_rows(QUERIES, weighting("softmax", 1e9))
    whole = index.expression(np.arange(index.rows.num_rows)).mean(axis=0)
    np.testing.assert_allclose(hot, np.tile(whole, (len(QUERIES), 1)), rtol=1e-5)


def test_rows_that_are_not_allowed_have_no_vote(tmp_path: Path) -> None:
    rows, true = with_missing(reference(ROWS))
    index = opened(tmp_path, rows, shards=3)
    only_b = index.rows_where("section", ["section-of-B"])
    mean, _ = index.mean_of_all_rows(QUERIES, weighting("mean"), allowed=only_b)
    assert np.isnan(mean[:, [0, 2]]).all()  # genes that B has not measured
    np.testing.assert_allclose(mean[:, 1], true[only_b, 1].mean(), rtol=1e-5)


def test_equal_rows_have_no_variance(tmp_path: Path) -> None:
    index, _ = make_index(tmp_path, "exact")
    for shard in index.shards:
        shard.expression.values[:] = 5.3  # type: ignore[attr-defined]
    _, variance = index.mean_of_all_rows(QUERIES, weighting("softmax"))
    assert variance is not None
    assert float(variance.max()) == 0


def test_processes_with_some_shards_answer_as_one(tmp_path: Path) -> None:
    rows, _ = with_missing(reference(ROWS))
    description, folder = written(tmp_path, rows, shards=3), StoragePath.of(tmp_path)

    class Caller:
        groups = tuple(ShardGroup(open_reference_index(folder, description, only=own)) for own in ([0, 2], [1]))

        def call(self, method: str, *arguments: object) -> list[Any]:
            return [getattr(group, method)(*arguments) for group in self.groups]

        def close(self) -> None: ...

    remote = RemoteIndex(open_reference_index(folder, description, only=()), Caller())
    whole = open_reference_index(folder, description)
    for name in ("softmax", "weighted_average"):
        one, other = (index.mean_of_all_rows(QUERIES, weighting(name)) for index in (whole, remote))
        for found, expected in zip(other, one, strict=True):
            assert found is not None
            assert expected is not None
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_gene_that_only_rows_of_negligible_weight_measured_has_no_prediction(tmp_path: Path) -> None:
    rows, true = with_missing(reference(ROWS))
    index = opened(tmp_path, rows, shards=3)
    nearest = true[index.search(QUERIES, 1)[1][:, 0]]
    cold, _ = index.mean_of_all_rows(QUERIES, weighting("softmax", 1e-7))
    sure = np.isnan(nearest) | (np.abs(cold - nearest) < 1e-4)  # another row is as near as the first for a few
    assert sure.mean() > 0.9
    assert np.isnan(cold[np.isnan(nearest)]).mean() > 0.9
