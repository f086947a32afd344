"""Labels of another kind are the same in training, index, prediction, score and null; the default is as ever."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, resolve
from raystp.errors import ConfigError
from raystp.evaluate.protocols import protocol_of
from raystp.expression.labels import Labels
from raystp.expression.sections import ModelLabels, join_embeddings, load_counts
from raystp.models.store import load_model
from raystp.steps.complete.config import CompleteConfig
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.cases.outcomes import _check_scale
from raystp.steps.evaluate.predictions import open_models
from raystp.steps.evaluate.spots import null
from raystp.steps.evaluate.spots.controls import SECTION_MEAN, control_outcomes, planted_expression
from raystp.steps.evaluate.spots.outcomes import section_outcomes
from raystp.steps.impute.tiles import tile_table
from raystp.steps.index.work import PanelNames
from raystp.steps.publish import step as publish
from raystp.steps.publish.card import read_card
from raystp.steps.publish.published import open_published, put_into_store
from raystp.steps.train import step as train
from raystp.steps.train.retrieval import Retrieval
from raystp.steps.train.spots.completed import check_completed
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.steps.train.spots.plan import split_sections
from raystp.storage import StoragePath
from tests.steps.conftest import GENES, counts_of

KINDS = [
    {"totals": "none"},
    {"totals": "panel", "smooth": "array_3x3"},
    {"totals": "panel", "log": "log10"},
    {"log": "log10", "absent": "zero"},
]
LISTED = ["B", "nowhere", "D"]


def _config(store: StoragePath, **fields: Any) -> SpotsTrainConfig:
    given = {"model": "gene_mean", "spots": "spots/toy", "embeddings": "embed/toy", "panel": {"variable": 2}}
    run = {"store": store.uri, "tracking": "none"}
    return SpotsTrainConfig.of({**given, "split": {"train": ["S1", "S2"], "test": ["S3"]}, **fields, "run": run})


def _train(store: StoragePath, **fields: Any) -> Artifact:
    return train.run(_config(store, **fields))


def _predict(store: StoragePath, model: Artifact, name: str) -> Artifact:
    """Leave a prediction of slide S3: 0 at every tile."""
    inputs = {"model": model.manifest.folder, "embeddings": resolve(store.uri, "embed/toy", "embed").manifest.folder}
    writer = ArtifactWriter(store / "impute" / f"{name}-0123456789ab", "impute", name, "0123456789ab", inputs, {})
    columns = resolve(store.uri, "tile/toy", "tile").table("tiles/S3.parquet", tables.TILES).columns
    width = len(load_model(model.path)[2]["genes"])
    content = tables.of_columns([*columns, tables.vectors(np.zeros((6, width), np.float32))], tables.predictions(width))
    (writer.path / "predictions" / "S3.parquet").write_table(content)
    return writer.finish({}, [], {"slides": ["S3"], "protocol": "patient", "panel": "variable"})


def _by_hand(slide: str, genes: list[str], kind: dict[str, str]) -> np.ndarray:
    """Return a slide's labels, written independently: its six spots are a diagonal of the array."""
    counts = counts_of(slide)
    columns = [GENES.index(gene) for gene in genes]
    totals = {"none": 1e4, "panel": counts[:, columns].sum(axis=1), "all": counts.sum(axis=1)}[
        kind.get("totals", "all")
    ]
    values = counts[:, columns] / np.reshape(totals, (-1, 1)) * 1e4 + 1
    values = np.log10(values) if kind.get("log") == "log10" else np.log(values)
    if kind.get("smooth"):
        values = np.stack([values[max(0, spot - 1) : spot + 2].mean(axis=0) for spot in range(6)])
    return np.asarray(values)


@pytest.mark.parametrize("kind", KINDS[1::2], ids=str)
def test_training_index_score_and_null_have_the_labels_of_the_model(
    toy_store: StoragePath, kind: dict[str, str]
) -> None:
    model = _train(toy_store, labels=kind)
    _, arrays, meta = load_model(model.path)
    labels, genes = Labels.of(meta), meta["genes"]
    assert {key: meta["labels"][key] for key in kind} == kind
    assert meta["normalisation"] == labels.sentence
    expected = np.concatenate([_by_hand(slide, genes, kind) for slide in ("S1", "S2")])
    np.testing.assert_allclose(meta["training_mean"], expected.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(arrays["mean"], expected.mean(axis=0), rtol=1e-5)

    spots, embed = (resolve(toy_store.uri, f"{step}/toy", step) for step in ("spots", "embed"))
    table = PanelNames.of(meta).table(spots, embed, ["S1", "S2"])
    np.testing.assert_allclose(table.expression, expected, rtol=1e-5)

    (scored,) = open_models([_predict(toy_store, model, "a")], toy_store.uri)
    measured = {"S3": load_counts(spots, "S3")}
    outcome = section_outcomes(scored, measured)["S3"]
    np.testing.assert_allclose(outcome.measured, _by_hand("S3", genes, kind), rtol=1e-5)
    assert outcome.unit == labels.unit
    control = control_outcomes(spots, scored, measured, planted=None)[SECTION_MEAN]["S3"]
    np.testing.assert_allclose(control.predicted[0], outcome.measured.mean(axis=0), rtol=1e-5)

    task = null.SpotNullTask(model.path, spots.path, (embed.path,), ("S3",), 1, Retrieval(), seed=0)
    _, learned, held = null._data(task.model, task.spots, task.embed, task.test)
    np.testing.assert_array_equal(learned.expression, table.expression)
    np.testing.assert_array_equal(held.expression, outcome.measured)


def test_a_gene_that_no_section_measured_is_zero_or_missing(toy_store: StoragePath) -> None:
    spots = resolve(toy_store.uri, "spots/toy", "spots")
    counts = load_counts(spots, "S1")
    for absent, is_missing in (("missing", True), ("zero", False)):
        values = ModelLabels(tuple(LISTED), {}, Labels(absent=absent)).values(counts)  # type: ignore[arg-type]
        assert np.isnan(values[:, 1]).all() == is_missing
        np.testing.assert_allclose(values[:, [0, 2]], _by_hand("S1", ["B", "D"], {}), rtol=1e-5)
        assert is_missing or not values[:, 1].any()


def test_a_spot_without_a_tile_is_still_a_neighbour(toy_store: StoragePath) -> None:
    spots, embed = (resolve(toy_store.uri, f"{step}/toy", step) for step in ("spots", "embed"))
    for unit in embed.manifest.notes["units"]["S1"]:
        file = embed.path / "embeddings" / "S1" / f"{unit}.parquet"
        file.write_table(file.read_table().slice(1))
    joined = join_embeddings(load_counts(spots, "S1"), embed).counts
    labels = ModelLabels(("A", "B"), {}, Labels("panel", smooth="array_3x3"))
    expected = _by_hand("S1", ["A", "B"], {"totals": "panel", "smooth": "array_3x3"})
    assert joined.spots == ["s1", "s2", "s4", "s5"]
    np.testing.assert_allclose(labels.values(joined), expected[[1, 2, 4, 5]], rtol=1e-5)
    np.testing.assert_allclose(labels.values(joined.select([1, 3])), expected[[2, 5]], rtol=1e-5)


def test_measured_values_beside_some_genes_have_the_total_of_the_whole_panel(toy_store: StoragePath) -> None:
    spots, embed = (resolve(toy_store.uri, f"{step}/toy", step) for step in ("spots", "embed"))
    tiles = resolve(toy_store.uri, "tile/toy", "tile").table("tiles/S1.parquet", tables.TILES)
    labels = ModelLabels(("A", "B", "C"), {}, Labels("panel"))
    _, measured = tile_table("S1", tiles, ["B"], embeddings=embed, spots=spots, labels=labels)
    assert measured is not None
    np.testing.assert_allclose(measured.X, _by_hand("S1", ["A", "B", "C"], {"totals": "panel"})[:, [1]], rtol=1e-5)


def test_the_ground_truth_of_a_simulation_has_the_labels_of_the_model(toy_store: StoragePath, tmp_path: Path) -> None:
    counts = counts_of("S1")
    shares = counts / counts.sum(axis=1, keepdims=True)
    columns = {"spot": [f"s{spot}" for spot in range(6)], **{gene: shares[:, n] for n, gene in enumerate(GENES)}}
    StoragePath.of(tmp_path / "S1.parquet").write_table(pa.table(columns))
    measured = load_counts(resolve(toy_store.uri, "spots/toy", "spots"), "S1")
    for kind in ({}, *KINDS):
        found = planted_expression(str(tmp_path), measured, ModelLabels(("D", "A"), {}, Labels(**kind)))  # type: ignore[arg-type]
        np.testing.assert_allclose(found, _by_hand("S1", ["D", "A"], kind), rtol=1e-5)


def test_default_labels_are_in_no_fingerprint_and_others_are(toy_store: StoragePath) -> None:
    default, given = _config(toy_store), _config(toy_store, labels={"totals": "all"})
    assert "labels" not in default.fingerprint_values()
    assert default.fingerprint_values() == given.fingerprint_values()
    other = _config(toy_store, labels={"totals": "none"}).fingerprint_values()
    assert other.pop("labels") == Labels("none").record
    assert other == default.fingerprint_values()
    split = {"train": ["S1"]}
    complete = CompleteConfig.of({"spots": "spots/toy", "split": split, "run": {}})
    assert "labels" not in complete.fingerprint_values()


def test_predictions_of_other_labels_are_not_compared(toy_store: StoragePath) -> None:
    one = _predict(toy_store, _train(toy_store, name="one"), "a")
    two = _predict(toy_store, _train(toy_store, name="two", labels={"totals": "none"}), "b")
    with pytest.raises(
        ConfigError, match="one was trained on labels in log1p CP10k, two on log1p counts; run one eval"
    ):
        open_models([one, two], toy_store.uri)


def test_counts_of_cases_are_not_compared_with_labels_in_another_unit(toy_store: StoragePath) -> None:
    prediction = _predict(toy_store, _train(toy_store, name="one", labels={"totals": "none"}), "a")
    values: dict[str, Any] = {"targets": "cases", "predictions": ["impute/a"], "cases": {"table": "/none/t.csv"}}
    values["cases"]["scale"] = "counts"
    config = CasesEvaluateConfig.of({**values, "run": {"store": toy_store.uri}})
    with pytest.raises(ConfigError, match="gene_mean was trained on spots with labels in log1p counts: evaluate it on"):
        _check_scale(config, open_models([prediction], toy_store.uri))


def test_a_published_model_keeps_its_labels_and_its_card_names_them(toy_store: StoragePath, tmp_path: Path) -> None:
    _train(toy_store, name="one", labels={"totals": "none"}, model="hest_ridge")
    values = {"model": "train/one", "out": str(tmp_path / "out"), "run": {"store": toy_store.uri}}
    publish.run(publish.CONFIG.of(values))
    assert read_card(StoragePath.of(tmp_path / "out")).normalisation == "log1p of counts"
    meta = load_model(put_into_store(open_published(str(tmp_path / "out")), str(tmp_path / "other")).model.path)[2]
    assert Labels.of(meta) == Labels("none")
    assert meta["packages"] == {"scikit-learn": sklearn.__version__}


def test_an_ensemble_has_the_labels_of_its_members(toy_store: StoragePath) -> None:
    _train(toy_store, name="one", labels={"totals": "none"})
    _train(toy_store, name="other")
    run = {"store": toy_store.uri, "tracking": "none"}
    values: dict[str, Any] = {"model": "ensemble", "ensemble": {"members": ["train/one"]}, "run": run}
    assert Labels.of(load_model(train.run(train.CONFIG.of(values)).path)[2]) == Labels("none")
    with pytest.raises(ConfigError, match="labels: the members learned log1p counts, and the config has log1p CP10k"):
        train.run(train.CONFIG.of({**values, "labels": {"totals": "all"}}))
    values["ensemble"] = {"members": ["train/one", "train/other"]}
    with pytest.raises(ConfigError, match="the members differ in unit of expression"):
        train.run(train.CONFIG.of(values))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"labels": {"totals": "sum"}}, "labels.totals: Input should be 'all', 'panel' or 'none', got 'sum'"),
        ({"model": "attention", "labels": {"log": "log10"}}, "labels have log=log10: set bags.labels=mean_of_logs"),
        (
            {"labels": {"smooth": "array_3x3"}, "split": {"test": ["S3"], "validation_block": 0.2}},
            "averages over neighbours, so that spots at the border",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(toy_store: StoragePath, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _config(toy_store, **fields)


def test_a_completion_has_the_labels_of_the_training(toy_store: StoragePath) -> None:
    spots = resolve(toy_store.uri, "spots/toy", "spots")
    writer = ArtifactWriter(toy_store / "complete" / "c-0", "complete", "c", "0", {"spots": spots.manifest.folder}, {})
    made = writer.finish({}, [], {"patients": {"S1": "P1"}, "labels": Labels("none").record})
    config, protocol = _config(toy_store), protocol_of("patient")
    split = split_sections(config, spots, resolve(toy_store.uri, "embed/toy", "embed"), protocol)
    with pytest.raises(ConfigError, match="has labels in log1p counts, and the training has log1p CP10k"):
        check_completed(made, spots, split, protocol, labels=config.labels)
    with pytest.raises(ConfigError, match="labels have smooth=array_3x3: only totals=all or none, and log, may be set"):
        CompleteConfig.of({"spots": "a", "split": {"train": ["S1"]}, "labels": {"smooth": "array_3x3"}, "run": {}})
