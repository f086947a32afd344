"""Approximate kinds find rows; what they found is scored, ordered and counted as the exact search would."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from raystp.errors import ArtifactError, ModelError
from raystp.index import recall
from raystp.index.opened import open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search import exact
from raystp.index.search.kinds import EXACT_BELOW, KINDS, IndexParams, Kind, SearchParams, choose
from raystp.index.search.merge import merge_top_k, short_of
from raystp.index.search.score import METRICS, Metric
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath
from tests.index.toy import JOINT, ROWS, bank_of, reference, vectors

LISTED: tuple[Kind, ...] = ("ivf", "ivfsq", "ivfpq")
QUERIES = vectors(60, seed=5)


def assert_same(left: Any, right: Any) -> None:
    assert np.array_equal(left[1], right[1])
    assert np.array_equal(left[0], right[0])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_has_its_own_score_and_order(tmp_path: Path, kind: Kind, metric: Metric) -> None:
    bank, _ = bank_of(tmp_path, kind, metric=metric)
    scores, rows = bank.search(QUERIES, 10)
    true_scores, true_rows = bank.search_exactly(QUERIES, ROWS)
    for own, found, everyone, order in zip(scores, rows, true_scores, true_rows, strict=True):
        place = np.argsort(order)[found]  # where the exact search has it
        assert (np.diff(place) > 0).all()
        assert np.array_equal(own, everyone[place])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_shards_share_lists_so_any_cut_gives_the_same_answers(tmp_path: Path, kind: Kind, metric: Metric) -> None:
    one, _ = bank_of(tmp_path / "1", kind, shards=1, metric=metric)
    effort = SearchParams(nprobe=3)
    for shards in (2, 7):
        many, _ = bank_of(tmp_path / str(shards), kind, shards=shards, metric=metric)
        assert_same(many.search(QUERIES, 10, effort=effort), one.search(QUERIES, 10, effort=effort))


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_ties_and_doubles_are_cut_alike(tmp_path: Path, kind: Kind) -> None:
    random = np.random.default_rng(0)
    whole = random.integers(1, 4, (600, 4)).astype(np.float32)  # 81 vectors, each about 7 times
    names = [str(row) for row in range(600)]
    spots = ReferenceRows(whole, np.zeros((600, 1), np.float32), ["g"], names, names, names)
    answers, complete = [], []
    for shards in (1, 2, 7):
        place = StoragePath.of(tmp_path / str(shards))
        want = IndexParams(kind=kind, recall=1.0, k=20, lists=8)
        bank = open_reference_index(place, write_reference_index(place, spots, shards=shards, metric="l2", want=want))
        answers.append(bank.search(whole[:50], 20, effort=SearchParams(nprobe=2)))
        complete.append(bank.search(whole[:50], 20, effort=SearchParams(nprobe=8)))
    truth = exact.search(whole, whole[:50], 20, metric="l2")
    for one, all_of_it in zip(answers, complete, strict=True):
        assert_same(one, answers[0])
        assert_same(all_of_it, truth)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", LISTED)
def test_a_look_into_every_list_is_the_exact_search(tmp_path: Path, kind: Kind, metric: Metric) -> None:
    bank, described = bank_of(tmp_path, kind, metric=metric)
    all_of_it = SearchParams(nprobe=described["lists"], k_factor=ROWS)
    assert_same(bank.search(QUERIES, 10, effort=all_of_it), bank.search_exactly(QUERIES, 10))


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_row_to_each_row_is_itself(tmp_path: Path, kind: Kind) -> None:
    bank, _ = bank_of(tmp_path, kind)
    found = bank.search(reference().vectors, 1)[1][:, 0]
    if kind == "hnsw":  # a graph may miss a row
        assert (found == np.arange(ROWS)).mean() > 0.99
    else:
        assert found.tolist() == list(range(ROWS))


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_all_rows_is_the_mean_of_the_bank(tmp_path: Path, kind: Kind) -> None:
    bank, _ = bank_of(tmp_path, kind, shards=3)
    rows = bank.search(QUERIES[:4], ROWS)[1]
    weights = np.full(rows.shape, 1 / ROWS, np.float32)
    mean = bank.weighted_sum(weights, rows)
    np.testing.assert_allclose(mean, np.tile(reference().expression.mean(axis=0), (4, 1)), rtol=1e-5)
    spread = bank.weighted_spread(weights, rows, mean)
    np.testing.assert_allclose(spread, np.tile(reference().expression.var(axis=0), (4, 1)), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_allowed_never_appear_and_nobody_is_short(tmp_path: Path, kind: Kind) -> None:
    bank, _ = bank_of(tmp_path, kind, shards=3)
    without = bank.rows_without(["patient-A"])
    assert without.sum() == ROWS - 500
    for allowed in (without, bank.rows_where("tissue", ["skin"]), without & (np.arange(ROWS) % 50 == 7)):
        k = min(40, int(allowed.sum()))
        rows = bank.search(QUERIES, k, allowed=allowed)[1]
        assert allowed[rows].all()
        assert (rows >= 0).all()
        assert all(len(set(line.tolist())) == k for line in rows)
    few = np.zeros(ROWS, bool)
    few[[3, 700, 1400]] = True
    assert_same(bank.search(QUERIES, 3, allowed=few), bank.search_exactly(QUERIES, 3, allowed=few))


def test_rows_are_chosen_by_any_column_of_text(tmp_path: Path) -> None:
    bank, _ = bank_of(tmp_path, "exact")
    assert np.array_equal(bank.rows_where("tissue", ["skin"]), np.arange(ROWS) % 3 == 0)
    assert np.array_equal(bank.rows_where("tissue", ["skin"], drop=True), np.arange(ROWS) % 3 > 0)
    with pytest.raises(ModelError, match="cannot be chosen by 'length': this bank's rows have section, spot, patient"):
        bank.rows_where("length", ["1"])


@pytest.mark.parametrize("kind", ["ivf", "ivfpq", "hnsw"])
def test_recall_that_is_told_is_the_recall_that_is_there(tmp_path: Path, kind: Kind) -> None:
    bank, described = bank_of(tmp_path, kind)
    asked = recall.sample(bank, described["recall"]["seed"])
    k = described["recall"]["k"]
    assert (len(asked), k) == (described["recall"]["queries"], 10)
    found = recall.recall(bank.search(asked, k), bank.search_exactly(asked, k))
    assert found == described["recall"]["measured"]
    assert described["below_target"] is (found < 0.9)
    assert f"recall at 10 is {found:.4f} on 256 queries, 0.9 was asked" in described["sentence"]


def test_a_target_that_is_missed_is_told(tmp_path: Path) -> None:
    spots, place = reference(), StoragePath.of(tmp_path)
    noise = np.random.default_rng(3).standard_normal((ROWS, JOINT), dtype=np.float32)
    spots = ReferenceRows(noise, spots.expression, spots.genes, spots.sections, spots.spots, spots.patients)
    want = IndexParams(kind="ivfpq", recall=1.0, k=60)
    described = write_reference_index(place, spots, shards=1, metric="l2", want=want)
    if described["recall"]["measured"] < 1:
        assert described["below_target"]
        assert described["sentence"].endswith("below the target at the greatest effort")
    assert described["effort"]["k_factor"] == 32 or not described["below_target"]


def test_parts_of_a_bank_answer_as_the_whole(tmp_path: Path) -> None:
    whole, described = bank_of(tmp_path, "ivf", shards=4)
    parts = [open_reference_index(StoragePath.of(tmp_path), described, only=only) for only in ([0, 2], [1], [3])]
    assert not any(part.is_whole for part in parts)
    effort = SearchParams(nprobe=3)
    asked = [part.search(QUERIES, 10, effort=effort) for part in parts]
    assert_same(merge_top_k(asked, 10), whole.search(QUERIES, 10, effort=effort))
    rows = whole.search(QUERIES, 10)[1]
    weights = np.random.default_rng(1).random(rows.shape, dtype=np.float32)
    shares = [part.weighted_sum(weights, rows) for part in parts]
    np.testing.assert_allclose(sum(shares), whole.weighted_sum(weights, rows), rtol=1e-5)
    apart = [part.squared_distances(QUERIES, rows) for part in parts]
    assert np.array_equal(sum(apart), whole.squared_distances(QUERIES, rows))
    with pytest.raises(ModelError, match="in shards that are not held here"):
        parts[1].expression(np.array([0]))
    with pytest.raises(ModelError, match=r"shards \[4\] were asked of a bank whose shards are 0 to 3"):
        open_reference_index(StoragePath.of(tmp_path), described, only=[4])


def test_a_part_that_finds_too_few_says_so(tmp_path: Path) -> None:
    _, described = bank_of(tmp_path, "ivf", shards=2)
    part = open_reference_index(StoragePath.of(tmp_path), described, only=[0])
    scores, rows = part.search(QUERIES, 700, effort=SearchParams(nprobe=1))
    assert short_of(rows).all()
    assert np.isneginf(scores[rows < 0]).all()


@pytest.mark.parametrize("name", ["quantizer.faiss", "shard-00001.faiss", "shard-00000.vectors.npy"])
@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_a_file_that_was_altered_is_refused_before_faiss_sees_it(
    tmp_path: Path, kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, described = bank_of(tmp_path, kind)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    seen: list[str] = []
    read = faiss.read_index

    def watched(path: str, flags: int = 0) -> Any:
        seen.append(path)
        return read(path, flags)

    monkeypatch.setattr(faiss, "read_index", watched)
    with pytest.raises(ArtifactError, match=f"{name} is not the file that its index was written with"):
        open_reference_index(StoragePath.of(tmp_path), described)
    assert not any(path.endswith(name) for path in seen)


def test_auto_writes_down_why(tmp_path: Path) -> None:
    assert choose(EXACT_BELOW - 1, IndexParams(kind="auto"))[0] == "exact"
    assert choose(10**6, IndexParams(kind="auto", recall=1.0))[0] == "exact"
    kind, why = choose(10**6, IndexParams(kind="auto"))
    assert kind == "ivfsq"
    assert why.startswith("auto: 1,000,000 rows are 100,000 or more")
    _, described = bank_of(tmp_path, "exact", recall=0.99)
    assert (described["kind"], described["why"]) == ("exact", "exact was asked for")
    with pytest.raises(ModelError, match=r"with recall 2.0 at k = 50 was asked for: kinds are auto, exact, ivf"):
        choose(10, IndexParams(kind="auto", recall=2.0))


def test_auto_stays_exact_where_lists_do_not_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystp.index.search.kinds.EXACT_BELOW", 100)
    noise = np.random.default_rng(3).standard_normal((ROWS, JOINT), dtype=np.float32)
    names = [str(row) for row in range(ROWS)]
    spots = ReferenceRows(noise, np.zeros((ROWS, 1), np.float32), ["g"], names, names, names)
    place = StoragePath.of(tmp_path)
    described = write_reference_index(place, spots, shards=2, metric="cosine", want=IndexParams(kind="auto", k=50))
    assert described["kind"] == "exact"
    assert described["why"].startswith("auto: exact, for ivfsq did not pay: looking into")
    assert not [name for name in place.names() if name.endswith(".faiss")]
    assert_same(
        open_reference_index(place, described).search(QUERIES, 50), exact.search(noise, QUERIES, 50, metric="cosine")
    )
