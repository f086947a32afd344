"""A shard's expression: every form gives the same sums, shares add to the whole, and only its own files open."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from raystp.errors import ArtifactError, ModelError
from raystp.index.expression import kernels as expression_kernels
from raystp.index.expression.forms import DenseExpression, ExpressionRows, Form, SparseExpression
from raystp.index.expression.shard import in_memory, open_expression, write_expression
from raystp.storage import StoragePath

FORMS: tuple[Form, ...] = ("float32", "float16", "csr", "csr16")
ROWS, GENES = 300, 203
SOME = np.array([201, 3, 60, 3, 0])


def toy() -> Any:
    """Return expression with 12 % of its values, one empty row, and one row that has them all."""
    random = np.random.default_rng(0)
    values = random.random((ROWS, GENES), dtype=np.float32) * 8
    values *= random.random((ROWS, GENES)) < 0.12
    values[7], values[8] = 0, 5
    return values


def random_neighbours(queries: int = 40, k: int = 50, seed: int = 1) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    weights = random.random((queries, k), dtype=np.float32)
    return weights / weights.sum(axis=1, keepdims=True), random.integers(0, ROWS, (queries, k))


def write_and_open(folder: Path, form: Form, values: Any = None, stem: str = "shard-00000") -> ExpressionRows:
    record = write_expression(StoragePath.of(folder), stem, toy() if values is None else values, form)
    return open_expression(StoragePath.of(folder), json.loads(json.dumps(record)))


def sums(weights: Any, rows: Any, values: Any) -> Any:
    return np.einsum("qk,qkg->qg", weights.astype(np.float64), values[rows].astype(np.float64))


def stored(form: Form) -> Any:
    """Return the toy's values as a form stores them."""
    return toy().astype(np.float16).astype(np.float32) if form in {"float16", "csr16"} else toy()


@pytest.mark.parametrize("source", ["dense", "sparse", "open"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_back_as_it_was_written(tmp_path: Path, form: Form, source: str) -> None:
    given: Any = {"dense": toy(), "sparse": sparse.csr_array(toy()), "open": in_memory(toy())}[source]
    expression = write_and_open(tmp_path, form, given)
    assert isinstance(expression, ExpressionRows)
    assert (expression.form, expression.shape) == (form, (ROWS, GENES))
    order = np.random.default_rng(2).permutation(ROWS)
    assert np.array_equal(expression.rows(order), stored(form)[order])
    assert np.array_equal(expression.rows(order[:9], SOME), stored(form)[order[:9]][:, SOME])


@pytest.mark.parametrize("form", FORMS)
def test_a_share_is_the_weighted_sum_of_rows(tmp_path: Path, form: Form) -> None:
    weights, rows = random_neighbours()
    found = write_and_open(tmp_path, form).share_of_sum(weights, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, sums(weights, rows, stored(form)), rtol=2e-6, atol=1e-6)
    close = 1e-6 if form in {"float32", "csr"} else 5e-4
    np.testing.assert_allclose(found, sums(weights, rows, toy()), rtol=close, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_single_neighbour_gives_its_row_and_equal_weights_give_the_mean(tmp_path: Path, form: Form) -> None:
    expression, rows = write_and_open(tmp_path, form), random_neighbours(k=1)[1]
    assert np.array_equal(expression.share_of_sum(np.ones(rows.shape, np.float32), rows), stored(form)[rows[:, 0]])
    all_rows = np.random.default_rng(3).permutation(ROWS)[None]
    mean = expression.share_of_sum(np.full((1, ROWS), 1 / ROWS, np.float32), all_rows)
    np.testing.assert_allclose(mean[0], stored(form).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_the_shares_of_shards_add_to_the_whole(tmp_path: Path, shards: int, form: Form) -> None:
    weights, rows = random_neighbours()
    rows[3, 5:] = -1  # missing neighbours
    weights[3, 5:] = 0.25
    mean = sums(np.where(rows < 0, 0, weights), rows, stored(form)).astype(np.float32)
    cuts = np.linspace(0, ROWS, shards + 1).astype(int).tolist()
    total, spread = np.zeros((2, len(rows), GENES), np.float32)
    for number, (first, end) in enumerate(itertools.pairwise(cuts)):
        shard = write_and_open(tmp_path, form, toy()[first:end], f"shard-{number:05d}")
        total += shard.share_of_sum(weights, rows, first)
        spread += shard.share_of_spread(weights, rows, mean, first)
    whole = in_memory(stored(form))
    np.testing.assert_allclose(total, whole.share_of_sum(weights, rows), atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(spread, whole.share_of_spread(weights, rows, mean), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_spread_is_the_weighted_variance(tmp_path: Path, form: Form) -> None:
    weights, rows = random_neighbours()
    mean = sums(weights, rows, stored(form))
    true = np.einsum("qk,qkg->qg", weights.astype(np.float64), (stored(form)[rows] - mean[:, None]) ** 2)
    found = write_and_open(tmp_path, form).share_of_spread(weights, rows, mean.astype(np.float32))
    np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_equal_neighbours_have_no_spread(tmp_path: Path, form: Form) -> None:
    expression, rows = write_and_open(tmp_path, form), np.full((1, 50), 8)
    weights = np.full((1, 50), 0.02, np.float32)
    mean = expression.share_of_sum(weights, rows)
    np.testing.assert_allclose(np.sqrt(expression.share_of_spread(weights, rows, mean)), 0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("genes", [SOME, np.arange(0, GENES, 30), np.zeros(0, np.int64), np.arange(GENES)[::-1]])
def test_selected_genes_are_columns_of_the_whole(tmp_path: Path, form: Form, genes: Any) -> None:
    expression, (weights, rows) = write_and_open(tmp_path, form), random_neighbours()
    whole = expression.share_of_sum(weights, rows)
    np.testing.assert_allclose(expression.share_of_sum(weights, rows, 0, genes), whole[:, genes], rtol=1e-6, atol=1e-7)
    spread = expression.share_of_spread(weights, rows, whole)
    found = expression.share_of_spread(weights, rows, whole[:, genes], genes=genes)
    np.testing.assert_allclose(found, spread[:, genes], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_threads_gives_the_same_bits(tmp_path: Path, form: Form) -> None:
    expression, (weights, rows) = write_and_open(tmp_path, form), random_neighbours(queries=400)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            total = expression.share_of_sum(weights, rows)
            found.append((total, expression.share_of_spread(weights, rows, total)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert np.array_equal(other[0], found[0][0])
        assert np.array_equal(other[1], found[0][1])


@pytest.mark.parametrize("form", FORMS)
def test_concurrent_callers_get_their_own_results(tmp_path: Path, form: Form) -> None:
    expression, calls = write_and_open(tmp_path, form), [random_neighbours(queries=60, seed=seed) for seed in range(12)]
    sequential = [expression.share_of_sum(*call) for call in calls]
    with ThreadPoolExecutor(6) as pool:
        concurrent = list(pool.map(lambda call: expression.share_of_sum(*call), calls))
    assert all(np.array_equal(one, other) for one, other in zip(sequential, concurrent, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_read_only_arrays_give_the_same_sums(tmp_path: Path, form: Form) -> None:
    expression, (weights, rows) = write_and_open(tmp_path, form), random_neighbours()
    free = expression.share_of_sum(weights, rows)
    for array in (weights, rows, *(one for one in vars(expression).values() if isinstance(one, np.ndarray))):
        array.setflags(write=False)
    assert np.array_equal(expression.share_of_sum(weights, rows), free)
    assert np.array_equal(expression.share_of_spread(weights, rows, free) >= 0, np.ones_like(free, bool))


@pytest.mark.parametrize("form", FORMS)
def test_changes_in_memory_never_reach_the_file(tmp_path: Path, form: Form) -> None:
    record = write_expression(StoragePath.of(tmp_path), "s", toy(), form)
    first = open_expression(StoragePath.of(tmp_path), record)
    assert isinstance(first, DenseExpression | SparseExpression)
    first.values[:] = 9
    again = open_expression(StoragePath.of(tmp_path), record)
    assert np.array_equal(again.rows(np.arange(ROWS)), stored(form))


@pytest.mark.parametrize("form", FORMS)
def test_only_the_selected_rows_are_in_the_files(tmp_path: Path, form: Form) -> None:
    folder, kept = StoragePath.of(tmp_path), np.flatnonzero(np.arange(ROWS) % 3)
    whole = write_and_open(tmp_path, form)
    record = write_expression(folder, "kept", whole, form, rows=kept)
    assert np.array_equal(open_expression(folder, record).rows(np.arange(len(kept))), stored(form)[kept])
    fresh = write_expression(folder, "fresh", toy()[kept], form)
    digests = [[one["sha256"] for one in each["files"].values()] for each in (record, fresh)]
    assert digests[0] == digests[1]


def test_a_version_1_description_opens_as_float32(tmp_path: Path) -> None:
    file = write_expression(StoragePath.of(tmp_path), "shard-00000", toy(), "float32")["files"]["values"]
    assert file["file"] == "shard-00000.expression.npy"
    expression = open_expression(StoragePath.of(tmp_path), {**file})
    assert expression.form == "float32"
    assert np.array_equal(expression.rows(np.arange(ROWS)), toy())


@pytest.mark.parametrize("form", FORMS)
def test_an_altered_file_is_refused_by_name(tmp_path: Path, form: Form) -> None:
    record = write_expression(StoragePath.of(tmp_path), "s", toy(), form)
    for one in record["files"].values():
        path = tmp_path / one["file"]
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ArtifactError, match=f"{one['file']} is not the file that the index was written with"):
            open_expression(StoragePath.of(tmp_path), record)
        path.write_bytes(content)


def test_files_that_do_not_match_each_other_are_refused(tmp_path: Path) -> None:
    folder = StoragePath.of(tmp_path)
    wide, narrow = (
        write_expression(folder, stem, toy()[:, :n], "csr") for stem, n in (("wide", GENES), ("narrow", 50))
    )
    with pytest.raises(ArtifactError, match=r"wide.expression.columns.npy and its values and starts are not rows"):
        open_expression(folder, {**wide, "shape": [ROWS, 50]})
    mixed: Any = {**wide, "files": {**wide["files"], "starts": narrow["files"]["starts"]}}
    with pytest.raises(ArtifactError, match="are not rows of 203 genes"):
        open_expression(folder, mixed)
    dense = write_expression(folder, "dense", toy(), "float16")
    with pytest.raises(
        ArtifactError, match=r"dense.expression.npy has expression of form float16 and shape \(300, 203\)"
    ):
        open_expression(folder, {**dense, "form": "float32"})


@pytest.mark.parametrize("form", FORMS)
def test_values_that_are_not_finite_or_too_large_are_refused(tmp_path: Path, form: Form) -> None:
    for value in (np.nan, np.inf, -np.inf):
        broken = toy()
        broken[[4, 250], 9] = value
        for source in (broken, sparse.csr_array(broken)):
            with pytest.raises(ModelError, match=r"not finite in 2 rows \('4', '250'\); leave these spots out"):
                write_expression(StoragePath.of(tmp_path), "s", source, form)
    large = toy()
    large[3, 3] = 65_505
    if form in {"float32", "csr"}:
        assert write_and_open(tmp_path, form, large).rows(np.array([3]))[0, 3] == 65_505
    else:
        with pytest.raises(ModelError, match=f"values up to 65505; form '{form}' stores at most 65,504"):
            write_expression(StoragePath.of(tmp_path), "s", large, form)


def test_column_numbers_beyond_two_bytes_are_stored(tmp_path: Path) -> None:
    values = sparse.csr_array(([1.0, 2.0], ([0, 1], [65_536, 0])), shape=(2, 65_540), dtype=np.float32)
    expression = write_and_open(tmp_path, "csr", values)
    assert isinstance(expression, SparseExpression)
    assert expression.columns.dtype == np.int32
    assert expression.rows(np.array([1, 0]), np.array([0, 65_536])).tolist() == [[2, 0], [0, 1]]


def test_unknown_genes_and_rows_are_refused() -> None:
    weights, rows = random_neighbours()
    for expression in (in_memory(toy()), in_memory(sparse.csr_array(toy()))):
        for genes in (np.array([GENES]), np.array([-1, 3])):
            with pytest.raises(ModelError, match="requested; the expression has genes 0 to 202"):
                expression.share_of_sum(weights, rows, 0, genes)
        with pytest.raises(ModelError, match="rows '300' requested; the expression has rows 0 to 299"):
            expression.rows(np.array([0, 300]))


def test_no_queries_and_no_rows_give_empty_shares(tmp_path: Path) -> None:
    nothing = np.zeros((0, 5), np.float32), np.zeros((0, 5), np.int64)
    for form in FORMS:
        assert write_and_open(tmp_path, form).share_of_sum(*nothing).shape == (0, GENES)
        empty = write_and_open(tmp_path, form, toy()[:0], f"empty-{form}")
        assert not empty.share_of_sum(*random_neighbours()).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 140), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_forms_agree_whatever_the_size(rows: int, genes: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.random((rows, genes), dtype=np.float32) * (random.random((rows, genes)) < random.random())
    values = values.astype(np.float16).astype(np.float32)
    weights, near = random.random((3, k), dtype=np.float32), random.integers(-1, rows + 5, (3, k))
    wide, thin = in_memory(sparse.csr_array(values)), in_memory(values.astype(np.float16))
    dense = in_memory(values)
    found = dense.share_of_sum(weights, near)
    for other in (wide, thin):
        np.testing.assert_allclose(other.share_of_sum(weights, near), found, rtol=1e-5, atol=1e-6)
        both = [one.share_of_spread(weights, near, found) for one in (other, dense)]
        np.testing.assert_allclose(both[0], both[1], rtol=1e-4, atol=1e-4)


def test_kernels_are_compiled_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = numba.njit

    def refusing(signature: Any, *, cache: bool = False, **options: Any) -> Any:
        if cache:
            msg = "cannot cache function: no locator available"
            raise RuntimeError(msg)
        return plain(signature, **options)

    monkeypatch.setattr(numba, "njit", refusing)
    expression_kernels.compiled_for.cache_clear()
    try:
        expression = in_memory(toy().astype(np.float16))
        assert np.array_equal(expression.share_of_sum(np.ones((1, 1), np.float32), np.array([[8]]))[0], [5] * GENES)
    finally:
        expression_kernels.compiled_for.cache_clear()
