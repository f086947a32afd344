"""Approximate kinds find rows; their scores, order and number are those of the exact search."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from raystp.errors import ArtifactError, ModelError
from raystp.index import recall
from raystp.index.open import open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search import exact
from raystp.index.search.kinds import EXACT_BELOW, KINDS, IndexParams, Kind, SearchParams, choose_kind
from raystp.index.search.merge import incomplete, merge_parts, merge_top_k
from raystp.index.search.score import METRICS, Metric
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath
from tests.index.toy import JOINT, ROWS, make_index, reference, vectors

LISTED: tuple[Kind, ...] = ("ivf", "ivfsq", "ivfpq")
QUERIES = vectors(60, seed=5)


def assert_same(left: Any, right: Any) -> None:
    assert np.array_equal(left[1], right[1])
    assert np.array_equal(left[0], right[0])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_found_rows_have_their_exact_score_and_order(tmp_path: Path, kind: Kind, metric: Metric) -> None:
    index, _ = make_index(tmp_path, kind, metric=metric)
    scores, rows = index.search(QUERIES, 10)
    true_scores, true_rows = index.search_exactly(QUERIES, ROWS)
    for own, found, truth, order in zip(scores, rows, true_scores, true_rows, strict=True):
        rank = np.argsort(order)[found]  # in the exact search
        assert (np.diff(rank) > 0).all()
        assert np.array_equal(own, truth[rank])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["exact", *LISTED])
def test_any_number_of_shards_gives_the_same_results(tmp_path: Path, kind: Kind, metric: Metric) -> None:
    one, _ = make_index(tmp_path / "1", kind, shards=1, metric=metric)
    params = SearchParams(nprobe=3)
    for shards in (2, 7):
        many, _ = make_index(tmp_path / str(shards), kind, shards=shards, metric=metric)
        assert_same(many.search(QUERIES, 10, params=params), one.search(QUERIES, 10, params=params))


@pytest.mark.parametrize("kind", ["exact", *LISTED])
def test_ties_and_duplicates_do_not_depend_on_shards(tmp_path: Path, kind: Kind) -> None:
    random = np.random.default_rng(0)
    whole = random.integers(1, 4, (600, 4)).astype(np.float32)  # 81 vectors, each about 7 times
    names = [str(row) for row in range(600)]
    spots = ReferenceRows(whole, np.zeros((600, 1), np.float32), ["g"], names, names, names)
    results, complete = [], []
    for shards in (1, 2, 7):
        folder = StoragePath.of(tmp_path / str(shards))
        params = IndexParams(kind=kind, recall=1.0, k=20, lists=8)
        index = open_reference_index(
            folder, write_reference_index(folder, spots, shards=shards, metric="l2", params=params)
        )
        results.append(index.search(whole[:50], 20, params=SearchParams(nprobe=2)))
        complete.append(index.search(whole[:50], 20, params=SearchParams(nprobe=8, k_factor=30)))
    truth = exact.search(whole, whole[:50], 20, metric="l2")
    for result, full in zip(results, complete, strict=True):
        assert_same(result, results[0])
        assert_same(full, truth)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", LISTED)
def test_probing_every_list_is_the_exact_search(tmp_path: Path, kind: Kind, metric: Metric) -> None:
    index, description = make_index(tmp_path, kind, metric=metric)
    every_list = SearchParams(nprobe=description["lists"], k_factor=ROWS)
    assert_same(index.search(QUERIES, 10, params=every_list), index.search_exactly(QUERIES, 10))


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_row_to_each_row_is_itself(tmp_path: Path, kind: Kind) -> None:
    index, _ = make_index(tmp_path, kind)
    found = index.search(reference().vectors, 1)[1][:, 0]
    if kind == "hnsw":  # a graph may miss a row
        assert (found == np.arange(ROWS)).mean() > 0.99
    else:
        assert found.tolist() == list(range(ROWS))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_weights_of_all_rows_give_their_mean(tmp_path: Path, kind: Kind) -> None:
    index, _ = make_index(tmp_path, kind, shards=3)
    rows = index.search(QUERIES[:4], ROWS)[1]
    weights = np.full(rows.shape, 1 / ROWS, np.float32)
    mean = index.weighted_sum(weights, rows)
    np.testing.assert_allclose(mean, np.tile(reference().expression.mean(axis=0), (4, 1)), rtol=1e-5)
    spread = index.weighted_spread(weights, rows, mean)
    np.testing.assert_allclose(spread, np.tile(reference().expression.var(axis=0), (4, 1)), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_allowed_never_appear_and_every_query_has_k_rows(tmp_path: Path, kind: Kind) -> None:
    index, _ = make_index(tmp_path, kind, shards=3)
    without = index.rows_without(["patient-A"])
    assert without.sum() == ROWS - 500
    for allowed in (without, index.rows_where("tissue", ["skin"]), without & (np.arange(ROWS) % 50 == 7)):
        k = min(40, int(allowed.sum()))
        rows = index.search(QUERIES, k, allowed=allowed)[1]
        assert allowed[rows].all()
        assert (rows >= 0).all()
        assert all(len(set(line.tolist())) == k for line in rows)
    few = np.zeros(ROWS, bool)
    few[[3, 700, 1400]] = True
    assert_same(index.search(QUERIES, 3, allowed=few), index.search_exactly(QUERIES, 3, allowed=few))


def test_rows_are_selected_by_any_text_column(tmp_path: Path) -> None:
    index, _ = make_index(tmp_path, "exact")
    assert np.array_equal(index.rows_where("tissue", ["skin"]), np.arange(ROWS) % 3 == 0)
    assert np.array_equal(index.rows_where("tissue", ["skin"], drop=True), np.arange(ROWS) % 3 > 0)
    with pytest.raises(ModelError, match="no text column 'length' to select rows by; it has section, spot, patient"):
        index.rows_where("length", ["1"])


@pytest.mark.parametrize("kind", ["ivf", "ivfpq", "hnsw"])
def test_the_recorded_recall_is_the_recall_of_the_search(tmp_path: Path, kind: Kind) -> None:
    index, description = make_index(tmp_path, kind)
    queries = recall.sample_vectors(index, description["recall"]["seed"])
    k = description["recall"]["k"]
    assert (len(queries), k) == (description["recall"]["queries"], 10)
    found = recall.recall(index.search(queries, k), index.search_exactly(queries, k))
    assert found == description["recall"]["measured"]
    assert description["below_target"] is (found < 0.9)
    assert f"recall at 10 is {found:.4f} on 256 queries; the target is 0.9" in description["sentence"]


def test_a_missed_target_is_recorded(tmp_path: Path) -> None:
    spots, folder = reference(), StoragePath.of(tmp_path)
    noise = np.random.default_rng(3).standard_normal((ROWS, JOINT), dtype=np.float32)
    spots = ReferenceRows(noise, spots.expression, spots.genes, spots.sections, spots.spots, spots.patients)
    params = IndexParams(kind="ivfpq", recall=1.0, k=60)
    description: Any = write_reference_index(folder, spots, shards=1, metric="l2", params=params)
    if description["recall"]["measured"] < 1:
        assert description["below_target"]
        assert description["sentence"].endswith("not reached with the largest search parameters")
    assert description["effort"]["k_factor"] == 32 or not description["below_target"]


@pytest.mark.parametrize("kind", [*LISTED, "exact"])
def test_shards_divided_among_processes_find_what_one_shard_finds(tmp_path: Path, kind: Kind) -> None:
    one, _ = make_index(tmp_path / "1", kind, shards=1)
    many, description = make_index(tmp_path / "5", kind, shards=5)
    params = SearchParams(nprobe=3)
    for allowed in (None, one.rows_without(["patient-B"])):
        parts = [
            open_reference_index(StoragePath.of(tmp_path / "5"), description, only=only).search_part(
                QUERIES, 10, allowed=allowed, params=params
            )
            for only in ([0, 2], [1, 4], [3])
        ]
        merged = merge_parts(parts, many.candidates_wanted(10, params), 10)
        assert_same(merged, one.search(QUERIES, 10, allowed=allowed, params=params))
        assert_same(merged, many.search(QUERIES, 10, allowed=allowed, params=params))


def test_equal_rows_at_the_end_of_the_candidates_are_chosen_by_number(tmp_path: Path) -> None:
    # 40 candidates are wanted of 300 rows with one and the same code: FAISS keeps any of them, in any order.
    equal = np.repeat(vectors(1, seed=8), 300, axis=0)
    names = [str(row) for row in range(300)]
    spots = ReferenceRows(equal, np.zeros((300, 1), np.float32), ["g"], names, names, names)
    for shards in (1, 4):
        folder = StoragePath.of(tmp_path / str(shards))
        params = IndexParams(kind="ivfsq", k=20, lists=4)
        index = open_reference_index(
            folder, write_reference_index(folder, spots, shards=shards, metric="l2", params=params)
        )
        rows = index.search(equal[:3], 40, params=SearchParams(nprobe=4))[1]
        assert rows.tolist() == [list(range(40))] * 3


def test_the_parts_of_an_index_give_the_results_of_the_whole(tmp_path: Path) -> None:
    whole, description = make_index(tmp_path, "ivf", shards=4)
    parts = [open_reference_index(StoragePath.of(tmp_path), description, only=only) for only in ([0, 2], [1], [3])]
    assert not any(part.is_whole for part in parts)
    params = SearchParams(nprobe=3)
    results = [part.search(QUERIES, 10, params=params) for part in parts]
    assert_same(merge_top_k(results, 10), whole.search(QUERIES, 10, params=params))
    rows = whole.search(QUERIES, 10)[1]
    weights = np.random.default_rng(1).random(rows.shape, dtype=np.float32)
    shares = [part.weighted_sum(weights, rows) for part in parts]
    np.testing.assert_allclose(sum(shares), whole.weighted_sum(weights, rows), rtol=1e-5)
    distances = [part.squared_distances(QUERIES, rows) for part in parts]
    assert np.array_equal(sum(distances), whole.squared_distances(QUERIES, rows))
    with pytest.raises(ModelError, match="in shards that are not open here"):
        parts[1].expression(np.array([0]))
    with pytest.raises(ModelError, match=r"shards \[4\] requested; the index has shards 0 to 3"):
        open_reference_index(StoragePath.of(tmp_path), description, only=[4])


def test_a_part_that_finds_fewer_than_k_has_missing_neighbours(tmp_path: Path) -> None:
    _, description = make_index(tmp_path, "ivf", shards=2)
    part = open_reference_index(StoragePath.of(tmp_path), description, only=[0])
    scores, rows = part.search(QUERIES, 700, params=SearchParams(nprobe=1))
    assert incomplete(rows).all()
    assert np.isneginf(scores[rows < 0]).all()


@pytest.mark.parametrize("name", ["quantizer.faiss", "shard-00001.faiss", "shard-00000.vectors.npy"])
@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_an_altered_file_is_refused_before_faiss_reads_it(
    tmp_path: Path, kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, description = make_index(tmp_path, kind)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    seen: list[str] = []
    read = faiss.read_index

    def watched(path: str, flags: int = 0) -> Any:
        seen.append(path)
        return read(path, flags)

    monkeypatch.setattr(faiss, "read_index", watched)
    with pytest.raises(ArtifactError, match=f"{name} is not the file that the index was written with"):
        open_reference_index(StoragePath.of(tmp_path), description)
    assert not any(path.endswith(name) for path in seen)


def test_auto_records_its_reason(tmp_path: Path) -> None:
    assert choose_kind(EXACT_BELOW - 1, IndexParams(kind="auto"))[0] == "exact"
    assert choose_kind(10**6, IndexParams(kind="auto", recall=1.0))[0] == "exact"
    kind, why = choose_kind(10**6, IndexParams(kind="auto"))
    assert kind == "ivfsq"
    assert why.startswith("auto: 1,000,000 rows are 100,000 or more")
    _, description = make_index(tmp_path, "exact", recall=0.99)
    assert (description["kind"], description["why"]) == ("exact", "exact: as configured")
    with pytest.raises(ModelError, match=r"with recall 2.0 at k = 50 requested; kinds are auto, exact, ivf"):
        choose_kind(10, IndexParams(kind="auto", recall=2.0))


def test_auto_follows_what_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {
        (prefer, rows): choose_kind(rows, IndexParams(kind="auto", prefer=prefer))[0]
        for prefer in ("build", "speed", "bytes")
        for rows in (1000, 100_000, 10**6)
    }
    assert [chosen["build", rows] for rows in (1000, 100_000, 10**6)] == ["exact", "ivfsq", "ivfsq"]
    assert [chosen["speed", rows] for rows in (1000, 100_000, 10**6)] == ["exact", "hnsw", "ivfsq"]
    assert [chosen["bytes", rows] for rows in (1000, 100_000, 10**6)] == ["exact", "ivfpq", "ivfpq"]
    monkeypatch.setattr("raystp.index.search.kinds.EXACT_BELOW", 100)
    _, description = make_index(tmp_path, "auto", prefer="speed")  # type: ignore[arg-type]  # chosen by the index
    assert description["kind"] == "hnsw"
    assert description["want"]["prefer"] == "speed"
    assert "prefer" not in make_index(tmp_path / "exact", "exact")[1]["want"]


def test_auto_stays_exact_where_lists_save_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystp.index.search.kinds.EXACT_BELOW", 100)
    noise = np.random.default_rng(3).standard_normal((ROWS, JOINT), dtype=np.float32)
    names = [str(row) for row in range(ROWS)]
    spots = ReferenceRows(noise, np.zeros((ROWS, 1), np.float32), ["g"], names, names, names)
    folder = StoragePath.of(tmp_path)
    description = write_reference_index(folder, spots, shards=2, metric="cosine", params=IndexParams(kind="auto", k=50))
    assert description["kind"] == "exact"
    assert description["why"].startswith("auto: exact, because ivfsq needs ")
    assert not [name for name in folder.names() if name.endswith(".faiss")]
    assert_same(
        open_reference_index(folder, description).search(QUERIES, 50), exact.search(noise, QUERIES, 50, metric="cosine")
    )
