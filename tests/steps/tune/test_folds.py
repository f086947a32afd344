"""Trials of a sweep are compared over the folds of the training side, where the training chooses there."""

import json
from pathlib import Path
from typing import Any

import pytest

from raystp.cluster.training.trials import MODEL
from raystp.errors import ConfigError
from raystp.steps.tune import step as tune
from raystp.storage import StoragePath
from tests.steps.train.choice.cohort import GENES, TEST, make_cohort

TRAIN: dict[str, Any] = {
    "model": "knn",
    "spots": "spots/tiny",
    "embeddings": "embed/tiny",
    "panel": {"variable": len(GENES)},
    "split": {"test": [TEST]},
    "fit": {"select": "cv"},
}


def _config(store: StoragePath, **fields: Any) -> Any:
    values = {"train": TRAIN, "space": {"knn.k": ["choice", 3, 9]}, **fields}
    return tune.CONFIG.of({**values, "run": {"store": store.uri, "tracking": "none"}})


def test_a_trial_scores_the_mean_over_the_folds_and_its_model_is_of_all_sections(tmp_path: Path) -> None:
    store = StoragePath.of(tmp_path)
    make_cohort(store, {"A": "P1", "B": "P2", TEST: "P3"}, spots=16)
    config = _config(store)
    assert config.training().choose == {}
    report = tune.TrainTrial(config, "trial")(4, {"knn.k": 9})
    (model,) = [name for name in (store / "train").names() if name.startswith("trial-004-")]
    assert report[MODEL] == f"train/{model}"
    scores = [
        json.loads((store / "train" / name / "manifest.json").read_bytes())["notes"]["score"]["validation_pcc"]
        for name in (store / "train").names()
        if ".cv-" in name
    ]
    assert len(scores) == 2
    assert report["validation_pcc"] == pytest.approx(sum(scores) / 2)


def test_trials_over_folds_have_no_loss_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set metric=validation_pcc"):
        tune.run(_config(StoragePath.of(tmp_path), metric="validation_loss"))


def test_stopping_trials_by_their_epochs_is_refused_where_a_trial_is_scored_over_folds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"asha stops trials by their epochs.*: remove `asha`, or set fit\.select"):
        tune.run(_config(StoragePath.of(tmp_path), asha={"grace": 2}))
