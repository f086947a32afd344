"""`fit.select: cv` on a tiny cohort, in this process: folds are trainings, and the choice is trained on all of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.cluster.training.workers import inside_process
from raystp.errors import ConfigError
from raystp.models.bleep.learner import BleepPredictor
from raystp.models.store import load_model
from raystp.steps.publish.record import published_record
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.storage import StoragePath
from tests.steps.train.choice.cohort import GENES, TEST, make_cohort

PATIENTS = {"A": "P1", "B": "P2", "C": "P2", TEST: "P3"}
BLEEP: dict[str, Any] = {
    "model": "bleep",
    "fit": {"epochs": 2, "batch_size": 16, "accumulate_batches": 1},
    "bleep": {"dim": 8},
}


def config(store: StoragePath, **fields: Any) -> TrainConfig:
    given: dict[str, Any] = {"name": "one", "model": "ridge", "spots": "spots/tiny", "embeddings": "embed/tiny"}
    given |= {"panel": {"variable": len(GENES)}, "split": {"test": [TEST]}, **fields}
    fit = {"select": "cv", **fields.get("fit", {})}
    run = {"store": store.uri, "tracking": "none", **fields.get("run", {})}
    return train.CONFIG.of({**given, "fit": fit, "run": run})


def chosen(store: StoragePath, **fields: Any) -> Artifact:
    with inside_process():
        return train.run(config(store, **fields))


def folds_in(store: StoragePath, name: str) -> dict[str, Artifact]:
    """Return the finished folds of a name by their folders."""
    folders = [folder for folder in (store / "train").names() if folder.startswith(f"{name}.cv-")]
    return {folder: resolve(store.uri, f"train/{folder}", "train") for folder in folders}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoragePath:
    """One store for all tests, which so share finished folds; its test section has no embeddings."""
    at = StoragePath.of(tmp_path_factory.mktemp("cv"))
    make_cohort(at, PATIENTS, blocks=2)
    for name in ("tiny", "tiny1"):
        (resolve(at.uri, f"embed/{name}", "embed").path / "embeddings" / TEST).remove()
    return at


def test_each_fold_holds_out_a_patient_and_never_reads_the_test_side(store: StoragePath) -> None:
    model = chosen(store, name="ridge")
    record = model.manifest.notes["cv"]
    assert (record["by"], record["folds"]) == ("patient", {"P1": ["A"], "P2": ["B", "C"]})
    trained = {
        tuple(one.manifest.notes["validation"]): one.manifest.notes["train"]
        for one in folds_in(store, "ridge").values()
    }
    assert trained == {("A",): ["B", "C"], ("B", "C"): ["A"]}
    assert model.manifest.notes["train"] == ["A", "B", "C"]
    meta = load_model(model.path)[2]
    assert meta["cv"] == record
    assert "cv" not in published_record(meta, "salt")  # it names patients and sections


def test_sections_are_held_out_where_there_is_one_patient(tmp_path: Path) -> None:
    store = StoragePath.of(tmp_path)
    make_cohort(store, {"A": "P1", "B": "P1", TEST: "P3"}, spots=12)
    record = chosen(store).manifest.notes["cv"]
    assert (record["by"], record["folds"]) == ("section", {"A": ["A"], "B": ["B"]})
    assert "over 2 folds (sections A, B)" in record["sentence"]
    with pytest.raises(ConfigError, match=r"'A' alone is on the training side: .* split.validation_block=0.2"):
        chosen(store, split={"test": [TEST], "train": ["A"]})


def test_the_embeddings_with_the_planted_signal_are_chosen(store: StoragePath) -> None:
    sets = [["embed/tiny"], ["embed/tiny1"]]
    model = chosen(store, name="ridge", choose={"embeddings": sets})
    record = model.manifest.notes["cv"]
    assert record["chosen"] == {"embeddings": ["embed/tiny1"]}
    assert record["candidates"][0]["pcc"] > record["candidates"][1]["pcc"] + 0.2
    signal = resolve(store.uri, "embed/tiny1", "embed").manifest.folder
    assert (model.manifest.inputs["images"], model.manifest.config["embeddings"]) == (signal, ["embed/tiny1"])


def test_the_model_is_that_of_a_training_with_the_chosen_values(store: StoragePath) -> None:
    grid = [{"k": 5, "weights": "mean"}, {"k": "all", "weights": "softmax", "temperature": 0.05}]
    model = chosen(store, embeddings="embed/tiny1", choose={"retrieval": grid}, **BLEEP)
    values = model.manifest.notes["cv"]["chosen"]
    assert model.manifest.config["fit"]["epochs"] == values["fit.epochs"] == model.manifest.rows["epochs"]
    assert load_model(model.path)[2]["retrieval"]["k"] == values["retrieval.k"]
    alike = TrainConfig.of({**model.manifest.config, "name": "alike", "run": {"store": store.uri, "tracking": "none"}})
    assert alike.fit.select == "last"
    with inside_process():
        again = train.run(alike)
    for name, array in load_model(model.path)[1].items():
        np.testing.assert_array_equal(load_model(again.path)[1][name], array)


def test_the_score_of_a_retrieval_is_that_of_a_training_which_uses_it(store: StoragePath) -> None:
    other = {"k": "all", "weights": "softmax", "temperature": 0.05}
    split = {"test": [TEST], "validation": ["A"]}
    fit = {**BLEEP["fit"], "select": "best_pcc"}
    tabled = {}
    for name, retrieval in {"both": {"compare": [other]}, "alone": other}.items():
        fields = {**BLEEP, "name": name, "split": split, "fit": fit, "retrieval": retrieval}
        tabled[name] = chosen(store, **fields).table("validation.parquet", tables.VALIDATION).to_pylist()
    compared = [row for row in tabled["both"] if row["retrieval"] == 1]
    assert len(compared) == 2
    for one, two in zip(compared, tabled["alone"], strict=True):
        assert one | {"retrieval": 0} == pytest.approx(two, rel=1e-6)


def test_validation_spots_are_embedded_once_an_epoch_however_many_retrievals_are_scored(
    store: StoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    own = BleepPredictor.embed_images

    def counted(model: BleepPredictor, features: np.ndarray) -> np.ndarray:
        rows.append(len(features))
        return own(model, features)

    monkeypatch.setattr(BleepPredictor, "embed_images", counted)
    retrieval = {"compare": [{"k": 3}, {"k": "all", "weights": "softmax"}]}
    fields = {**BLEEP, "fit": {**BLEEP["fit"], "select": "best_pcc"}, "retrieval": retrieval}
    model = chosen(store, name="counted", split={"test": [TEST], "validation": ["A"]}, **fields)
    assert len(model.table("validation.parquet", tables.VALIDATION)) == 2 * 3
    assert len(rows) == 2


@pytest.mark.parametrize(
    "values",
    [
        {"ridge_lowrank.rank": ["4"]},
        {"ridge_lowrank": [{"rank": 4.0}]},
        {"ridge_lowrank.rank": [4], "neighbour_mean": ["0"]},
    ],
)
def test_a_candidate_of_the_configs_own_values_is_one_however_it_is_spelled(
    store: StoragePath, values: dict[str, Any]
) -> None:
    own = config(store, model="ridge_lowrank", ridge_lowrank={"rank": 4}, choose=values)
    assert isinstance(own, SpotsTrainConfig)
    assert own.has_values(own.candidates[0])
    other = config(store, model="ridge_lowrank", ridge_lowrank={"rank": 3}, choose=values)
    assert isinstance(other, SpotsTrainConfig)
    assert not other.has_values(other.candidates[0])


def test_a_rerun_does_only_what_is_missing(store: StoragePath) -> None:
    fields = {"name": "again", "model": "knn", "choose": {"knn.k": [9]}}
    first = chosen(store, **fields)
    before = {name: one.manifest.created for name, one in folds_in(store, "again").items()}
    assert len(before) == 2
    assert chosen(store, **fields).manifest.created == first.manifest.created
    lost = min(before)
    (store / "train" / lost).remove()
    first.path.remove()
    again = chosen(store, **fields)
    after = {name: one.manifest.created for name, one in folds_in(store, "again").items()}
    assert {name for name in after if after[name] != before[name]} == {lost}
    assert (again.path, again.manifest.notes) == (first.path, first.manifest.notes)


def test_a_candidate_that_cannot_be_trained_is_left_out_with_the_reason(store: StoragePath) -> None:
    record = chosen(store, model="knn", choose={"knn.k": [9, 1000]}).manifest.notes["cv"]
    assert "got 1000" in record["failed"]["knn.k=1000"]
    assert record["chosen"] == {"knn.k": 9}


def test_a_submitted_job_is_refused_a_relative_path_among_the_candidates(store: StoragePath) -> None:
    config(store, choose={"embeddings": ["embed/tiny", "embed/tiny1"]}).check_absolute()
    with pytest.raises(ConfigError, match="embeddings: 'here/embed/a' is relative"):
        config(store, choose={"embeddings": ["embed/tiny", "here/embed/a"]}).check_absolute()


def test_a_plain_training_keeps_the_name_that_it_had(store: StoragePath) -> None:
    values = config(store, fit={"select": "last"}, model="bleep").fingerprint_values()
    assert "choose" not in values
    assert "compare" not in values["retrieval"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": {"test": [TEST], "validation": ["A"]}}, "split.validation is set: remove it"),
        ({"split": {"test": [TEST], "validation_block": 0.2}}, "split.validation_block is set: remove it"),
        ({"choose": {"knn.k": [3]}, "fit": {"select": "last"}}, "compared by fit.select=cv, and it is last"),
        ({"choose": {"knn.q": [3]}}, r"(?s)choose.*knn.q: there is no such field"),
        ({"choose": {"retrieval.k": [0]}}, "choose: .*whole number from 1 on"),
        ({"targets": "cases", "cases": {"table": "x.csv"}, "model": "attention"}, "needs measured spots"),
        ({"model": "ensemble", "ensemble": {"members": ["train/a"]}}, "an ensemble trains nothing"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(store: StoragePath, fields: dict[str, Any], message: str) -> None:
    if "targets" in fields:
        with pytest.raises(ConfigError, match=message):
            TrainConfig.of({"embeddings": "embed/tiny", "split": {"test": ["T"]}, "fit": {"select": "cv"}, **fields})
        return
    with pytest.raises(ConfigError, match=message):
        chosen(store, **{"model": "knn", **fields})
