"""Banks that change: what was added is as if it had been there, what was removed is in no file."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from raystp.errors import ArtifactError, ModelError
from raystp.index.change import extend, remove
from raystp.index.opened import ReferenceIndex, open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import KINDS, IndexParams, Kind
from raystp.index.search.score import METRICS, Metric, prepare
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath
from tests.index.toy import ROWS, bank_of, reference, vectors

QUERIES = vectors(30, seed=5)
MORE = reference(400, seed=50, patients="DE")


def joined(one: ReferenceRows, two: ReferenceRows, kept: Any = None) -> ReferenceRows:
    whole = np.arange(len(one.spots) + len(two.spots)) if kept is None else kept

    def texts(a: list[str], b: list[str]) -> list[str]:
        return [[*a, *b][row] for row in whole.tolist()]

    return ReferenceRows(
        vectors=np.concatenate([one.vectors, two.vectors])[whole],
        expression=np.concatenate([one.expression, two.expression])[whole],
        genes=one.genes,
        sections=texts(one.sections, two.sections),
        spots=texts(one.spots, two.spots),
        patients=texts(one.patients, two.patients),
        more={"tissue": texts(one.more["tissue"], two.more["tissue"])},
    )


def opened(place: StoragePath, described: Any) -> ReferenceIndex:
    return open_reference_index(place, json.loads(json.dumps(described)))


def assert_same_bank(left: ReferenceIndex, right: ReferenceIndex) -> None:
    for found, truth in zip(left.search(QUERIES, 25), right.search(QUERIES, 25), strict=True):
        assert np.array_equal(found, truth)
    everyone = np.arange(right.rows.num_rows)
    assert left.rows.equals(right.rows)
    assert np.array_equal(left.expression(everyone), right.expression(everyone))
    assert np.array_equal(left.squared_distances(QUERIES, left.search(QUERIES, 5)[1]).shape, (30, 5))


@pytest.mark.parametrize("metric", METRICS)
def test_an_extended_bank_is_the_bank_built_from_all(tmp_path: Path, metric: Metric) -> None:
    _, old = bank_of(tmp_path / "old", "exact", metric=metric)
    place = StoragePath.of(tmp_path / "new")
    new = extend(StoragePath.of(tmp_path / "old"), old, MORE, place, shards=2)
    whole = StoragePath.of(tmp_path / "whole")
    built = write_reference_index(whole, joined(reference(), MORE), shards=3, metric=metric)
    assert_same_bank(opened(place, new), opened(whole, built))
    assert new["patients"] == built["patients"]
    assert [one["change"] for one in new["lineage"]] == ["built", "extended"]
    assert (new["lineage"][1]["rows"], len(new["shards"])) == (400, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_extended_bank_finds_the_new_rows_and_shares_the_old_files(tmp_path: Path, kind: Kind) -> None:
    _, old = bank_of(tmp_path / "old", kind)
    new = extend(StoragePath.of(tmp_path / "old"), old, MORE, StoragePath.of(tmp_path / "new"))
    bank = opened(StoragePath.of(tmp_path / "new"), new)
    found = bank.search(MORE.vectors, 1)[1][:, 0]
    assert (found == np.arange(ROWS, ROWS + 400)).mean() > (0.99 if kind == "hnsw" else 0.999)
    for path in (tmp_path / "old").iterdir():
        if path.name != "rows.parquet":
            assert path.samefile(tmp_path / "new" / path.name)
    again = extend(StoragePath.of(tmp_path / "new"), new, reference(100, seed=70), StoragePath.of(tmp_path / "third"))
    assert len({one["vectors"]["file"] for one in again["shards"]}) == 4


def test_what_does_not_belong_is_not_added(tmp_path: Path) -> None:
    old, place = bank_of(tmp_path / "old", "exact")[1], StoragePath.of(tmp_path / "old")
    others = ReferenceRows(MORE.vectors, MORE.expression, ["x", "y", "z"], MORE.sections, MORE.spots, MORE.patients)
    with pytest.raises(ModelError, match=r"3 genes .* were given"):
        extend(place, old, others, StoragePath.of(tmp_path / "new"))
    with pytest.raises(ModelError, match="a bank is changed into another folder than its own"):
        extend(place, old, MORE, place)
    with pytest.raises(ArtifactError, match="a bank of version 1, which is read but not changed"):
        remove(place, {**old, "version": 1}, ["patient-A"], StoragePath.of(tmp_path / "new"))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_a_bank_without_a_patient_is_the_bank_built_without(tmp_path: Path, kind: Kind, metric: Metric) -> None:
    bank, old = bank_of(tmp_path / "old", kind, shards=3, metric=metric)
    stays = np.flatnonzero(bank.rows_without(["patient-B"]))
    place, whole = StoragePath.of(tmp_path / "new"), StoragePath.of(tmp_path / "whole")
    new = remove(StoragePath.of(tmp_path / "old"), old, ["patient-B"], place)
    left = joined(reference(), MORE, stays)
    want = IndexParams(kind=kind, k=10, recall=0.9, lists=old["lists"] or None)
    built = write_reference_index(whole, left, shards=1, metric=metric, want=want)
    if kind == "exact":
        assert_same_bank(opened(place, new), opened(whole, built))
    else:
        for found, truth in zip(
            opened(place, new).search_exactly(QUERIES, 25),
            opened(whole, built).search_exactly(QUERIES, 25),
            strict=True,
        ):
            assert np.array_equal(found, truth)
    assert new["patients"] == ["patient-A", "patient-C"]
    assert new["lineage"][-1] == {"change": "removed", "rows": 500, "patients": 1, "of": new["lineage"][-1]["of"]}


def traces(whole: ReferenceRows, rows: Any, metric: Metric) -> dict[str, list[bytes]]:
    """What could be left of rows in a file: any 2 dimensions or genes that lie side by side, and names."""
    unit = prepare(whole.vectors, metric, "bank")
    found: dict[str, list[bytes]] = {"vectors": [], "expression": [], "names": []}
    for row in rows.tolist():
        for values, what in ((whole.vectors, "vectors"), (unit, "vectors"), (whole.expression, "expression")):
            for kind, few in ((np.float32, 2), (np.float16, 4)):
                one = values[row].astype(kind)
                found[what] += [one[at : at + few].tobytes() for at in range(0, len(one) - few + 1, few)]
        found["names"] += [whole.spots[row].encode(), whole.patients[row].encode(), whole.sections[row].encode()]
    return {what: [one for one in sorted(set(values)) if any(one)] for what, values in found.items()}


def holds(content: bytes, patterns: list[bytes]) -> bool:
    """Say whether any of the patterns, of few different lengths, is somewhere in the bytes."""
    for length in {len(one) for one in patterns}:
        wanted = {one for one in patterns if len(one) == length}
        if any(content[at : at + length] in wanted for at in range(len(content) - length + 1)):
            return True
    return False


@pytest.mark.parametrize(
    ("kind", "form"),
    # What finds candidates does not depend on the form of expression.
    [*((kind, "float32") for kind in KINDS), *product(("exact", "ivfsq"), ("float16", "csr", "csr16"))],
)
def test_a_patient_who_is_removed_is_in_no_file(tmp_path: Path, kind: Kind, form: Any) -> None:
    random, rows = np.random.default_rng(7), 240
    whole = ReferenceRows(
        vectors=random.standard_normal((rows, 16), dtype=np.float32),
        expression=random.random((rows, 8), dtype=np.float32) + 1,
        genes=[f"gene{number}" for number in range(8)],
        sections=[f"section-{row % 5}-of-{row // 20 % 3}" for row in range(rows)],
        spots=[f"spot-{row}-of-{row // 20 % 3}" for row in range(rows)],
        patients=[f"patient-{row // 20 % 3}" for row in range(rows)],
    )
    stored = ReferenceRows(
        **{**vars(whole), "expression": sparse.csr_array(whole.expression) if "csr" in form else whole.expression}
    )
    want = IndexParams(
        kind=kind, k=5, recall=0.5, lists=120, form=form
    )  # lists of 2 rows: centroids that are nearly rows
    old = write_reference_index(StoragePath.of(tmp_path / "old"), stored, shards=2, metric="cosine", want=want)
    gone = np.flatnonzero(np.arange(rows) // 20 % 3 == 1)
    patterns = traces(whole, gone, "cosine")
    before = [path.read_bytes() for path in sorted((tmp_path / "old").iterdir())]
    assert any(holds(content, patterns["vectors"]) for content in before)  # what is looked for can be found
    assert any(holds(content, patterns["expression"]) for content in before)
    new = remove(StoragePath.of(tmp_path / "old"), old, ["patient-1"], StoragePath.of(tmp_path / "new"))
    files = sorted((tmp_path / "new").iterdir())
    assert {path.name for path in files} >= {"rows.parquet", "shard-00000.vectors.npy"}
    for path in files:
        content = path.read_bytes()
        for what, sought in patterns.items():
            assert not holds(content, sought), f"{path.name} holds {what}"
    assert not any(one.decode() in json.dumps(new) for one in patterns["names"])
    assert "patient-1" not in str(StoragePath.of(tmp_path / "new" / "rows.parquet").read_table().to_pydict())


def test_shards_that_lose_nothing_are_shared_and_those_that_lose_all_are_gone(tmp_path: Path) -> None:
    names = ["a"] * 100 + ["b"] * 100 + ["c"] * 150
    spots = ReferenceRows(vectors(350, 3), np.ones((350, 1), np.float32), ["g"], names, names, names)
    place = StoragePath.of(tmp_path / "old")
    old = write_reference_index(place, spots, shards=7, metric="l2")
    new = remove(place, old, ["b"], StoragePath.of(tmp_path / "new"))
    assert [one["rows"] for one in new["shards"]] == [50] * 5
    assert new["shards"] == [*old["shards"][:2], *old["shards"][4:]]
    assert (tmp_path / "old" / "shard-00006.vectors.npy").samefile(tmp_path / "new" / "shard-00006.vectors.npy")
    assert not (tmp_path / "new" / "shard-00002.vectors.npy").exists()
    more = extend(StoragePath.of(tmp_path / "new"), new, spots, StoragePath.of(tmp_path / "more"))
    assert more["shards"][-1]["vectors"]["file"] == "shard-00007.vectors.npy"
    with pytest.raises(
        ModelError, match=r"patients 'z' were to be removed from the bank in .*, which has 'a', 'b', 'c'"
    ):
        remove(place, old, ["z"], StoragePath.of(tmp_path / "other"))
    with pytest.raises(ModelError, match="nobody would be left"):
        remove(place, old, ["a", "b", "c"], StoragePath.of(tmp_path / "other"))


def test_a_quantizer_that_never_saw_the_patient_stays(tmp_path: Path) -> None:
    _, old = bank_of(tmp_path / "old", "ivf")
    extended = extend(StoragePath.of(tmp_path / "old"), old, MORE, StoragePath.of(tmp_path / "more"))
    new = remove(
        StoragePath.of(tmp_path / "more"), extended, ["patient-D", "patient-E"], StoragePath.of(tmp_path / "new")
    )
    assert (tmp_path / "old" / "quantizer.faiss").samefile(tmp_path / "new" / "quantizer.faiss")
    assert new["shards"] == old["shards"]
    renewed = remove(StoragePath.of(tmp_path / "more"), extended, ["patient-A"], StoragePath.of(tmp_path / "other"))
    assert renewed["quantizer"]["sha256"] != old["quantizer"]["sha256"]
    assert renewed["quantizer"]["saw"]["patients"] == ["patient-B", "patient-C", "patient-D", "patient-E"]
