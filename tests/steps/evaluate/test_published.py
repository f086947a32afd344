"""Predictions of all folds under a published protocol: scored as published, or refused with one sentence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, resolve
from raystp.errors import ConfigError
from raystp.evaluate.published.registry import PUBLISHED
from raystp.expression.labels import Labels
from raystp.expression.sections import load_counts
from raystp.models.store import save_model
from raystp.steps.evaluate import step as evaluate
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.published.folds import fold_of
from raystp.storage import StoragePath

GENES = ("A", "B", "C", "D")
PATIENTS = {"S1": "P1", "S4": "P1", "S2": "P2", "S3": "P3"}
FOLDS = {1: ("S1", "S4"), 2: ("S2",), 3: ("S3",)}
"""One patient is tested in each."""
HEST = {"labels": Labels(totals="none").record}


@pytest.fixture(autouse=True)
def _panels_of_four_genes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hest-readme", "st-benching-833", "mclstexp-785"):
        monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], panel_size=4))


def _artifact(store: StoragePath, step: str, name: str, **parts: Any) -> ArtifactWriter:
    path = store / step / f"{name}-0123456789ab"
    return ArtifactWriter(path, step, name, "0123456789ab", parts.get("inputs", {}), parts.get("config", {}))


def _fold(store: StoragePath, name: str, test: tuple[str, ...], *, genes: tuple[str, ...] = GENES, **meta: Any) -> str:
    """Leave a model that tests some sections and trains on all others, and its prediction: the right labels.

    Return the reference of the prediction.
    """
    kind, shown = meta.pop("kind", "gene_mean"), np.float32(meta.pop("shown", 1.0))
    train = _artifact(store, "train", name, config={"model": kind, **meta.pop("config", {})})
    record: dict[str, Any] = {
        "genes": list(genes),
        "d_image": 2,
        "train": [one for one in PATIENTS if one not in test],
        "validation": [],
        "test": list(test),
        **HEST,
        **meta,
    }
    save_model(train.path, kind, {"mean": np.zeros(len(genes))}, record)
    (train.path / "epochs.parquet").write_table(tables.of_rows([], tables.EPOCHS))
    model = train.finish({}, [], {})
    writer = _artifact(store, "impute", name, inputs={"model": model.manifest.folder})
    labels = Labels.of(record)
    for section in test:
        counts = load_counts(resolve(store.uri, "spots/toy", "spots"), section)
        columns = resolve(store.uri, "tile/toy", "tile").table(f"tiles/{section}.parquet", tables.TILES).to_pydict()
        expression = np.nan_to_num(counts.expression(genes, labels=labels)) * shown
        table = tables.of_columns([*columns.values(), tables.vectors(expression)], tables.predictions(len(genes)))
        (writer.path / "predictions" / f"{section}.parquet").write_table(table)
    writer.finish({}, [], {"slides": list(test), "protocol": "patient", "panel": "four"})
    return f"impute/{name}"


def _folds(store: StoragePath, name: str = "a", **meta: Any) -> list[str]:
    return [_fold(store, f"{name}-fold{number}", test, **meta) for number, test in FOLDS.items()]


def _scored(store: StoragePath, predictions: list[str], protocol: str = "hest-readme", **more: Any) -> Artifact:
    run = {"store": store.uri, "tracking": "none"}
    values = {"spots": "spots/toy", "predictions": predictions, "protocol": protocol, "run": run, **more}
    return evaluate.run(EvaluateConfig.of(values))


def test_right_predictions_of_all_folds_score_1_and_the_published_figures_stand_beside(toy_store: StoragePath) -> None:
    artifact = _scored(toy_store, _folds(toy_store))
    rows = artifact.table("scores.parquet", tables.SCORES).to_pylist()
    assert {(row["protocol"], row["panel"], row["model"]) for row in rows} == {("hest-readme", "four", "gene_mean")}
    assert {row["section"]: row["n"] for row in rows} == {"fold 1": 12, "fold 2": 6, "fold 3": 6, "mean": 24}
    assert [row["value"] for row in rows] == pytest.approx([1, 1, 1, 1])
    text = (artifact.path / "scores.txt").read_bytes().decode()
    assert "gene_mean  all   1.0000" in text
    assert "UNI2-h       mean of 9 tasks of hest-bench  0.4140" in text
    assert "secondary" in text
    page = (artifact.path / "report.html").read_bytes().decode()
    assert "UNI2-h, published" in page
    assert "gene_mean: PCC 1.000 under hest-readme" in page
    assert "published under this protocol: 0.325 (ResNet50, mean of 9 tasks of hest-bench) to 0.423" in page
    assert PUBLISHED["hest-readme"].leak in page
    assert "scikit-learn" in text


def test_figures_of_other_protocols_are_not_printed(toy_store: StoragePath) -> None:
    labels = Labels(log="log10", absent="zero").record
    artifact = _scored(toy_store, _folds(toy_store, labels=labels), "st-benching-833")
    text = (artifact.path / "scores.txt").read_bytes().decode()
    assert "0.0980" in text
    assert "UNI2-h" not in text
    assert "tests 4 sections; the figures are of data with 36" in text
    assert str(artifact.manifest.notes["summary"]).count("figures are of data with 36") == 1
    page = (artifact.path / "report.html").read_bytes().decode()
    assert "3 folds, sd 0.000; the figures published under this protocol are of other data" in page


def test_each_gene_has_its_pcc_in_each_fold(toy_store: StoragePath) -> None:
    lines = (_scored(toy_store, _folds(toy_store)).path / "genes.csv").read_bytes().decode().splitlines()
    assert lines[0] == "model,gene,fold1,fold2,fold3"
    assert [line.split(",")[1] for line in lines[1:]] == list(GENES)


def test_models_are_told_apart_by_their_names(toy_store: StoragePath) -> None:
    artifact = _scored(toy_store, [*_folds(toy_store, "a"), *_folds(toy_store, "b", kind="ridge")])
    assert {row["model"] for row in artifact.table("scores.parquet", tables.SCORES).to_pylist()} == {
        "gene_mean",
        "ridge",
    }


def test_without_a_protocol_the_fingerprint_is_as_before() -> None:
    config = EvaluateConfig.of({"spots": "spots/a", "predictions": ["impute/a"]})
    assert "protocol" not in config.fingerprint_values()
    assert EvaluateConfig.of({**config.manifest_values(), "protocol": "hest-paper"}).fingerprint_values()["protocol"]


def test_the_number_of_a_fold_is_at_the_end_of_the_name() -> None:
    assert fold_of("IDC-fold0") == ("IDC", 0)
    assert fold_of("a-fold2-fold10") == ("a-fold2", 10)
    assert fold_of("folded") == ("folded", 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"labels": {}},
            "hest-readme: gene_mean, fold 1, was trained on log1p of counts per 10,000 of all genes.*totals=none",
        ),
        ({"genes": ("A", "B")}, "the panel has 4 genes, and the models have 2"),
        ({"train": ["S1", "X"]}, r"knows 'X', and .*spots/toy.* does not: set `spots`"),
        ({"completed": {}}, "was trained on completed labels"),
        ({"bulk": {}}, "was trained on labels of whole cases"),
        ({"genes": ("A", "B", "C", "E")}, r"section 'S1' has not measured 1 of 4 genes of the panel \('E'\)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(toy_store: StoragePath, changes: dict[str, Any], sentence: str) -> None:
    predictions = _folds(toy_store, **changes)
    with pytest.raises(ConfigError, match=sentence):
        _scored(toy_store, predictions)


def test_the_protocols_own_method_with_other_options_is_another_protocol(toy_store: StoragePath) -> None:
    config = {"hest_ridge": {"pca": None, "alpha": "hest"}}
    predictions = _folds(toy_store, kind="hest_ridge", config=config)
    with pytest.raises(ConfigError, match=r"has hest_ridge\.pca=None, the protocol has 256"):
        _scored(toy_store, predictions)
    assert not PUBLISHED["hest-paper"].method["hest_ridge"]["pca"]


def test_a_missing_fold_is_named(toy_store: StoragePath) -> None:
    predictions = _folds(toy_store, labels=Labels(log="log10", absent="zero").record)
    with pytest.raises(ConfigError, match=r"gene_mean has no prediction of 1 of 3 folds.*'S2'"):
        _scored(toy_store, [predictions[0], predictions[2]], "st-benching-833")


def test_a_fold_that_trains_on_other_sections_is_refused(toy_store: StoragePath) -> None:
    labels = Labels(log="log10", absent="zero").record
    predictions = [
        _fold(toy_store, f"a-fold{n}", test, labels=labels, train=["S2"]) for n, test in FOLDS.items() if n == 1
    ]
    with pytest.raises(ConfigError, match="fold 1, trains on 1 sections, the protocol on 2: this one is without 'S3'"):
        _scored(toy_store, predictions, "st-benching-833")


def test_sections_that_the_protocol_leaves_out_are_refused(toy_store: StoragePath) -> None:
    labels = Labels(totals="panel", log="log10").record
    one = _fold(toy_store, "a-fold1", ("S1",), labels=labels)
    with pytest.raises(ConfigError, match="tests 'S1'; its folds test 'S2', 'S3', 'S4'"):
        _scored(toy_store, [one], "mclstexp-785")


def test_given_folds_must_not_leak_nor_overlap(toy_store: StoragePath) -> None:
    leak = _fold(toy_store, "leak-fold0", ("S1",))
    with pytest.raises(ConfigError, match="fold 0, has patient 'P1' on both sides"):
        _scored(toy_store, [leak])
    twice = [_fold(toy_store, f"twice-fold{number}", ("S3",)) for number in (0, 1)]
    with pytest.raises(ConfigError, match="several folds of gene_mean test 'S3'"):
        _scored(toy_store, twice)


def test_a_fold_given_twice_is_refused(toy_store: StoragePath) -> None:
    one = _fold(toy_store, "a-fold1", ("S3",))
    with pytest.raises(ConfigError, match="fold 1 of 'a' is given twice"):
        _scored(toy_store, [one, one])


def test_gene_sets_do_not_go_with_a_protocol() -> None:
    with pytest.raises(ConfigError, match="sets: protocol=hest-readme scores its own gene sets alone"):
        EvaluateConfig.of(
            {"spots": "spots/a", "predictions": ["impute/a"], "protocol": "hest-readme", "sets": {"PAM50": "/p.txt"}}
        )


def test_figures_of_the_same_sections_are_not_said_to_be_of_other_data(
    toy_store: StoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bleep-liver tests one of its four sections: the figures are of data with four."""
    monkeypatch.setitem(PUBLISHED, "bleep-liver", replace(PUBLISHED["bleep-liver"], panel=None, panel_size=4))
    one = _fold(toy_store, "a-fold1", ("S3",), labels={})
    text = (_scored(toy_store, [one], "bleep-liver").path / "scores.txt").read_bytes().decode()
    assert "0.2170" in text
    assert "do not compare" not in text


def test_given_folds_that_do_not_test_each_section_are_named(toy_store: StoragePath) -> None:
    text = (_scored(toy_store, _folds(toy_store)[:2]).path / "scores.txt").read_bytes().decode()
    assert "no fold tests 'S3'" in text


def test_two_models_of_one_name_are_refused(toy_store: StoragePath) -> None:
    folds = [*_folds(toy_store, "ridge"), *_folds(toy_store, "b"), *_folds(toy_store, "c", kind="ridge")]
    with pytest.raises(ConfigError, match="several models have the name 'ridge'"):
        _scored(toy_store, folds)


def test_a_panel_that_ties_made_larger_than_its_size_is_the_protocols(
    toy_store: StoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = replace(PUBLISHED["stem-200"], panel=lambda _: list(reversed(GENES)), panel_size=3)
    monkeypatch.setitem(PUBLISHED, "stem-200", rule)
    one = _fold(toy_store, "a-fold1", ("S2",), kind="ridge")
    artifact = _scored(toy_store, [one], "stem-200")
    rows = artifact.table("scores.parquet", tables.SCORES).to_pylist()
    assert [(row["metric"], row["genes"]) for row in rows if row["section"] == "mean"][:2] == [
        ("PCC", "top-10"),
        ("PCC", "top-50"),
    ]
    page = (artifact.path / "report.html").read_bytes().decode()
    assert "PCC top-10" in page
    monkeypatch.setitem(PUBLISHED, "stem-200", replace(rule, panel=lambda _: ["A", "B", "C", "E"]))
    with pytest.raises(ConfigError, match="the panel has 3 genes, and the models have 4"):
        _scored(toy_store, [one], "stem-200", name="other")


def test_a_report_shows_no_score_where_the_protocol_has_none(toy_store: StoragePath) -> None:
    """A prediction of 0 is constant: the mean over genes of the published script is NaN."""
    artifact = _scored(toy_store, [_fold(toy_store, "a-fold1", ("S3",), shown=0.0)])
    page = (artifact.path / "report.html").read_bytes().decode()
    assert "nan</td>" not in page
    assert "bootstrap 95 %" not in page
    assert "A constant gene has no PCC" in page
