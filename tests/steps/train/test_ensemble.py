"""An ensemble of finished models as a step: what it takes from its members, and what it refuses."""

import json
from typing import Any

import numpy as np
import pytest

from raystp.artifacts import Artifact
from raystp.errors import ConfigError, LeakError
from raystp.models.ensemble.method import EnsembleOptions
from raystp.models.predictor import DirectPredictor
from raystp.models.store import load_model, save_model
from raystp.steps.evaluate.spots.null import SpotNullTask, null_pcc
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.reference import open_model
from raystp.steps.train.retrieval import Retrieval
from raystp.storage import StoragePath

PANEL = {"name": "four", "variable": 4}
QUERIES = np.array([[0, 1], [2, 3], [1, 5]], np.float32)


def _train(store: StoragePath, name: str, **fields: Any) -> Artifact:
    given = {"model": "ridge", "spots": "spots/toy", "embeddings": "embed/toy", "panel": PANEL, "name": name}
    split = {"train": ["S1", "S2"], "test": ["S3"]}
    run = {"store": store.uri, "tracking": "none"}
    return train.run(TrainConfig.of({**given, "split": split, **fields, "run": run}))


def _ensemble(store: StoragePath, members: list[str], weights: str = "equal", **fields: Any) -> Artifact:
    run = {"store": store.uri, "tracking": "none"}
    options = {"members": members, "weights": weights}
    return train.run(TrainConfig.of({"model": "ensemble", "ensemble": options, "name": "both", **fields, "run": run}))


def _predicted(model: Artifact) -> np.ndarray:
    opened = open_model(*load_model(model.path))
    assert isinstance(opened, DirectPredictor)
    return opened.predict(QUERIES)


def test_an_ensemble_is_named_by_its_members_alone_and_predicts_their_mean(toy_store: StoragePath) -> None:
    one, two = _train(toy_store, "one"), _train(toy_store, "two", model="gene_mean")
    both = _ensemble(toy_store, ["train/one", "train/two"])
    np.testing.assert_allclose(_predicted(both), (_predicted(one) + _predicted(two)) / 2, atol=1e-6)
    np.testing.assert_array_equal(_predicted(_ensemble(toy_store, ["train/one"])), _predicted(one))
    assert both.manifest.inputs["member 1"] == two.manifest.folder
    assert both.manifest.config["ensemble"]["members"] == [one.manifest.folder, two.manifest.folder]
    own, other = load_model(both.path)[2], load_model(one.path)[2]
    kept = {"genes", "panel", "patients", "slides", "train", "test", "encoder", "tile", "training_mean"}
    assert {key: own[key] for key in kept} == {key: other[key] for key in kept}
    assert _ensemble(toy_store, ["train/one", "train/two"]).manifest.created == both.manifest.created


def test_an_ensemble_needs_no_member_to_predict(toy_store: StoragePath) -> None:
    one = _train(toy_store, "one")
    both, expected = _ensemble(toy_store, ["train/one"]), _predicted(one)
    one.path.remove()
    np.testing.assert_array_equal(_predicted(both), expected)


def test_other_members_are_another_ensemble(toy_store: StoragePath) -> None:
    _train(toy_store, "one")
    first = _ensemble(toy_store, ["train/one"])
    _train(toy_store, "one", model="gene_mean")
    assert _ensemble(toy_store, ["train/one"]).path != first.path


def test_patients_of_all_members_are_patients_of_the_ensemble(toy_store: StoragePath) -> None:
    panel = {"name": "listed", "file": _panel(toy_store)}
    _train(toy_store, "one", split={"train": ["S1"], "test": ["S2", "S3"]}, panel=panel)
    _train(toy_store, "two", split={"train": ["S2"], "test": ["S3"]}, panel=panel)
    meta = load_model(_ensemble(toy_store, ["train/one", "train/two"]).path)[2]
    assert meta["patients"] == {"S1": "P1", "S2": "P2"}
    assert (meta["train"], meta["test"]) == (["S1", "S2"], ["S3"])
    with pytest.raises(LeakError, match="patient 'P1' is on both sides: 'S1' train or validate, 'S4' test"):
        _ensemble(toy_store, ["train/one", "train/two"], split={"test": ["S4"]})
    _train(toy_store, "three", split={"train": ["S3"], "test": ["S1"]}, panel=panel)
    with pytest.raises(LeakError, match="no section is tested by all members and seen by none: train/one-"):
        _ensemble(toy_store, ["train/one", "train/three"])


def test_a_section_that_validates_for_one_member_and_trains_another_is_trained_on(toy_store: StoragePath) -> None:
    panel = {"name": "listed", "file": _panel(toy_store)}
    _train(toy_store, "one", split={"train": ["S1"], "validation": ["S2"], "test": ["S3"]}, panel=panel)
    _train(toy_store, "two", split={"train": ["S1", "S2"], "test": ["S3"]}, panel=panel)
    alone, both = (
        load_model(_ensemble(toy_store, members).path)[2] for members in (["train/one"], ["train/one", "train/two"])
    )
    assert (alone["train"], alone["validation"]) == (["S1"], ["S2"])
    assert (both["train"], both["validation"]) == (["S1", "S2"], [])


def test_weights_are_those_of_the_validation_side(toy_store: StoragePath) -> None:
    split = {"train": ["S1"], "validation": ["S2"], "test": ["S3"]}
    _train(toy_store, "one", split=split)
    _train(toy_store, "two", split=split, model="gene_mean")
    both = _ensemble(toy_store, ["train/one", "train/two"], "validation")
    weights = load_model(both.path)[1]["weights"]
    assert weights.sum() == pytest.approx(1)
    assert both.manifest.notes["score"]["validation_pcc"] is not None
    _train(toy_store, "three")
    with pytest.raises(ConfigError, match=r"ensemble.weights=validation needs sections that no member was trained on"):
        _ensemble(toy_store, ["train/three"], "validation")


def _panel(store: StoragePath) -> str:
    file = store.local_path / "genes.txt"
    file.write_text("A\nB\nC\n")
    return str(file)


def _changed(store: StoragePath, name: str, **meta: Any) -> str:
    """Store a model whose record differs from that of `train/one`."""
    made = _train(store, name, model="gene_mean")
    kind, arrays, own = load_model(made.path)
    save_model(made.path, kind, arrays, own | meta)
    return f"train/{name}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "section"}, "differ in protocol"),
        ({"panel": {"name": "other"}}, "differ in panel: .*'four'.*'other'"),
        ({"genes": ["A", "B", "C", "X"]}, r"differ in genes: train/one-\w+ alone has 'D'; train/two-\w+ alone has 'X'"),
        ({"genes": ["B", "A", "C", "D"]}, "differ in genes: their order differs"),
        ({"trained_tower": True}, "whose image encoder was trained with it"),
        ({"completed": {"method": "median"}}, "that was trained on completed labels"),
        ({"unseen": ["A"]}, "that was trained without some genes of its panel"),
        ({"bulk": {"scale": "counts"}}, "that learned from labels of whole cases"),
    ],
)
def test_members_that_do_not_fit_together_are_refused(
    toy_store: StoragePath, changes: dict[str, Any], message: str
) -> None:
    file = toy_store.local_path / "genes.txt"
    file.write_text("A\nB\nC\nD\n")
    _train(toy_store, "one", panel={"name": "four", "file": str(file)})
    other = _changed(toy_store, "two", **{"genes": ["A", "B", "C", "D"], **changes})
    with pytest.raises(ConfigError, match=message):
        _ensemble(toy_store, ["train/one", other])


@pytest.mark.parametrize("members", [[], ["train/a", "train/a"]])
def test_members_must_be_named_once(toy_store: StoragePath, members: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"ensemble\.members must name one or more finished models, each once"):
        _ensemble(toy_store, members)


def test_the_command_line_takes_a_list_of_members() -> None:
    config = train.CONFIG.load(None, ["model=ensemble", "ensemble.members=[train/a, train/b]"])
    assert config.options == EnsembleOptions(members=["train/a", "train/b"])
    assert json.loads(json.dumps(config.fingerprint_values()))["ensemble"] == {"weights": "equal"}


def test_the_permutation_null_is_the_mean_of_its_members_trained_again(toy_store: StoragePath) -> None:
    _train(toy_store, "one")
    _train(toy_store, "two", model="gene_mean")
    found = []
    for model in (_ensemble(toy_store, ["train/one", "train/two"]), _train(toy_store, "one")):
        spots, embed = (toy_store / model.manifest.inputs[role] for role in ("spots", "images"))
        found.append(null_pcc(SpotNullTask(model.path, spots, (embed,), ("S3",), 1, Retrieval(), 0)))
    np.testing.assert_allclose(found[0]["S3"], found[1]["S3"], atol=1e-4)  # a constant does not change a correlation
