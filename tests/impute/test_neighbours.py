"""Neighbours and weights give the expression of the dense prediction, in a few hundred bytes a tile."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raystp import tables
from raystp.errors import ModelError
from raystp.impute.neighbours import materialise, neighbours_table, rows_and_weights
from raystp.impute.weights import WEIGHTS
from raystp.storage import StoragePath

TILES, ROWS, GENES, K = 60, 500, 40, 50


def tiles(count: int = TILES) -> pa.Table:
    at = np.arange(count)
    boxes = [at * 224.0, at * 0.0, at * 0.0 + 224]
    return tables.of_columns([["A1"] * count, at, *boxes, [None] * count], tables.TILES)


def expression() -> Any:
    return np.random.default_rng(0).random((ROWS, GENES), dtype=np.float32) * 6


def weighted_sum(weights: Any, rows: Any, genes: Any) -> Any:
    """Stand in for an index."""
    sums = np.einsum("qk,qkg->qg", weights.astype(np.float64), expression()[rows]).astype(np.float32)
    return sums if genes is None else sums[:, genes]


def found(weights: str) -> tuple[Any, Any, Any]:
    """Return rows, weights and distances as a search gives them, with squared distances up to a thousand."""
    random = np.random.default_rng(1)
    rows = np.stack([random.permutation(ROWS)[:K] for _ in range(TILES)])
    scores = -np.sort(random.random((TILES, K), dtype=np.float32), axis=1)
    weighting = WEIGHTS[weights]
    values = scores if weighting.input == "scores" else -scores * 1e3
    return rows, weighting.compute(values), random.random(TILES, dtype=np.float32)


@pytest.mark.parametrize("weights", list(WEIGHTS))
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-6), ("float16", 1e-3)])
def test_neighbours_give_the_dense_prediction(tmp_path: Path, weights: str, precision: str, close: float) -> None:
    rows, shares, distance = found(weights)
    table = neighbours_table(tiles(), rows, distance, shares, precision=precision)
    file = StoragePath.of(tmp_path / "A1.parquet")
    file.write_table(table)
    again = file.read_table()
    tables.check(again.schema, tables.neighbours(K, weights=precision), "A1.parquet")
    dense = weighted_sum(shares, rows, None)
    np.testing.assert_allclose(materialise(again, weighted_sum), dense, atol=close, rtol=close)
    genes = np.array([7, 0, 39])
    np.testing.assert_allclose(materialise(again, weighted_sum, genes), dense[:, genes], atol=close, rtol=close)
    assert again["distance"].to_numpy().tolist() == distance.tolist()


@pytest.mark.parametrize("weights", list(WEIGHTS))
def test_weights_add_to_1_after_storage(weights: str) -> None:
    rows, shares, distance = found(weights)
    kept, stored = rows_and_weights(neighbours_table(tiles(), rows, distance, shares))
    assert np.array_equal(kept, rows)
    np.testing.assert_allclose(stored.sum(axis=1), 1, atol=1e-6)


def test_equal_weights_are_not_stored() -> None:
    rows, shares, distance = found("mean")
    table = neighbours_table(tiles(), rows, distance)
    assert "weights" not in table.column_names
    assert np.array_equal(rows_and_weights(table)[1], shares)


def test_a_tile_takes_about_300_bytes(tmp_path: Path) -> None:
    random, count = np.random.default_rng(2), 20_000
    rows = random.integers(0, 1_000_000, (count, K))
    shares, distance = random.random((count, K), dtype=np.float32), random.random(count, dtype=np.float32)
    for weights, most in ((shares, 320), (None, 220)):
        file = StoragePath.of(tmp_path / "A1.parquet")
        file.write_table(neighbours_table(tiles(count), rows, distance, weights))
        assert file.size() / count < most


def test_rows_beyond_int32_are_refused() -> None:
    rows, _, distance = found("mean")
    for row in (-1, 1 << 31):
        rows[3, 3] = row
        with pytest.raises(ModelError, match="the table stores rows 0 to 2147483647"):
            neighbours_table(tiles(), rows, distance)
