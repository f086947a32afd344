"""Permuted labels keep the score of every method at 0 under the whole choice: folds, candidates, epochs and refit."""

from collections.abc import Mapping
from typing import Any

import pytest

from raystp.cluster.training.workers import inside_process
from raystp.evaluate.metrics.genes import validation_pcc
from raystp.expression.training_set import join_section, load_training_set, stack_sections
from raystp.models.methods import METHODS
from raystp.models.store import load_model
from raystp.steps.train import step as train
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.steps.train.spots.learner import SpotsLearner
from raystp.steps.train.spots.plan import open_sources, plan_training
from raystp.storage import StoragePath
from tests.steps.train.choice.cohort import GENES, TEST, make_cohort

FIT = {"epochs": 2, "batch_size": 32, "accumulate_batches": 1}
RETRIEVALS = [{"k": 10, "weights": "mean"}, {"k": "all", "weights": "softmax", "temperature": 0.05}]
SMALL: dict[str, dict[str, Any]] = {
    "bleep": {"fit": FIT, "choose": {"retrieval": RETRIEVALS}},
    "mclstexp": {"fit": FIT, "choose": {"retrieval": RETRIEVALS}, "mclstexp": {"layers": 1, "heads": 2}},
    "genequery": {
        "fit": FIT,
        "genequery": {"dim": 16, "depth": 1, "heads": 2, "head_dim": 8, "feedforward": 16},
        "text": {"encoder": "random"},
    },
    "nh2st": {
        "fit": FIT,
        "nh2st": {"dim": 16, "heads": 2},
        "choose": {"nh2st.neighbours_at_inference": [False, True]},
    },
    "attention": {
        "fit": {**FIT, "batch_size": 4},
        "attention": {"embedding": 8, "hidden": 4},
        "choose": {"bags.parts": [4, 8]},
    },
    "ridge_lowrank": {"choose": {"ridge_lowrank.rank": [None, 2]}},
    "kernel_ridge": {},
    "ridge": {},
    "hest_ridge": {"hest_ridge": {"pca": 8}, "choose": {"hest_ridge.alpha": ["hest", "cv"]}},
    "knn": {"choose": {"knn.k": [5, 20]}},
}
"""Method -> a config that trains in no time; methods that are made of others, or ignore the image, have none."""

MAP_FIT = {"epochs": 20, "batch_size": 16, "accumulate_batches": 1, "lr": 1e-2}
MAPS: dict[str, dict[str, Any]] = {
    "genequery": {
        **SMALL["genequery"],
        "fit": MAP_FIT,
        "genequery": {
            **SMALL["genequery"]["genequery"],
            "context": "tokens",
            "tokens": 49,
            "dim": 32,
            "dropout": 0.0,
        },
    },
    "nh2st": {"fit": MAP_FIT, "nh2st": {"dim": 16, "heads": 2, "tokens": 49, "dropout": 0.1}, "choose": {}},
}
"""Method -> a config that reads the 7 x 7 spatial tokens of each tile."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, StoragePath]:
    """The cohort with its training labels permuted, and as it is."""
    made = {}
    for permuted in (True, False):
        made[permuted] = StoragePath.of(tmp_path_factory.mktemp("null"))
        make_cohort(made[permuted], {"A": "P1", "B": "P2", TEST: "P3"}, permuted=permuted, spots=60, grid=7)
    return made


def _score(store: StoragePath, method: str, configs: Mapping[str, dict[str, Any]] = SMALL) -> float:
    """Choose and train on the training side; return the mean PCC on the test section."""
    values = {"model": method, "spots": "spots/tiny", "embeddings": "embed/tiny", "split": {"test": [TEST]}}
    values |= {"panel": {"variable": len(GENES)}, **configs[method], "run": {"store": store.uri, "tracking": "none"}}
    values["fit"] = {**configs[method].get("fit", {}), "select": "cv"}
    with inside_process():
        model = train.run(train.CONFIG.of(values))
    assert len(model.manifest.notes["cv"]["folds"]) == 2
    config = SpotsTrainConfig.of({**model.manifest.config, "run": {"store": store.uri}})
    sources = open_sources(config)
    learner = plan_training(config, sources).learner
    assert isinstance(learner, SpotsLearner)
    _, arrays, meta = load_model(model.path)
    test = stack_sections([join_section(sources.measured, sources.images, TEST)], tuple(meta["genes"]))
    predicted = learner.predict(arrays, load_training_set(learner.spec)[0], test)
    return validation_pcc(predicted, test.expression)


def test_every_method_that_learns_from_an_image_is_here() -> None:
    assert set(SMALL) == {name for name, one in METHODS.items() if one.is_learned and not one.combines_models}


@pytest.mark.parametrize("method", SMALL)
def test_a_choice_on_permuted_labels_scores_nothing(method: str, stores: dict[bool, StoragePath]) -> None:
    assert abs(_score(stores[True], method)) < 0.2


def test_the_same_choice_on_the_labels_themselves_scores(stores: dict[bool, StoragePath]) -> None:
    assert _score(stores[False], "ridge_lowrank") > 0.7


@pytest.mark.parametrize("method", MAPS)
def test_a_method_that_reads_spatial_tokens_learns_from_labels_and_not_from_permuted_ones(
    method: str, stores: dict[bool, StoragePath]
) -> None:
    assert _score(stores[False], method, MAPS) > 0.3
    assert abs(_score(stores[True], method, MAPS)) < 0.2
