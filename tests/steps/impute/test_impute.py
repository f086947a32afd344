"""impute with an index: resources do not change the result, neighbours give genes later, excluded rows are not used."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.cluster.streams.slides import SlideResources, map_slides
from raystp.errors import ConfigError, LeakError
from raystp.index.open import open_reference_index
from raystp.steps.evaluate.predictions import open_models
from raystp.steps.evaluate.reliability import score_reliability
from raystp.steps.evaluate.spots.outcomes import compare_sections
from raystp.steps.impute import step as impute
from raystp.steps.impute.work import SlideTask
from raystp.steps.index import step as index
from raystp.storage import StoragePath
from tests.steps.conftest import GENES, PATIENTS, add_joint, predict_options

pytestmark = pytest.mark.ray

SOURCES = {"model": "train/joint", "spots": "spots/toy", "embeddings": "embed/toy"}


@pytest.fixture(scope="module")
def store(made_store: StoragePath, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> StoragePath:  # noqa: ARG001 -- starts Ray
    """A store with `index/toy`, S1 and S2 in three shards, and `impute/dense`, S3 predicted from it."""
    store = StoragePath.of(tmp_path_factory.mktemp("joint") / "store")
    shutil.copytree(made_store.local_path, store.local_path)
    add_joint(store)
    index.run(index.CONFIG.of({**SOURCES, "name": "toy", "shards": 3, "run": {"store": store.uri}}))
    _imputed(store, name="dense", spread=True)
    return store


def _imputed(store: StoragePath, *, run: dict[str, Any] | None = None, **changes: Any) -> Artifact:
    values = {**SOURCES, "index": "index/toy", "k": 4, **changes}
    return impute.run(impute.CONFIG.of({**values, "run": {"store": store.uri, **(run or {})}}))


def _read(artifact: Artifact, slide: str = "S3") -> ad.AnnData:
    return ad.read_h5ad(artifact.path.local_path / "anndata" / f"{slide}.h5ad")


def test_resources_do_not_change_the_result(store: StoragePath) -> None:
    first = _read(_imputed(store, name="dense", spread=True))
    resources: list[dict[str, Any]] = [{"chunk_tiles": 1}, {"shard_actors": 3, "replicas": 3, "chunk_tiles": 4}]
    for number, run in enumerate(resources):
        run["cpus_per_process"] = 0.1
        other = _read(_imputed(store, name=f"wide{number}", spread=True, run=run))
        np.testing.assert_allclose(other.X, first.X, atol=1e-6)
        np.testing.assert_allclose(other.layers["spread"], first.layers["spread"], atol=1e-6)
        np.testing.assert_allclose(other.obs["distance"], first.obs["distance"], atol=1e-6)


def test_all_rows_vote_alike_in_actors_and_in_one_process(store: StoragePath) -> None:
    values: dict[str, Any] = {"weights": "softmax", "temperature": 0.3, "spread": True}
    whole = _imputed(store, name="all-rows", k="all", **values)
    assert whole.manifest.notes["retrieval"] == {
        "k": "all",
        "weights": "softmax",
        "temperature": 0.3,
        "calibrated": False,
    }
    run = {"shard_actors": 3, "chunk_tiles": 4, "cpus_per_process": 0.1}
    rows = resolve(store.uri, "index/toy", "index").manifest.rows["rows"]
    in_actors = _imputed(store, name="all-rows-actors", k="all", run=run, **values)
    searched = _imputed(store, name="every-row", k=rows, **values)
    first = _read(whole)
    for other in (_read(in_actors), _read(searched)):
        np.testing.assert_allclose(other.X, first.X, atol=1e-5)
        np.testing.assert_allclose(other.layers["spread"], first.layers["spread"], atol=1e-4)
        np.testing.assert_allclose(other.obs["distance"], first.obs["distance"], atol=1e-6)


def test_stored_neighbours_give_any_genes_later(store: StoragePath) -> None:
    dense = _imputed(store, name="dense", spread=True)
    near = _imputed(store, name="near", output="neighbours")
    assert near.manifest.notes["slides"] == ["S3"]
    later = _imputed(store, name="later", neighbours="impute/near", genes=["C", "A"], spread=True)
    one, two = _read(dense)[:, ["C", "A"]], _read(later)
    assert two.var_names.tolist() == ["C", "A"]
    np.testing.assert_allclose(two.X, one.X, atol=2e-3)
    np.testing.assert_allclose(two.layers["spread"], one.layers["spread"], atol=2e-2)
    np.testing.assert_array_equal(two.obs["distance"], one.obs["distance"])


def test_the_parquet_and_the_anndata_are_equal(store: StoragePath) -> None:
    artifact = _imputed(store, name="dense", spread=True)
    adata = _read(artifact)
    table = artifact.table("predictions/S3.parquet", tables.predictions(len(GENES)))
    np.testing.assert_array_equal(tables.matrix(table["expression"]), adata.X)
    assert adata.obs_names.tolist() == table["spot"].to_pylist()
    assert set(adata.obs.columns) >= {"distance", "far"}
    assert adata.layers["measured"].shape == adata.shape


def test_the_slide_table_describes_each_slide_and_a_sparse_file_has_the_same_values(store: StoragePath) -> None:
    dense, sparse = _imputed(store, name="dense", spread=True), _imputed(store, name="sparse", spread=True, x="csr")
    for artifact in (dense, sparse):
        (row,) = csv.DictReader((artifact.path / "slides.csv").read_bytes().decode().splitlines())
        adata = _read(artifact)
        assert (row["slide"], row["patient"], int(row["tiles"])) == ("S3", "P3", adata.n_obs)
        assert float(row["far_share"]) == pytest.approx(adata.obs["far"].mean(), abs=1e-6)
        assert row["model"].startswith("train/joint-")
        assert row["problem"] == ""
    np.testing.assert_array_equal(_read(sparse).X.toarray(), _read(dense).X)
    np.testing.assert_array_equal(_read(sparse).layers["spread"].toarray(), _read(dense).layers["spread"])


def test_the_calibration_compares_spread_and_far_with_the_errors_of_the_same_tiles(store: StoragePath) -> None:
    spots = resolve(store.uri, "spots/toy", "spots")
    found = []
    forms: list[dict[str, Any]] = [{"name": "dense"}, {"name": "sparse", "x": "csr"}]
    for changes in forms:
        models = open_models([_imputed(store, spread=True, **changes)], store.uri)
        compared = compare_sections(spots, models)
        found.append(score_reliability(models, compared.outcomes, compared.measured))
    adata = _read(_imputed(store, name="dense", spread=True))
    error = np.abs(adata.layers["measured"].astype(float) - adata.X)
    for one in found:
        coverage, far = one.spreads[0], one.far[0]
        assert (coverage.section, coverage.values) == ("S3", adata.n_obs * adata.n_vars)
        assert coverage.within_1 == pytest.approx((error <= adata.layers["spread"]).mean())
        assert far.far == adata.obs["far"].sum()
        assert far.far + far.near == adata.n_obs
    assert found[0] == found[1]


def test_with_leave_out_a_slides_own_patient_is_not_among_its_neighbours(store: StoragePath) -> None:
    with pytest.raises(LeakError):
        _imputed(store, slides=["S4"])  # of P1, on whom the model was trained
    run = {"store": store.uri}
    all_sections = {**SOURCES, "name": "all", "reference": ["S1", "S2", "S3"], "run": run}
    built = index.run(index.CONFIG.of(all_sections))
    values: dict[str, Any] = {"index": "index/all", "slides": ["S3"], "k": 12, "output": "neighbours"}
    with pytest.raises(LeakError, match="was built from 'S3'"):
        _imputed(store, name="own", **values)
    artifact = _imputed(store, name="own", own_rows="leave_out", **values)
    assert artifact.manifest.notes["left_out"] == {"S3": "P3"}
    rows = tables.matrix((artifact.path / "neighbours" / "S3.parquet").read_table()["rows"]).astype(int)
    patients = np.asarray(open_reference_index(built.path, built.manifest.notes["bank"]).rows["patient"].to_pylist())
    assert set(patients[np.unique(rows)]) == {"P1", "P2"}


def test_excluded_rows_are_never_neighbours(store: StoragePath) -> None:
    artifact = _imputed(store, name="without", output="neighbours", without={"section": ["S1"]})
    rows = tables.matrix((artifact.path / "neighbours" / "S3.parquet").read_table()["rows"])
    assert rows.min() >= 6


def test_finished_slides_are_not_predicted_again(store: StoragePath) -> None:
    first = _imputed(store, name="dense", spread=True)
    file = Path(first.path.uri) / "anndata" / "S3.h5ad"
    moment = file.stat().st_mtime_ns
    (first.path / "manifest.json").remove()
    second = _imputed(store, name="dense", spread=True)
    assert file.stat().st_mtime_ns == moment
    assert second.manifest.rows == first.manifest.rows


@pytest.mark.faults
def test_a_slide_that_crashes_each_worker_is_refused_by_name(store: StoragePath, tmp_path: Path) -> None:
    model, embeddings, reference = (
        resolve(store.uri, name, name.partition("/")[0]) for name in ("train/joint", "embed/toy", "index/toy")
    )
    options = predict_options(k=4)
    task = Crashing(model, embeddings, reference, None, None, options, {}, StoragePath.of(tmp_path))
    (receipt,) = map_slides(task, ["S3"], SlideResources(1, 0.1))
    assert receipt.rows == 0
    assert receipt.error.startswith("Slide 'S3' crashed 3 workers")


class Crashing(SlideTask):
    """A task that ends its process."""

    def make_worker(self) -> Any:
        return lambda _: os._exit(1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"genes": ["A", "Z"]}, "genes: unknown genes 'Z'; the model has 4 genes, such as A, B, C, D"),
        ({"genes": ["A", "A"]}, "a gene is named twice"),
        ({"output": "neighbours", "spread": True}, "stores no expression"),
        ({"index": None, "model": "train/toy", "output": "neighbours"}, "set `index`"),
        ({"neighbours": "impute/dense"}, "has no neighbours"),
        ({"k": "all", "output": "neighbours"}, "k=all has no list of neighbours"),
        ({"temperature": 0.2, "weights": "mean"}, "weights that have none; softmax, weighted_average have one"),
        ({"calibrate": True}, "the model has no calibration: train it with retrieval.calibrate=true"),
    ],
)
def test_an_impossible_config_is_refused_with_the_reason(
    store: StoragePath, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _imputed(store, name="wrong", **changed)


def test_a_damaged_shard_is_a_failure_that_names_the_file(store: StoragePath) -> None:
    file = resolve(store.uri, "index/toy", "index").path.local_path / "shard-00001.expression.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"?")
    artifact = _imputed(store, name="damaged")
    file.write_bytes(whole)
    (failure,) = artifact.failures().to_pylist()
    assert "shard-00001.expression.npy" in failure["reason"]
    assert json.loads((artifact.path / "manifest.json").read_bytes())["failures"] == 1
    assert PATIENTS[failure["slide"]] == "P3"
