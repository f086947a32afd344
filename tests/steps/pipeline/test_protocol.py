"""A published protocol in a pipeline: it gives labels, folds and panel, and what contradicts it is refused at once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError
from raystp.evaluate.published.registry import PUBLISHED
from raystp.expression.genes.panel import read_panel
from raystp.expression.labels import Labels
from raystp.models.baselines.method import HestRidgeOptions
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig
from raystp.steps.pipeline.folds.fold import Fold
from raystp.steps.pipeline.protocol import protocol_folds
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.storage import StoragePath

FIXED = [name for name, one in PUBLISHED.items() if one.panel is None]


def _config(protocol: str, **changes: Any) -> PipelineConfig:
    shared = {"shared": {"panel": {"name": "list", "file": "/data/list.txt"}}} if protocol in FIXED else {}
    return pipeline.CONFIG.of({"name": "cv", "slides": "demo/x", "protocol": protocol, **shared, **changes})


def _trainings(config: PipelineConfig) -> list[SpotsTrainConfig]:
    return [one for one in planned_steps(config) if isinstance(one, SpotsTrainConfig)]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_training_has_the_protocols_labels_side_and_retrieval_and_all_folds_are_scored_under_it(
    name: str,
) -> None:
    protocol, config = PUBLISHED[name], _config(name, train=[{"model": "bleep"}, {"model": "ridge"}])
    bleep, ridge = _trainings(config)
    for one in (bleep, ridge):
        assert one.labels == Labels(**protocol.train.get("labels", {}))
        assert one.split.protocol == protocol.split
    for key, value in protocol.retrieval.items():
        assert getattr(bleep.retrieval, key) == value
    last = planned_steps(config)[-1]
    assert isinstance(last, SpotsEvaluateConfig)
    assert (last.name, last.protocol) == ("cv", name)
    assert last.predictions == ["impute/cv-bleep-fold1", "impute/cv-ridge-fold1"]


@pytest.mark.parametrize(("name", "pca"), [("hest-readme", 256), ("hest-paper", None), ("hest-alphacv", 256)])
def test_without_train_a_protocol_of_encoders_trains_its_own_ridge(name: str, pca: int | None) -> None:
    (planned,) = _trainings(_config(name))
    assert planned.model == "hest_ridge"
    assert planned.options == HestRidgeOptions(**PUBLISHED[name].method["hest_ridge"])
    assert isinstance(planned.options, HestRidgeOptions)
    assert planned.options.pca == pca
    with pytest.raises(ConfigError, match="`protocol: triplex-250` needs `train`: it was made for several methods"):
        _config("triplex-250")


def test_without_a_protocol_the_fingerprint_is_as_before() -> None:
    config = pipeline.CONFIG.of({"slides": "demo/x", "train": {"model": "ridge", "split": {"test": ["A"]}}})
    assert "protocol" not in config.fingerprint_values()
    assert _config("hest-paper").fingerprint_values()["protocol"] == "hest-paper"


RIDGE = {"model": "ridge"}


def test_a_default_that_is_written_out_contradicts_no_protocol() -> None:
    stated = {"train": {**RIDGE, "labels": {"totals": "panel", "log": "ln"}}}
    assert _trainings(_config("triplex-250", **stated)) == _trainings(_config("triplex-250", train=RIDGE))


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("triplex-250", {"folds": 5}, "the protocol says who is held out; remove `folds`"),
        ("hest-readme", {"folds": "patient"}, r"give only `folds\.files`, the folds of the data"),
        ("triplex-250", {"train": {**RIDGE, "split": {"test": ["P"]}}}, r"split\.test: the folds choose"),
        ("hest-readme", {"train": {**RIDGE, "labels": {"totals": "all"}}}, "labels.totals=all: the protocol's is none"),
        (
            "triplex-250",
            {"train": {**RIDGE, "labels": {"log": "log10"}}},
            "labels.log=log10: the protocol's is ln",
        ),
        (
            "hest-readme",
            {"train": {"model": "hest_ridge", "hest_ridge": {"alpha": 5}}},
            "hest_ridge.alpha=5: the protocol's is hest",
        ),
        ("triplex-250", {"train": {**RIDGE, "labels": 3}}, "labels: must be a group of fields"),
        ("triplex-250", {"shared": {"panel": {"variable": 9}}}, "panel: the protocol chooses it from the sections"),
        ("mclstexp-785", {"shared": {"panel": "list.txt"}}, r"panel\.file: set it to the protocol's list"),
        ("mclstexp-785", {"shared": {}}, r"panel\.file: set it to the protocol's list of 785 genes \(HER2ST"),
    ],
)
def test_what_contradicts_a_protocol_is_refused_before_any_work(
    name: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        planned_steps(_config(name, **{"train": RIDGE, **changes}))


def _spots(store: StoragePath) -> Artifact:
    return resolve(store.uri, "spots/toy", "spots")


def _folds(store: StoragePath, name: str, folder: Path, **changes: Any) -> list[Fold]:
    config = _config(name, train=RIDGE, run={"store": store.uri}, **changes)
    return protocol_folds(config, _spots(store), ["embed/toy"], StoragePath.of(folder))


def test_folds_and_panel_are_those_of_the_protocols_rules(toy_store: StoragePath, tmp_path: Path) -> None:
    panels = tmp_path / "panels"
    folds = _folds(toy_store, "triplex-250", panels)
    assert [one.number for one in folds] == [1, 2, 3]
    assert sorted(one.test for one in folds) == [("S1", "S4"), ("S2",), ("S3",)]
    assert [one.slides for one in folds] == [one.test for one in folds]
    assert {one.test: one.train for one in folds}["S2",] == ("S1", "S3", "S4")
    files = {str((one.panel or {})["file"]) for one in folds}
    (written,) = panels.iterdir()
    assert files == {str(written)}
    assert sorted(read_panel(StoragePath.of(written))) == ["A", "B", "C", "D"]
    before = written.stat().st_mtime_ns
    assert _folds(toy_store, "triplex-250", panels) == folds
    assert written.stat().st_mtime_ns == before
    (third,) = [one for one in folds if one.test == ("S3",)]
    values = third.training({"name": "cv", "model": "ridge", "labels": {"totals": "panel"}})
    assert values["panel"] == {"name": "triplex-250", "file": str(written)}
    assert values["split"] == {"test": ["S3"], "train": ["S1", "S2", "S4"], "protocol": "patient"}


def test_a_list_of_the_user_takes_the_place_of_a_rule(toy_store: StoragePath, tmp_path: Path) -> None:
    own = {"panel": {"name": "own", "file": "/data/fifty.json"}}
    assert all(one.panel is None for one in _folds(toy_store, "hest-readme", tmp_path / "panels", shared=own))
    sections = [one.test for one in _folds(toy_store, "mclstexp-785", tmp_path / "panels")]
    assert not (tmp_path / "panels").exists()
    assert sections == [("S2",), ("S3",), ("S4",)]  # S1 is the first of the sorted names


def test_folds_that_come_with_the_data_take_the_place_of_the_rule(tmp_path: Path) -> None:
    for number, test in enumerate(["S1", "S2"]):
        values = {"split": {"test": [test], "train": ["S3"]}, "panel": {"file": "/data/var_50genes.json"}}
        (tmp_path / f"fold{number}.yaml").write_text(yaml.safe_dump(values))
    planned = _trainings(_config("hest-readme", folds={"files": str(tmp_path)}))
    assert [one.name for one in planned] == ["cv-fold0", "cv-fold1"]
    assert {one.panel.file for one in planned} == {"/data/var_50genes.json"}
    assert {one.labels.totals for one in planned} == {"none"}
    assert {one.options for one in planned} == {HestRidgeOptions(pca=256, alpha="hest")}
