"""Changed indexes: an extended one equals the one built from all spots; removed patients are in no file."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from raystp.errors import ArtifactError, ModelError
from raystp.index.change import extend, remove
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import KINDS, IndexParams, Kind
from raystp.index.search.score import METRICS, Metric, prepare
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath
from tests.index.toy import ROWS, make_index, reference, vectors

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
        columns={"tissue": texts(one.columns["tissue"], two.columns["tissue"])},
    )


def open_written(folder: StoragePath, description: Any) -> ReferenceIndex:
    return open_reference_index(folder, json.loads(json.dumps(description)))


def assert_same_index(left: ReferenceIndex, right: ReferenceIndex) -> None:
    for found, truth in zip(left.search(QUERIES, 25), right.search(QUERIES, 25), strict=True):
        assert np.array_equal(found, truth)
    all_rows = np.arange(right.rows.num_rows)
    assert left.rows.equals(right.rows)
    assert np.array_equal(left.expression(all_rows), right.expression(all_rows))
    assert np.array_equal(left.squared_distances(QUERIES, left.search(QUERIES, 5)[1]).shape, (30, 5))


@pytest.mark.parametrize("metric", METRICS)
def test_an_extended_index_equals_the_index_built_from_all(tmp_path: Path, metric: Metric) -> None:
    _, old = make_index(tmp_path / "old", "exact", metric=metric)
    folder = StoragePath.of(tmp_path / "new")
    new = extend(StoragePath.of(tmp_path / "old"), old, MORE, folder, shards=2)
    whole = StoragePath.of(tmp_path / "whole")
    built = write_reference_index(whole, joined(reference(), MORE), shards=3, metric=metric)
    assert_same_index(open_written(folder, new), open_written(whole, built))
    assert new["patients"] == built["patients"]
    assert [one["change"] for one in new["lineage"]] == ["built", "extended"]
    assert (new["lineage"][1]["rows"], len(new["shards"])) == (400, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_extended_index_finds_the_new_rows_and_links_the_old_files(tmp_path: Path, kind: Kind) -> None:
    _, old = make_index(tmp_path / "old", kind)
    new = extend(StoragePath.of(tmp_path / "old"), old, MORE, StoragePath.of(tmp_path / "new"))
    index = open_written(StoragePath.of(tmp_path / "new"), new)
    found = index.search(MORE.vectors, 1)[1][:, 0]
    assert (found == np.arange(ROWS, ROWS + 400)).mean() > (0.99 if kind == "hnsw" else 0.999)
    for path in (tmp_path / "old").iterdir():
        if path.name != "rows.parquet":
            assert path.samefile(tmp_path / "new" / path.name)
    again = extend(StoragePath.of(tmp_path / "new"), new, reference(100, seed=70), StoragePath.of(tmp_path / "third"))
    assert len({one["vectors"]["file"] for one in again["shards"]}) == 4


def test_incompatible_spots_are_not_added(tmp_path: Path) -> None:
    old, folder = make_index(tmp_path / "old", "exact")[1], StoragePath.of(tmp_path / "old")
    others = ReferenceRows(MORE.vectors, MORE.expression, ["x", "y", "z"], MORE.sections, MORE.spots, MORE.patients)
    with pytest.raises(ModelError, match=r"the new spots have 3 genes"):
        extend(folder, old, others, StoragePath.of(tmp_path / "new"))
    with pytest.raises(ModelError, match="a changed index needs a folder of its own"):
        extend(folder, old, MORE, folder)
    version_1: Any = {**old, "version": 1}
    with pytest.raises(ArtifactError, match="an index of version 1, which can be read but not changed"):
        remove(folder, version_1, ["patient-A"], StoragePath.of(tmp_path / "new"))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_an_index_without_a_patient_equals_the_index_built_without_them(
    tmp_path: Path, kind: Kind, metric: Metric
) -> None:
    index, old = make_index(tmp_path / "old", kind, shards=3, metric=metric)
    stays = np.flatnonzero(index.rows_without(["patient-B"]))
    folder, whole = StoragePath.of(tmp_path / "new"), StoragePath.of(tmp_path / "whole")
    new = remove(StoragePath.of(tmp_path / "old"), old, ["patient-B"], folder)
    left = joined(reference(), MORE, stays)
    params = IndexParams(kind=kind, k=10, recall=0.9, lists=old["lists"] or None)
    built = write_reference_index(whole, left, shards=1, metric=metric, params=params)
    if kind == "exact":
        assert_same_index(open_written(folder, new), open_written(whole, built))
    else:
        for found, truth in zip(
            open_written(folder, new).search_exactly(QUERIES, 25),
            open_written(whole, built).search_exactly(QUERIES, 25),
            strict=True,
        ):
            assert np.array_equal(found, truth)
    assert new["patients"] == ["patient-A", "patient-C"]
    assert new["lineage"][-1] == {"change": "removed", "rows": 500, "patients": 1, "of": new["lineage"][-1]["of"]}


def traces(whole: ReferenceRows, rows: Any, metric: Metric) -> dict[str, list[bytes]]:
    """Return what a file could contain of rows: any 2 consecutive dimensions or genes, and names."""
    unit = prepare(whole.vectors, metric, "reference")
    found: dict[str, list[bytes]] = {"vectors": [], "expression": [], "names": []}
    for row in rows.tolist():
        for values, kind in ((whole.vectors, "vectors"), (unit, "vectors"), (whole.expression, "expression")):
            for dtype, few in ((np.float32, 2), (np.float16, 4)):
                one = values[row].astype(dtype)
                found[kind] += [one[at : at + few].tobytes() for at in range(0, len(one) - few + 1, few)]
        found["names"] += [whole.spots[row].encode(), whole.patients[row].encode(), whole.sections[row].encode()]
    return {kind: [one for one in sorted(set(values)) if any(one)] for kind, values in found.items()}


def contains(content: bytes, patterns: list[bytes]) -> bool:
    """Return whether the bytes contain any of the patterns, which have few different lengths."""
    for length in {len(one) for one in patterns}:
        own = {one for one in patterns if len(one) == length}
        if any(content[at : at + length] in own for at in range(len(content) - length + 1)):
            return True
    return False


@pytest.mark.parametrize(
    ("kind", "form"),
    # The FAISS index does not depend on the form of expression.
    [*((kind, "float32") for kind in KINDS), *product(("exact", "ivfsq"), ("float16", "csr", "csr16"))],
)
def test_a_removed_patient_is_in_no_file(tmp_path: Path, kind: Kind, form: Any) -> None:
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
    params = IndexParams(
        kind=kind, k=5, recall=0.5, lists=120, form=form
    )  # lists of 2 rows: centroids that are nearly rows
    old = write_reference_index(StoragePath.of(tmp_path / "old"), stored, shards=2, metric="cosine", params=params)
    gone = np.flatnonzero(np.arange(rows) // 20 % 3 == 1)
    patterns = traces(whole, gone, "cosine")
    before = [path.read_bytes() for path in sorted((tmp_path / "old").iterdir())]
    assert any(contains(content, patterns["vectors"]) for content in before)  # the check can find them
    assert any(contains(content, patterns["expression"]) for content in before)
    new = remove(StoragePath.of(tmp_path / "old"), old, ["patient-1"], StoragePath.of(tmp_path / "new"))
    files = sorted((tmp_path / "new").iterdir())
    assert {path.name for path in files} >= {"rows.parquet", "shard-00000.vectors.npy"}
    for path in files:
        content = path.read_bytes()
        for kind_of_data, sought in patterns.items():
            assert not contains(content, sought), f"{path.name} contains {kind_of_data}"
    assert not any(one.decode() in json.dumps(new) for one in patterns["names"])
    assert "patient-1" not in str(StoragePath.of(tmp_path / "new" / "rows.parquet").read_table().to_pydict())


def test_shards_that_lose_no_row_are_linked_and_empty_ones_are_dropped(tmp_path: Path) -> None:
    names = ["a"] * 100 + ["b"] * 100 + ["c"] * 150
    spots = ReferenceRows(vectors(350, 3), np.ones((350, 1), np.float32), ["g"], names, names, names)
    folder = StoragePath.of(tmp_path / "old")
    old = write_reference_index(folder, spots, shards=7, metric="l2")
    new = remove(folder, old, ["b"], StoragePath.of(tmp_path / "new"))
    assert [one["rows"] for one in new["shards"]] == [50] * 5
    assert new["shards"] == [*old["shards"][:2], *old["shards"][4:]]
    assert (tmp_path / "old" / "shard-00006.vectors.npy").samefile(tmp_path / "new" / "shard-00006.vectors.npy")
    assert not (tmp_path / "new" / "shard-00002.vectors.npy").exists()
    more = extend(StoragePath.of(tmp_path / "new"), new, spots, StoragePath.of(tmp_path / "more"))
    assert more["shards"][-1]["vectors"]["file"] == "shard-00007.vectors.npy"
    with pytest.raises(ModelError, match=r"patients to remove: 'z' are not in the index in .*; it has 'a', 'b', 'c'"):
        remove(folder, old, ["z"], StoragePath.of(tmp_path / "other"))
    with pytest.raises(ModelError, match="no patient would remain"):
        remove(folder, old, ["a", "b", "c"], StoragePath.of(tmp_path / "other"))


def test_a_quantizer_that_was_not_trained_on_the_patient_is_kept(tmp_path: Path) -> None:
    _, old = make_index(tmp_path / "old", "ivf")
    extended = extend(StoragePath.of(tmp_path / "old"), old, MORE, StoragePath.of(tmp_path / "more"))
    new = remove(
        StoragePath.of(tmp_path / "more"), extended, ["patient-D", "patient-E"], StoragePath.of(tmp_path / "new")
    )
    assert (tmp_path / "old" / "quantizer.faiss").samefile(tmp_path / "new" / "quantizer.faiss")
    assert new["shards"] == old["shards"]
    retrained = remove(StoragePath.of(tmp_path / "more"), extended, ["patient-A"], StoragePath.of(tmp_path / "other"))
    assert retrained["quantizer"] is not None
    assert retrained["quantizer"]["sha256"] != old["quantizer"]["sha256"]
    assert retrained["quantizer"]["saw"]["patients"] == ["patient-B", "patient-C", "patient-D", "patient-E"]
