"""Forbidden training and prediction: refused before any work, with both sides named, and no file is written."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError, LeakError, ModelError, PanelError
from raystp.steps.impute import step as impute
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from raystp.storage import StoragePath

Finish = Callable[[StoragePath, str, str, Mapping[str, Any]], Artifact]


def _files(store: StoragePath) -> list[str]:
    """Return every file in a store."""
    return sorted(str(path.relative_to(store.local_path)) for path in store.local_path.rglob("*") if path.is_file())


# ---- training


def _train(store: StoragePath, **fields: Any) -> TrainConfig:
    given = {"model": "ridge", "spots": "spots/toy", "embeddings": "embed/toy", "split": {"test": ["P1"]}}
    return train.CONFIG.of({**given, "panel": {"variable": 2}, **fields, "run": {"store": store.uri}})


def test_a_split_that_leaks_a_patient_is_refused_and_both_sides_are_named(toy_store: StoragePath) -> None:
    before = _files(toy_store)
    with pytest.raises(LeakError) as caught:
        train.run(_train(toy_store, split={"test": ["S4"]}))
    assert str(caught.value) == (
        "patient 'P1' is on both sides: 'S1' train or validate, 'S4' test; move them to one side, or use the protocol "
        "`section`, which is printed with every score"
    )
    with pytest.raises(LeakError, match="patient 'P1' is on both sides: 'S1' train or validate, 'S4' test"):
        train.run(_train(toy_store, split={"test": ["S4"], "validation": ["S1"], "train": ["P2", "S3"]}))
    assert _files(toy_store) == before


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"test": ["P9"]}, "no section 'P9'; there are 'S1', 'S2', 'S3', 'S4'"),
        ({"test": ["P1"], "validation": ["S1"]}, "sections 'S1' are listed twice: a section is on one side"),
        ({"test": ["P1", "P2", "P3"]}, "no section is left to train on: of 4, 4 test and 0 validate"),
        ({"test": ["P1"], "protocol": "sections"}, "unknown protocol 'sections'; choose from patient, section"),
    ],
)
def test_an_impossible_split_is_refused_with_the_reason(
    toy_store: StoragePath, split: dict[str, Any], message: str
) -> None:
    before = _files(toy_store)
    with pytest.raises(ConfigError, match=message):
        train.run(_train(toy_store, split=split))
    assert _files(toy_store) == before


def test_a_panel_with_absent_genes_is_refused_by_name(toy_store: StoragePath, tmp_path: Path) -> None:
    (tmp_path / "panel.txt").write_text("A\nB\nZ\n")
    before = _files(toy_store)
    with pytest.raises(
        PanelError, match=r"1 of 3 genes of the panel are in no training section: 'Z'; set panel.absent=drop"
    ):
        train.run(_train(toy_store, panel={"file": str(tmp_path / "panel.txt")}))
    with pytest.raises(PanelError, match=r"9 variable genes were requested; 4 of 4 are in at least 10% of the spots"):
        train.run(_train(toy_store, panel={"variable": 9}))
    assert _files(toy_store) == before


def test_images_from_two_sources_or_from_none_are_refused(toy_store: StoragePath) -> None:
    for fields in ({"embeddings": None}, {"tiles": "tile/toy", "encoder": {}}):
        with pytest.raises(ConfigError, match=r"set either `embeddings` .* or `tiles` with `encoder`"):
            train.run(_train(toy_store, **fields))


# ---- prediction


def _impute(store: StoragePath, **fields: Any) -> ImputeConfig:
    given = {"embeddings": "embed/toy", "model": "train/toy"}
    return impute.CONFIG.of({**given, **fields, "run": {"store": store.uri}})


def test_a_training_patients_other_slide_is_refused_unless_the_protocol_allows_it(toy_store: StoragePath) -> None:
    before = _files(toy_store)
    with pytest.raises(LeakError) as caught:
        impute.run(_impute(toy_store, slides=["S3", "S4"]))
    message = str(caught.value)
    assert "own patient 'P1': their predictions would come from their own data. Protocol 'patient' refuses" in message
    assert "use a protocol with `same_patient: allow`, such as `section`" in message
    assert _files(toy_store) == before


@pytest.mark.parametrize("protocol", ["patient", "section"])
def test_a_training_slide_is_predicted_under_no_protocol(toy_store: StoragePath, protocol: str) -> None:
    before = _files(toy_store)
    with pytest.raises(LeakError, match="the model or its index was built from 'S1'; no protocol allows"):
        impute.run(_impute(toy_store, slides=["S1", "S3"], protocol=protocol))
    assert _files(toy_store) == before


def test_a_slide_that_only_the_index_contains_is_refused_too(toy_store: StoragePath, finished: Finish) -> None:
    model = resolve(toy_store.uri, "train/toy", "train")
    notes = {"model": model.manifest.folder, "patients": ["P1", "P2", "P3"], "slides": ["S1", "S2", "S3"]}
    finished(toy_store, "index", "toy", notes)
    with pytest.raises(LeakError, match="the model or its index was built from 'S3'"):
        impute.run(_impute(toy_store, slides=["S3"], index="index/toy", protocol="section"))


def test_an_index_of_another_model_is_refused_and_both_are_named(toy_store: StoragePath, finished: Finish) -> None:
    finished(toy_store, "index", "other", {"model": "train/other-0123456789ab", "patients": ["P1"], "slides": ["S1"]})
    before = _files(toy_store)
    with pytest.raises(
        ModelError, match=r"was made with model train/other-0123456789ab, not with train/toy-\w{12}: run"
    ):
        impute.run(_impute(toy_store, index="index/other"))
    assert _files(toy_store) == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slides": ["S9"]}, r"slides: no embeddings of 'S9' in \S+; it has embeddings of S1, S2, S3, S4"),
        (
            {"weights": "median"},
            r"weights: Input should be 'mean', 'top1', .* or 'inverse_square_l1', got 'median'",
        ),
        ({"protocol": "mine"}, "unknown protocol 'mine'; choose from patient, section"),
    ],
)
def test_an_impossible_prediction_is_refused_with_the_reason(
    toy_store: StoragePath, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        impute.run(_impute(toy_store, **fields))


def test_a_model_that_needs_an_index_is_refused_without_one(toy_store: StoragePath) -> None:
    file = resolve(toy_store.uri, "train/toy", "train").path.local_path / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "kind": "bleep"}))
    with pytest.raises(
        ConfigError, match="is a bleep model, which needs a reference index: run `raystp index`, then set `index`"
    ):
        impute.run(_impute(toy_store, slides=["S3"]))


def test_a_cohort_of_training_patients_alone_leaves_nothing_to_predict(toy_store: StoragePath) -> None:
    file = resolve(toy_store.uri, "embed/toy", "embed").path.local_path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["notes"]["patients"] = {"S1": "P1", "S2": "P2", "S4": "P1"}
    file.write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"protocol 'patient' allows no slide of \S+; embed slides of other patients"):
        impute.run(_impute(toy_store))
