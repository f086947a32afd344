"""An index on disk: rows, vectors and expression stay together, over any number of shards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.errors import ArtifactError, ModelError
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search import exact
from raystp.index.search.score import METRICS, Metric
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath

ROWS, JOINT, GENES = 90, 12, 5


def reference() -> ReferenceRows:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((ROWS, JOINT), dtype=np.float32) * 3
    vectors[60:70] = vectors[:10]  # the same vectors again, of another patient
    return ReferenceRows(
        vectors=vectors,
        expression=np.arange(ROWS * GENES, dtype=np.float32).reshape(ROWS, GENES),
        genes=[f"gene{number}" for number in range(GENES)],
        sections=[f"section{row // 15}" for row in range(ROWS)],
        spots=[f"spot{row}" for row in range(ROWS)],
        patients=["ABC"[row // 30] for row in range(ROWS)],
    )


def make_index(folder: Path, *, shards: int, metric: Metric = "cosine") -> ReferenceIndex:
    description = write_reference_index(StoragePath.of(folder), reference(), shards=shards, metric=metric)
    return open_reference_index(StoragePath.of(folder), json.loads(json.dumps(description)))


def changed(description: Any, **values: Any) -> Any:
    return {**description, **values}


def queries() -> Any:
    return np.random.default_rng(1).standard_normal((20, JOINT), dtype=np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_an_index_finds_what_the_exact_search_finds(tmp_path: Path, shards: int, metric: Metric) -> None:
    index = make_index(tmp_path, shards=shards, metric=metric)
    for vectors in (queries(), reference().vectors):
        found, truth = index.search(vectors, 25), exact.search(reference().vectors, vectors, 25, metric=metric)
        assert np.array_equal(found[0], truth[0])
        assert np.array_equal(found[1], truth[1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_search_and_search_exactly_agree(tmp_path: Path, shards: int, metric: Metric) -> None:
    index = make_index(tmp_path, shards=shards, metric=metric)
    for found, truth in zip(index.search(queries(), 25), index.search_exactly(queries(), 25), strict=True):
        assert np.array_equal(found, truth)


def test_the_nearest_row_to_each_row_is_itself_or_its_lower_duplicate(tmp_path: Path) -> None:
    rows = make_index(tmp_path, shards=3).search(reference().vectors, 1)[1][:, 0]
    assert rows.tolist() == [*range(60), *range(10), *range(70, 90)]


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_an_excluded_patient_never_appears(tmp_path: Path, shards: int) -> None:
    index = make_index(tmp_path, shards=shards)
    allowed = index.rows_without(["A"])
    rows = index.search(reference().vectors, 60, allowed=allowed)[1]
    assert set(rows.ravel().tolist()) == set(range(30, 90))
    assert rows[:10, 0].tolist() == list(range(60, 70))  # A's own vectors, found at another patient
    with pytest.raises(ModelError, match="k = 61 neighbours requested; the index has 60 rows"):
        index.search(queries(), 61, allowed=allowed)


def test_a_mask_of_another_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the mask of allowed rows has 89 values, the index has 90 rows"):
        make_index(tmp_path, shards=2).search(queries(), 3, allowed=np.ones(89, bool))


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_expression_and_its_sums_follow_the_rows_over_shards(tmp_path: Path, shards: int) -> None:
    index = make_index(tmp_path, shards=shards)
    random = np.random.default_rng(2)
    rows = random.integers(0, ROWS, (8, 6))
    weights = random.random((8, 6), dtype=np.float32)
    whole = reference().expression
    assert np.array_equal(index.expression(rows[0]), whole[rows[0]])
    true = np.einsum("qk,qkg->qg", weights.astype(np.float64), whole[rows])
    np.testing.assert_allclose(index.weighted_mean(weights, rows), true, rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_between_vectors_as_the_model_gave_them(tmp_path: Path, metric: Metric) -> None:
    index = make_index(tmp_path, shards=2, metric=metric)
    rows = np.random.default_rng(3).integers(0, ROWS, (20, 7))
    difference = queries()[:, None].astype(np.float64) - reference().vectors[rows]
    np.testing.assert_allclose(index.squared_distances(queries(), rows), (difference**2).sum(axis=2), rtol=1e-5)
    absolute = np.abs(difference).sum(axis=2) ** 2
    np.testing.assert_allclose(index.squared_distances(queries(), rows, distance="l1"), absolute, rtol=1e-5)


def test_an_index_records_where_each_row_came_from(tmp_path: Path) -> None:
    description = write_reference_index(StoragePath.of(tmp_path), reference(), shards=4, metric="l2")
    assert (description["patients"], len(description["sections"])) == (["A", "B", "C"], 6)
    assert [shard["rows"] for shard in description["shards"]] == [23, 23, 22, 22]
    rows = open_reference_index(StoragePath.of(tmp_path), description).rows
    assert rows.slice(31, 1).to_pylist()[0] == {
        "row": 31,
        "section": "section2",
        "spot": "spot31",
        "patient": "B",
        "length": pytest.approx(float(np.linalg.norm(reference().vectors[31].astype(np.float64)))),
    }


@pytest.mark.parametrize("name", ["shard-00001.vectors.npy", "shard-00001.expression.npy", "rows.parquet"])
@pytest.mark.parametrize("damage", ["cut short", "one bit"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    description = write_reference_index(StoragePath.of(tmp_path), reference(), shards=2, metric="cosine")
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content if damage == "one bit" else content[:-5])
    with pytest.raises(ArtifactError, match=f"{name} is not the file that the index was written with"):
        open_reference_index(StoragePath.of(tmp_path), description)


def test_a_description_that_does_not_match_its_files_is_refused(tmp_path: Path) -> None:
    description = write_reference_index(StoragePath.of(tmp_path), reference(), shards=2, metric="cosine")
    with pytest.raises(ArtifactError, match="an index of version 9; this raystp reads versions 1 to 3"):
        open_reference_index(StoragePath.of(tmp_path), changed(description, version=9))
    for wrong in (changed(description, genes=["one"]), changed(description, joint=3)):
        with pytest.raises(ArtifactError, match="was described"):
            open_reference_index(StoragePath.of(tmp_path), wrong)


def test_changes_in_memory_never_reach_the_file(tmp_path: Path) -> None:
    description = write_reference_index(StoragePath.of(tmp_path), reference(), shards=1, metric="l2")
    index = open_reference_index(StoragePath.of(tmp_path), description)
    with pytest.raises(ValueError, match="read-only"):
        index.shards[0].vectors[:] = -1
    index.expression(np.arange(ROWS))[:] = -1
    again = open_reference_index(StoragePath.of(tmp_path), description)
    assert np.array_equal(again.expression(np.arange(ROWS)), reference().expression)


def test_an_inconsistent_reference_is_refused(tmp_path: Path) -> None:
    whole = reference()
    with pytest.raises(ModelError, match=r"one row per spot in every field.*'spots': 1"):
        ReferenceRows(whole.vectors, whole.expression, whole.genes, whole.sections, ["one"], whole.patients)
    whole.expression[17, 2] = np.nan
    with pytest.raises(ModelError, match=r"not finite in 1 rows \('17'\)"):
        write_reference_index(StoragePath.of(tmp_path), whole, shards=1, metric="l2")
    with pytest.raises(ModelError, match="rows 0 to 90 requested; the index has rows 0 to 89"):
        make_index(tmp_path, shards=2).expression(np.array([0, 90]))
