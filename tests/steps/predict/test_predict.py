"""predict: a published model in another store gives the numbers of impute; failures are rows; nothing is done twice."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from raystp import cli
from raystp.artifacts import resolve
from raystp.cli import result
from raystp.errors import ConfigError, EncoderError, RaystpError
from raystp.expression.sections import embeddings_of
from raystp.impute.hashed_names import hash_name
from raystp.impute.selection import KnownPatients
from raystp.steps.predict import step as predict
from raystp.steps.predict.config import PredictConfig
from raystp.steps.predict.model import open_model
from raystp.steps.publish import step as publish
from raystp.steps.publish.tile_table import open_tile_table
from raystp.storage import StoragePath
from tests.steps.publish.published import add_index


def _config(**values: Any) -> PredictConfig:
    return predict.CONFIG.of({"slides": "slides.csv", "model": "train/joint", **values})


@pytest.mark.ray
def test_a_published_model_in_another_store_gives_the_numbers_of_impute(smoke_store: Path, tmp_path: Path) -> None:
    folder, out, store = tmp_path / "published", tmp_path / "out", tmp_path / "store"
    sources = {"model": "train/smoke-bleep", "index": "index/smoke-bleep", "scores": "evaluate/smoke"}
    publish.run(publish.CONFIG.of({**sources, "out": str(folder), "run": {"store": str(smoke_store)}}))
    cohort = resolve(str(smoke_store), "demo/smoke", "demo").path.local_path
    lines = ["slide,path,patient", *(f"{one},{cohort}/slides/{one}.svs,{one}" for one in ("patient-A", "unmeasured"))]
    (tmp_path / "slides.csv").write_text("\n".join([*lines, "absent,absent.svs,X"]))
    words = [
        f"slides={tmp_path / 'slides.csv'}",
        f"model={folder}",
        f"out={out}",
        f"run.store={store}",
        "impute.k=20",
        "impute.spread=true",
    ]
    arguments = ["predict", *(word for one in words for word in ("--set", one))]
    assert cli.main(arguments) == result.INCOMPLETE
    expected = resolve(str(smoke_store), "impute/smoke-bleep", "impute").path.local_path / "anndata" / "unmeasured.h5ad"
    own, other = ad.read_h5ad(expected), ad.read_h5ad(out / "unmeasured.h5ad")
    np.testing.assert_array_equal(other.X, own.X)
    np.testing.assert_array_equal(other.layers["spread"], own.layers["spread"])
    np.testing.assert_array_equal(other.obsm["spatial"], own.obsm["spatial"])
    np.testing.assert_array_equal(other.obs["far"], own.obs["far"])
    assert other.var_names.tolist() == own.var_names.tolist()
    rows = {row["slide"]: row for row in csv.DictReader((out / "slides.csv").read_text().splitlines())}
    assert (rows["unmeasured"]["encoder"], rows["unmeasured"]["tiles"]) == ("tiny", str(own.n_obs))
    assert float(rows["unmeasured"]["far_share"]) == pytest.approx(own.obs["far"].mean(), abs=1e-6)
    assert "protocol 'patient' refuses that" in rows["patient-A"]["problem"]
    assert "absent.svs" in rows["absent"]["problem"]
    assert [rows[name]["tiles"] for name in ("patient-A", "absent")] == ["0", "0"]
    summary = (out / "summary.md").read_text()
    assert "1 of 3 slides" in summary
    assert "Measured by its makers: PCC " in summary
    tiles = embeddings_of(resolve(str(store), "embed/default", "embed"), "unmeasured").to_pandas()
    of_table = replace(open_tile_table(folder), k=20)(tiles, {})
    np.testing.assert_allclose(of_table, own.X, atol=1e-6)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5ad")}
    assert cli.main(arguments) == result.INCOMPLETE
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5ad")} == made


def test_hashed_names_hide_names_and_find_leaks() -> None:
    hashes = {name: hash_name(name, "salt") for name in ("P1", "P2", "S1")}
    known = KnownPatients(frozenset({hashes["P1"]}), frozenset({hashes["S1"]}), frozenset({hashes["P2"]}))
    found = known.among({"S1": "P1", "S9": "P9", "S2": "P2"}, "salt")
    assert found == KnownPatients(frozenset({"P1"}), frozenset({"S1"}), frozenset({"P2"}))
    assert known.among({"S1": "P1"}, "pepper") == KnownPatients(frozenset(), frozenset())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile": {"tile_um": 64}}, "tile: `tile_um` is decided by the model or by a field of predict itself"),
        ({"impute": {"genes": ["A"]}}, "impute: `genes` is decided"),
        ({"embed": {"encoder": {"name": "tiny"}}}, "embed: `encoder` is decided"),
    ],
)
def test_a_field_that_the_model_decides_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _config(**values)


def test_genes_are_a_list_or_separated_by_commas() -> None:
    assert _config(genes="ERBB2, GNAS").genes == _config(genes=["ERBB2", "GNAS"]).genes
    loaded = PredictConfig.load(None, ["slides=a.csv", "model=train/a", "genes=ERBB2,GNAS"])
    assert loaded.genes == ["ERBB2", "GNAS"]


def test_a_submitted_job_accepts_a_model_of_the_hub() -> None:
    config = _config(slides="/data/slides.csv", model="hf-hub:lab/model", run={"store": "/data/store"})
    config.check_absolute()
    with pytest.raises(ConfigError, match="model: 'published' is relative"):
        config.model_copy(update={"model": "published"}).check_absolute()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "{published}", "index": "index/joint"}, "is published with its own index; remove `index`"),
        ({"index": None}, "answers from a reference index"),
        ({"model": "{published}", "weights": ["a.safetensors", "b.safetensors"]}, "reads 1 encoders .* got 2 files"),
        ({"model": "{published}", "genes": ["A", "Z"]}, "joint does not predict 'Z'; it has 4 genes, 'A', 'B'"),
        ({"model": "{published}", "genes": ["A", "A"]}, "genes: a gene is named twice"),
        ({"model": "{published}", "impute": {"calibrate": True}}, "calibrate: the model has no calibration"),
        ({"model": "{published}", "impute": {"weights": "mean", "temperature": 2.0}}, "temperature"),
        ({"model": "/none"}, "/none does not exist"),
        ({"model": "{published}/card.json"}, "card.json is the card of a published model: give its folder"),
        ({"model": "{published}/index"}, "index has neither card.json, as a published model, nor manifest.json"),
        ({"model": "{published}", "out": "/proc/out"}, "the output /proc/out is not writable: .* --set out="),
        ({"model": "{published}", "out": "{published}/card.json"}, "the output .*card.json is not writable"),
    ],
)
def test_an_impossible_prediction_is_refused_before_any_slide_is_read(
    toy_store: StoragePath, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    add_index(toy_store)
    published = tmp_path / "published"
    publish.run(
        publish.CONFIG.of(
            {"model": "train/joint", "index": "index/joint", "out": str(published), "run": {"store": toy_store.uri}}
        )
    )
    given = {"index": "index/joint"} if values.get("model") is None else {}
    texts = {key: value.format(published=published) for key, value in values.items() if isinstance(value, str)}
    named = {**values, "model": "train/joint", **texts}
    with pytest.raises(RaystpError, match=message):
        predict.run(_config(**{**given, **named}, run={"store": toy_store.uri}))
    assert not (toy_store / "predict").exists()


def test_rows_of_a_published_index_can_be_excluded(toy_store: StoragePath, tmp_path: Path) -> None:
    add_index(toy_store)
    values = {"model": "train/joint", "index": "index/joint", "out": str(tmp_path / "published")}
    publish.run(publish.CONFIG.of({**values, "run": {"store": toy_store.uri}}))
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.svs").write_bytes(b"x")
    given = {"slides": str(tmp_path / "slides"), "model": str(tmp_path / "published"), "run": {"store": toy_store.uri}}
    assert list(predict.plan(_config(**given, impute={"without": {"patient": ["P"]}})))


def test_weights_that_are_not_found_or_are_others_are_named(toy_store: StoragePath, tmp_path: Path) -> None:
    add_index(toy_store)
    published = tmp_path / "published"
    values = {"model": "train/joint", "index": "index/joint", "out": str(published)}
    publish.run(publish.CONFIG.of({**values, "run": {"store": toy_store.uri}}))
    (card := published / "card.json").write_text(
        card.read_text().replace('"encoder": "tiny"', '"encoder": "mobilenet_v1_pw12"').replace("seed:0", "a" * 64)
    )
    with pytest.raises(
        EncoderError, match=r"model joint reads mobilenet_v1_pw12 .* has no weights file.*Set `weights`"
    ):
        open_model(_config(model=str(published), run={"store": str(tmp_path / "store")}))
    (tmp_path / "other.safetensors").write_bytes(b"x")
    with pytest.raises(EncoderError, match=r"expected aaaa.*Set `weights`"):
        open_model(
            _config(
                model=str(published),
                weights=str(tmp_path / "other.safetensors"),
                run={"store": str(tmp_path / "store")},
            )
        )
