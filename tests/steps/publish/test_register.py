"""A registered model is a published folder and a few lines of code, and predicts the same numbers through MLflow."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient

from raystp.artifacts import Artifact, resolve
from raystp.cluster.tracking.registry import save_model
from raystp.errors import ConfigError, LeakError, ModelError, Unfinished
from raystp.impute.imputer import NeighborImputer
from raystp.index.open import open_reference_index
from raystp.models.methods import open_predictor
from raystp.models.store import load_model
from raystp.steps.publish import step as publish
from raystp.steps.publish.published import open_published
from raystp.steps.publish.register import as_registered
from raystp.steps.publish.tile_table import TileTableModel, open_tile_table
from raystp.storage import StoragePath
from tests.cluster.conftest import free_port, mlflow_port
from tests.steps.conftest import GENES
from tests.steps.publish.published import PATIENTS, SLIDES, add_index

__all__ = ["mlflow_port"]

TILES, WIDTH = 20, 2


def _publish(store: StoragePath, out: Path, **fields: Any) -> str:
    run = {"store": store.uri, **fields.pop("run", {})}
    values = {"model": "train/joint", "index": "index/joint", "out": str(out), "licence": "CC-BY-4.0", **fields}
    return publish.run(publish.CONFIG.of({**values, "run": run}))


def _table(**columns: Any) -> pd.DataFrame:
    vectors = np.random.default_rng(1).standard_normal((TILES, WIDTH)).astype(np.float32)
    return pd.DataFrame({"vector": list(vectors), **columns})


def _expected(artifacts: tuple[Artifact, Artifact], table: pd.DataFrame) -> np.ndarray:
    """Return the prediction of the model and index in the store, from neighbours found there."""
    model = open_predictor(*load_model(artifacts[0].path))
    index = open_reference_index(artifacts[1].path, artifacts[1].manifest.notes["bank"])
    imputer = NeighborImputer(model, index)  # type: ignore[arg-type]  # a contrastive model
    expression: np.ndarray = imputer.impute(np.stack(table["vector"].tolist()), 50).expression
    return expression


@pytest.fixture
def artifacts(toy_store: StoragePath) -> tuple[Artifact, Artifact]:
    return add_index(toy_store)


@pytest.fixture
def opened(toy_store: StoragePath, artifacts: tuple[Artifact, Artifact], tmp_path: Path) -> TileTableModel:
    assert artifacts
    _publish(toy_store, tmp_path / "published")
    return open_tile_table(tmp_path / "published")


LOAD = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
found = model.predict(pandas.DataFrame({"vector": json.load(sys.stdin)}), params={"genes": ["D", "A"]})
print(json.dumps({"columns": found.columns.tolist(), "values": found.to_numpy().astype(float).tolist()}))
"""


def test_mlflow_loads_the_folder_from_code_and_tensors_and_unpickles_nothing(
    toy_store: StoragePath,
    artifacts: tuple[Artifact, Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, table = tmp_path / "published", _table(spot="extra columns are ignored")
    _publish(toy_store, out)
    (out / "README.md").write_text("not of the card")
    save_model(tmp_path / "model", as_registered(open_published(str(out)), "toy"))
    _check_files(tmp_path / "model", out)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    found = model.predict(table)
    assert found.columns.tolist() == GENES
    np.testing.assert_allclose(found, _expected(artifacts, table), atol=1e-6)
    np.testing.assert_array_equal(model.predict(table, params={"genes": ["D"]})["D"], found["D"])
    inputs = {one.name: one.required for one in model.metadata.signature.inputs}
    assert inputs == {"vector": True} | dict.fromkeys(("slide", "x", "y", "side", "patient"), False)


@pytest.mark.slow
def test_a_folder_is_one_version_however_often_it_is_registered(
    toy_store: StoragePath, artifacts: tuple[Artifact, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    out, uri = tmp_path / "published", f"sqlite:///{toy_store.local_path}/mlflow.db"
    loads = "mlflow.pyfunc.load_model('models:/toy-her2st/{}')"
    assert _publish(toy_store, out, register_as="toy-her2st").endswith(f"\nregistered in MLflow: {loads.format(1)}")
    assert _publish(toy_store, out, register_as="toy-her2st").endswith(f"\nregistered before: {loads.format(1)}")
    other = _publish(toy_store, tmp_path / "other", register_as="toy-her2st", licence="MIT")
    assert other.endswith(f"\nregistered in MLflow: {loads.format(2)}")
    assert list(Path().iterdir()) == []  # MLflow's own default would be a database here
    client = MlflowClient(uri, uri)
    version = client.get_model_version("toy-her2st", "1")
    assert version.tags["raystp.licence"] == "CC-BY-4.0"
    assert "Protocol patient" in str(version.description)
    assert client.get_run(str(version.run_id)).data.tags["raystp.artifact"] == artifacts[0].manifest.folder


@pytest.mark.faults
def test_a_model_of_a_server_predicts_the_same_numbers_in_a_fresh_process(
    toy_store: StoragePath, artifacts: tuple[Artifact, Artifact], tmp_path: Path, mlflow_port: int
) -> None:
    table, uri = _table(), f"http://127.0.0.1:{mlflow_port}"
    sentence = _publish(toy_store, tmp_path / "published", register_as="toy", run={"tracking": uri})
    assert "'models:/toy/1'" in sentence
    done = subprocess.run(
        [sys.executable, "-c", LOAD, uri, "models:/toy/1"],
        input=json.dumps(np.stack(table["vector"].tolist()).tolist()),
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["columns"] == ["D", "A"]
    np.testing.assert_allclose(found["values"], _expected(artifacts, table)[:, [3, 0]], atol=1e-6)


def _check_files(folder: Path, published: Path) -> None:
    """Check that the model is text, safetensors and arrays, and that the published files are as they were."""
    flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    assert Path(flavor["model_code_path"]).name == "raystp_model.py"
    assert "python_model" not in flavor
    own = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    copied = {name for name in own if name.startswith("artifacts/published/")}
    assert own - copied == {"MLmodel", "conda.yaml", "python_env.yaml", "raystp_model.py", "requirements.txt"}
    assert {Path(name).suffix for name in copied} == {".json", ".npy", ".parquet", ".safetensors"}
    given = {f"artifacts/published/{path.relative_to(published)}" for path in published.rglob("*") if path.is_file()}
    assert copied == given - {"artifacts/published/README.md"}
    for name in copied:
        assert (folder / name).read_bytes() == (published / name.removeprefix("artifacts/published/")).read_bytes()
    for path in folder.rglob("*.npy"):
        np.load(path, allow_pickle=False)


def test_a_table_gives_what_model_and_index_of_the_store_give_in_the_order_of_its_rows(
    opened: TileTableModel, artifacts: tuple[Artifact, Artifact]
) -> None:
    table = _table(slide=["S8", "S9"] * (TILES // 2))
    expected = _expected(artifacts, table)
    table.index = pd.Index([f"tile {number}" for number in range(TILES)])
    found = opened(table, {})
    assert found.columns.tolist() == GENES
    assert found.index.equals(table.index)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(opened(table, {"genes": ["C"]})["C"], found["C"])
    assert opened(table.iloc[:0], {}).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda table: table.drop(columns="vector"), {}, "the table has no column 'vector'; this model reads 'vector'"),
        (
            lambda table: table.assign(vector=[[1.0]] * TILES),
            {},
            r"reads 2 values a tile, and row 0 has the shape \(1,\)",
        ),
        (lambda table: table.assign(vector=[[np.nan, 1.0]] * TILES), {}, "nan or infinity"),
        (lambda table: table, {"genes": ["A", "Z"]}, "joint does not predict 'Z'; it has 4 genes"),
        (lambda table: table, {"genes": ["A", "A"]}, "a gene is named twice"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    opened: TileTableModel,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    params: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ModelError, match=message):
        opened(change(_table()), params)


def test_slides_and_patients_of_the_training_are_refused_by_name(opened: TileTableModel) -> None:
    with pytest.raises(LeakError, match="Protocol 'patient' refuses that"):
        opened(_table(patient=[PATIENTS[0]] * TILES), {})
    with pytest.raises(LeakError, match="was built from 'slide-ALPHA'"):
        opened(_table(slide=[SLIDES[0]] * TILES), {"protocol": "section"})
    assert opened(_table(patient=[PATIENTS[0]] * TILES), {"protocol": "section"}).shape == (TILES, 4)


def test_a_model_that_reads_the_tiles_around_needs_their_places(opened: TileTableModel) -> None:
    model = replace(opened, neighbour_counts=(1,))
    with pytest.raises(ModelError, match="has no column 'slide', 'x', 'y', 'side'"):
        model(_table(), {})


def test_a_server_that_is_away_leaves_the_folder_and_says_what_to_repeat(
    toy_store: StoragePath, artifacts: tuple[Artifact, Artifact], tmp_path: Path
) -> None:
    assert resolve(toy_store.uri, "train/joint", "train").manifest == artifacts[0].manifest
    away = {"tracking": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(Unfinished, match="the folder is written, and MLflow did not register it as 'toy'"):
        _publish(toy_store, tmp_path / "published", register_as="toy", run=away)
    assert (tmp_path / "published" / "card.json").exists()
    with pytest.raises(ConfigError, match=r"run\.tracking is `none`"):
        _publish(toy_store, tmp_path / "none", register_as="toy", run={"tracking": "none"})
    assert not (tmp_path / "none").exists()
