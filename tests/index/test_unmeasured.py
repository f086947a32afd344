"""A row that has not measured a gene has no vote for it: for every kind, number of shards, form, and after a change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.errors import ArtifactError
from raystp.impute.imputer import NeighborImputer
from raystp.index.change import extend, remove
from raystp.index.expression.forms import Form
from raystp.index.expression.measured import MeasuredGenes, split_missing
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.index.reference import ReferenceRows
from raystp.index.remote import RemoteIndex, ShardGroup
from raystp.index.search.kinds import IndexParams, Kind
from raystp.index.write import write_reference_index
from raystp.storage import StoragePath
from tests.index.toy import JOINT, reference, vectors

K, ROWS = 8, 300
QUERIES = vectors(20, seed=7)


def with_missing(rows: ReferenceRows) -> tuple[ReferenceRows, np.ndarray]:
    """Return the rows without gene 0 of A, and genes 0 and 2 of B; and their expression with NaN there."""
    true = np.array(rows.expression)
    owner = np.asarray(rows.sections)
    true[owner == "section-of-A", 0] = np.nan
    true[np.ix_(owner == "section-of-B", [0, 2])] = np.nan
    stored, unmeasured = split_missing(true, rows.sections)
    return replace(rows, expression=stored, unmeasured=unmeasured), true


def written(folder: Path, rows: ReferenceRows, *, kind: Kind = "exact", shards: int = 2, form: Form = "float32") -> Any:
    params = IndexParams(kind=kind, k=K, recall=0.9, form=form)
    made = write_reference_index(StoragePath.of(folder), rows, shards=shards, metric="cosine", params=params)
    return json.loads(json.dumps(made))


def opened(folder: Path, rows: ReferenceRows, **how: Any) -> ReferenceIndex:
    return open_reference_index(StoragePath.of(folder), written(folder, rows, **how))


def by_hand(true: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted mean and variance over the neighbours that measured the gene, in float64."""
    values = true[rows].astype(np.float64)
    own = np.where(np.isnan(values), 0, weights[..., None])
    total = own.sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(own * values, axis=1) / total
        return mean, np.nansum(own * (values - mean[:, None]) ** 2, axis=1) / total


@pytest.mark.parametrize("form", ["float32", "float16", "csr", "csr16"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("genes", [None, np.array([2, 0])])
def test_a_mean_is_over_the_neighbours_that_measured_the_gene(
    tmp_path: Path, form: Form, shards: int, genes: np.ndarray | None
) -> None:
    rows, true = with_missing(reference(ROWS))
    index = opened(tmp_path, rows, shards=shards, form=form)
    found = index.search(QUERIES, K)[1]
    weights = np.random.default_rng(0).dirichlet(np.ones(K), len(QUERIES)).astype(np.float32)
    mean, variance = (side if genes is None else side[:, genes] for side in by_hand(true, found, weights))
    tolerance = 2e-3 if form.endswith("16") else 1e-5
    found_mean = index.weighted_mean(weights, found, genes)
    np.testing.assert_allclose(found_mean, mean, atol=tolerance)
    np.testing.assert_allclose(index.weighted_variance(weights, found, found_mean, genes), variance, atol=tolerance)
    assert np.isfinite(mean).any()


def test_without_a_neighbour_that_measured_it_a_gene_has_no_prediction(tmp_path: Path) -> None:
    rows, true = with_missing(reference(ROWS))
    index = opened(tmp_path, rows)
    only_b = index.rows_where("section", ["section-of-B"])
    found = index.search(QUERIES, K, allowed=only_b)[1]
    weights = np.full(found.shape, 1 / K, np.float32)
    mean = index.weighted_mean(weights, found)
    assert np.isnan(mean[:, [0, 2]]).all()
    np.testing.assert_allclose(mean[:, 1], true[found, 1].mean(axis=1), rtol=1e-5)
    assert np.isnan(index.expression(found[0])[:, [0, 2]]).all()
    np.testing.assert_array_equal(index.expression(np.arange(ROWS)), true)


def test_equal_neighbours_have_no_spread(tmp_path: Path) -> None:
    rows, _ = with_missing(reference(ROWS))
    index = opened(tmp_path, replace(rows, expression=np.where(rows.expression > 0, np.float32(5.3), np.float32(0))))
    found = index.search(QUERIES, K)[1]
    weights = np.full(found.shape, 1 / K, np.float32)
    mean = index.weighted_mean(weights, found)
    assert np.nanmax(index.weighted_variance(weights, found, mean)) < 1e-10


def test_shards_in_other_processes_answer_as_one(tmp_path: Path) -> None:
    rows, _ = with_missing(reference(ROWS))
    description = written(tmp_path, rows, shards=3)
    folder = StoragePath.of(tmp_path)
    whole = open_reference_index(folder, description)

    class Caller:
        groups = tuple(ShardGroup(open_reference_index(folder, description, only=[n])) for n in range(3))

        def call(self, method: str, *arguments: object) -> list[Any]:
            return [getattr(group, method)(*arguments) for group in self.groups]

        def close(self) -> None: ...

    remote = RemoteIndex(open_reference_index(folder, description, only=()), Caller())

    class Model:
        d_image = JOINT

        def embed_images(self, features: np.ndarray) -> np.ndarray:
            return features

    results = []
    for index in (whole, remote):
        imputer = NeighborImputer(Model(), index, "softmax")
        found = imputer.find(QUERIES, K)
        mean = imputer.expression(found)
        results.append((mean, imputer.spread(found, mean)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_changes_keep_what_each_section_has_measured(tmp_path: Path) -> None:
    rows, true = with_missing(reference(ROWS))
    for name in ("base", "more", "less"):
        (tmp_path / name).mkdir()
    base, more, less = (StoragePath.of(tmp_path / name) for name in ("base", "more", "less"))
    description = written(tmp_path / "base", rows)
    assert (description["version"], description["unmeasured"]) == (3, {"section-of-A": [0], "section-of-B": [0, 2]})
    further = reference(100, seed=5, patients="D")
    extended = extend(base, description, replace(further, unmeasured={"section-of-D": [1]}), more)
    assert extended["unmeasured"] == {**description["unmeasured"], "section-of-D": [1]}
    index = open_reference_index(more, extended)
    np.testing.assert_array_equal(index.expression(np.arange(ROWS)), true)
    assert np.isnan(index.expression(np.arange(ROWS, ROWS + 100))[:, 1]).all()
    left = remove(more, extended, ["patient-A", "patient-B", "patient-D"], less)
    assert left["version"] == 2
    assert "unmeasured" not in left
    assert open_reference_index(less, left).measured is None


def test_an_index_of_complete_sections_is_as_it_was(tmp_path: Path) -> None:
    description = written(tmp_path, reference(ROWS))
    assert description["version"] == 2
    index = open_reference_index(StoragePath.of(tmp_path), description)
    found = index.search(QUERIES, K)[1]
    weights = np.full(found.shape, 1 / K, np.float32)
    np.testing.assert_array_equal(index.weighted_mean(weights, found), index.weighted_sum(weights, found))
    assert MeasuredGenes.of_values(np.asarray(reference(ROWS).expression)) is None


def test_a_version_of_the_future_is_refused(tmp_path: Path) -> None:
    description = written(tmp_path, reference(ROWS))
    with pytest.raises(ArtifactError, match="version 4; this raystp reads versions 1 to 3: run `raystp index` again"):
        open_reference_index(StoragePath.of(tmp_path), description | {"version": 4})
