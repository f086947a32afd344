"""Archives: everything that an earlier raystp stored is still read, or refused with a known message.

`python tests/archives/make.py tests/archives/v1` wrote version 1, once, with everything that was stored then. A new
version of a stored format gets its own archive beside it and its own tests here. The tests of a version stay; if a
version is refused later, they check the message.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raystp import tables
from raystp.artifacts import open_artifact
from raystp.expression.schema import read_h5ad, read_section, section_info
from raystp.impute.neighbours import rows_and_weights
from raystp.index.open import open_reference_index
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.methods import open_predictor
from raystp.models.predictor import ContrastivePredictor, DirectPredictor
from raystp.models.store import load_model, load_state
from raystp.models.training.fit import TrainState
from raystp.models.training.options import FitOptions
from raystp.storage import StoragePath

V1 = StoragePath.of(Path(__file__).parent / "archives" / "v1")
V2 = StoragePath.of(Path(__file__).parent / "archives" / "v2")
V3 = StoragePath.of(Path(__file__).parent / "archives" / "v3")
"""Formats added later: reference indexes of version 2, each with its description, and a table of neighbours."""
V4 = StoragePath.of(Path(__file__).parent / "archives" / "v4")
"""A table of several sizes of tiles."""
LARGEST = 200_000
EXPRESSION = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_archive_is_tiny() -> None:
    sizes = {path: path.stat().st_size for path in V1.local_path.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < LARGEST


def test_manifest_of_version_1() -> None:
    manifest = open_artifact(V1, "tile").manifest
    assert (manifest.schema_version, manifest.folder) == (1, "tile/archive-0123456789ab")
    assert (manifest.inputs, manifest.config) == ({"slides": "ff00"}, {"side": 112.0})
    assert (manifest.rows, manifest.failures) == ({"slides": 1, "tiles": 2}, 1)
    assert manifest.notes["pixels"] == 224
    assert manifest.packages["raystp"]
    assert manifest.created < "2100"


ROWS: dict[str, tuple[pa.Schema, list[object]]] = {
    "failures.parquet": (tables.FAILURES, ["S3", "tile", "no slide"]),
    "epochs.parquet": (tables.EPOCHS, [0, 2.5, None, 0.25, 1.0]),
    "slides.parquet": (tables.SLIDES, ["S1", "/data/S1.svs", "P1", "00ff", 0.5, "slide", 64, 32, True, 0.5, 2]),
    "scores.parquet": (
        tables.SCORES,
        ["patient", "p", "ridge", "S1", "all", "PCC", 0.5, 0.25, 0.75, 0.0, None, 0, 2],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_tables_of_version_1(name: str) -> None:
    schema, row = ROWS[name]
    table = open_artifact(V1, "tile").table(name, schema)
    assert [list(one.values()) for one in table.to_pylist()] == [row]


def test_table_of_scales_of_version_1() -> None:
    table = (V4 / "scales.parquet").read_table()
    tables.check(table.schema, tables.SCALES, "scales.parquet")
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert rows == [(0, 16.0, 8.0, 4.0, 32.0), (0, 40.0, -16.0, -20.0, 80.0)]


TILES = [("S1", 0, 0.0, 8.0, 4.0, "s0"), ("S1", 1, 4.0, 8.0, 4.0, None)]


@pytest.mark.parametrize(
    ("name", "schema", "values"),
    [
        ("tiles.parquet", tables.TILES, None),
        ("embeddings-float32.parquet", tables.embeddings(3), "vector"),
        ("embeddings-float16.parquet", tables.embeddings(3, precision="float16"), "vector"),
        ("predictions.parquet", tables.predictions(3), "expression"),
    ],
)
def test_tables_of_tiles_of_version_1(name: str, schema: pa.Schema, values: str | None) -> None:
    table = open_artifact(V1, "tile").table(name, schema)
    assert [tuple(one.values()) for one in table.select(tables.TILES.names).to_pylist()] == TILES
    if values is not None:
        np.testing.assert_array_equal(tables.matrix(table[values]), EXPRESSION)


def test_section_of_version_1() -> None:
    section = read_section(V1 / "section.h5ad")
    np.testing.assert_array_equal(section.X.toarray(), EXPRESSION + 1)
    np.testing.assert_array_equal(section.obsm["spatial"], [[2, 10], [6, 10]])
    assert ([*section.obs_names], [*section.var_names]) == (["s0", "s1"], ["A", "B", "C"])
    whose = section_info(section)
    assert (whose.section, whose.patient, whose.slide, whose.mpp) == ("S1", "P1", "S1", 0.5)


def test_prediction_of_version_1() -> None:
    prediction = read_h5ad(V1 / "prediction.h5ad")
    np.testing.assert_array_equal(prediction.X, EXPRESSION)
    assert prediction.uns["raystp"] == {"model": "m", "schema_version": 1}
    library = prediction.uns["spatial"]["S1"]
    assert library["images"]["hires"].shape == (2, 4, 3)
    assert library["scalefactors"] == {"spot_diameter_fullres": 110.0, "tissue_hires_scalef": 0.0625}


def test_models_of_version_1() -> None:
    mean = open_predictor(*load_model(V1 / "gene_mean"))
    assert isinstance(mean, DirectPredictor)
    np.testing.assert_array_equal(mean.predict(np.zeros((1, 2), np.float32)), [[1.5, 2.5, 3.5]])
    bleep = open_predictor(*load_model(V1 / "bleep"))
    assert isinstance(bleep, ContrastivePredictor)
    assert bleep.embed_spots(EXPRESSION).shape == (2, 4)
    assert bleep.embed_images(EXPRESSION[:, :2]).shape == (2, 4)


def test_checkpoint_of_version_1() -> None:
    model = seeded_bleep(2, 3, BleepOptions(dim=4), seed=1)
    training = TrainState.start(model, model.loss, FitOptions())
    load_state(V1 / "checkpoint", training)
    assert (training.epoch, training.best_epoch, training.best_value) == (1, 0, -0.5)
    assert training.best.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(training.best[name], value)
    moments = training.optimizer.state_dict()["state"]
    assert len(moments) == len(list(model.parameters()))
    assert float(moments[0]["step"]) == 1


def test_index_of_version_1() -> None:
    index = open_reference_index(V1 / "bank", open_artifact(V1, "tile").manifest.notes["bank"])
    assert (index.metric, index.genes, index.rows["spot"].to_pylist()) == ("l2", ["A", "B", "C"], ["s0", "s1"])
    _, rows = index.search(EXPRESSION[:, :2], 2)
    assert rows.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_array_equal(index.expression(np.array([1, 0])), EXPRESSION[::-1])


@pytest.mark.parametrize("name", ["bank-float32", "bank-float16", "bank-csr", "bank-csr16", "bank-ivf"])
def test_index_of_version_2(name: str) -> None:
    index = open_reference_index(V2 / name, json.loads((V2 / f"{name}.json").read_bytes()))
    assert (index.metric, index.genes, index.rows["slide"].to_pylist()) == ("l2", ["A", "B", "C"], ["S", "S"])
    _, rows = index.search(EXPRESSION[:, :2], 2)
    assert rows.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_array_equal(index.expression(np.array([1, 0])), EXPRESSION[::-1])


def test_index_of_version_3() -> None:
    index = open_reference_index(V3 / "bank", json.loads((V3 / "bank.json").read_bytes()))
    known = np.array([[0, 1, 2], [3, 4, np.nan]], np.float32)
    np.testing.assert_array_equal(index.expression(np.array([0, 1])), known)
    half = np.full((1, 2), 0.5, np.float32)
    np.testing.assert_array_equal(index.weighted_mean(half, np.array([[0, 1]])), [[1.5, 2.5, 2.0]])


def test_neighbours_of_version_1() -> None:
    rows, weights = rows_and_weights((V2 / "neighbours.parquet").read_table())
    assert (rows.tolist(), weights.tolist()) == ([[1, 0]], [[0.75, 0.25]])


FILES = {
    "bank/rows.parquet": "5060cab2eb92",
    "bank/shard-00000.expression.npy": "622407d9b56a",
    "bank/shard-00000.faiss": "7c9461eb0221",
    "bank/shard-00001.expression.npy": "d3ec912bc979",
    "bank/shard-00001.faiss": "9c0a9e8a755a",
    "bleep/model.json": "666ee8b8b6a2",
    "bleep/model.safetensors": "b0c24f69316f",
    "checkpoint/state.json": "e39bff6103e5",
    "checkpoint/state.safetensors": "03a02f64ad4e",
    "embeddings-float16.parquet": "6264a08a4090",
    "embeddings-float32.parquet": "ddcfea47ba15",
    "epochs.parquet": "848814b7dd92",
    "failures.parquet": "176a4d174aa9",
    "gene_mean/model.json": "3c28ef4f92d7",
    "gene_mean/model.safetensors": "fd86819a23ae",
    "manifest.json": "42d4c0898058",
    "prediction.h5ad": "ae406db1a1ea",
    "predictions.parquet": "a4bd8cd10a89",
    "scores.parquet": "52cf926ce486",
    "section.h5ad": "48a32c8b6438",
    "slides.parquet": "eeee7a252b1d",
    "tiles.parquet": "76a33612d2ac",
}
"""File -> the first digits of its sha256."""


def test_the_archive_of_version_1_is_the_one_that_was_written() -> None:
    files = sorted(path for path in V1.local_path.rglob("*") if path.is_file())
    found = {str(path.relative_to(V1.local_path)): hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in files}
    assert found == FILES
