"""Retrieval in memory: several retrievals scored at once equal each alone; all rows equal a search for all of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raystp.errors import ConfigError
from raystp.evaluate.metrics.genes import mse_and_spread, validation_pcc
from raystp.expression.training_set import SpotTable
from raystp.steps.train.retrieval import Retrieval, retrieve, score_retrievals
from raystp.steps.train.spots.config import SpotsTrainConfig

GENES, FEATURES, JOINT = 5, 7, 4
ALL: Any = "all"


class Model:
    """Embeds images and expression by fixed matrices: a `ContrastivePredictor`."""

    kind, d_image = "toy", FEATURES
    genes = tuple(f"G{gene}" for gene in range(GENES))

    def embed_images(self, features: np.ndarray) -> np.ndarray:
        return features @ np.random.default_rng(1).standard_normal((FEATURES, JOINT)).astype(np.float32)

    def embed_spots(self, expression: np.ndarray) -> np.ndarray:
        matrix = np.random.default_rng(2).standard_normal((GENES, JOINT)).astype(np.float32)
        return np.asarray(np.nan_to_num(expression) @ matrix)


def table(spots: int, seed: int, *, missing: bool = False) -> SpotTable:
    rng = np.random.default_rng(seed)
    expression = rng.random((spots, GENES), dtype=np.float32)
    group = np.arange(spots) % 2
    if missing:
        expression[group == 1, 3] = np.nan
    return SpotTable(
        sections=("A", "B"),
        slides=("A", "B"),
        group=group,
        spots=tuple(str(number) for number in range(spots)),
        boxes=np.zeros((spots, 3)),
        features=rng.standard_normal((spots, FEATURES)).astype(np.float32),
        expression=expression,
        totals=np.ones(spots),
    )


MODEL: Any = Model()
REFERENCE, HELD = table(60, 3, missing=True), table(25, 4)
GRID = [
    Retrieval(),
    Retrieval(k=7, weights="softmax", temperature=0.3),
    Retrieval(k=ALL, weights="softmax", temperature=0.3),
    Retrieval(vectors="image", metric="l2", k=9, weights="weighted_average"),
    Retrieval(metric="l2", k=ALL, weights="inverse_square"),
    Retrieval(k=ALL, weights="top1"),
    Retrieval(k=3, weights="inverse_square_l1"),
]


def test_several_retrievals_are_scored_as_each_alone() -> None:
    scores = score_retrievals(MODEL, REFERENCE, HELD, GRID)
    assert [one.retrieval for one in scores] == GRID
    for one in scores:
        predicted = retrieve(MODEL, REFERENCE, HELD.features, one.retrieval)
        expected = [validation_pcc(predicted, HELD.expression), *mse_and_spread(predicted, HELD.expression)]
        np.testing.assert_allclose([one.pcc, one.mse, one.spread], expected, rtol=1e-5)


@pytest.mark.parametrize("weights", ["mean", "softmax", "weighted_average", "inverse_square", "top1"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("vectors", ["expression", "image"])
def test_all_rows_equal_a_search_for_as_many(weights: str, metric: Any, vectors: Any) -> None:
    every = Retrieval(vectors, metric, ALL, weights, temperature=1.0 if weights == "softmax" else None)
    found = retrieve(MODEL, REFERENCE, HELD.features, every)
    np.testing.assert_allclose(
        found, retrieve(MODEL, REFERENCE, HELD.features, replace(every, k=len(REFERENCE.group))), atol=1e-5
    )


def test_the_mean_of_all_rows_is_the_reference_mean_where_it_is_measured() -> None:
    found = retrieve(MODEL, REFERENCE, HELD.features, Retrieval(k=ALL))
    np.testing.assert_allclose(found, np.tile(np.nanmean(REFERENCE.expression, axis=0), (25, 1)), rtol=1e-5)


def test_a_limit_on_k_leaves_all_rows() -> None:
    assert Retrieval().limited(40).k == 10
    assert Retrieval(k=ALL).limited(40).k == "all"


def test_a_retrieval_changes_only_in_what_is_set() -> None:
    own = Retrieval(k=ALL, weights="softmax", temperature=0.05)
    assert own.changed(k=None, weights=None, temperature=None) == own
    assert own.changed(k=9, weights="mean", temperature=None) == Retrieval(k=9, weights="mean")
    assert Retrieval.of({"k": "all", "weights": "softmax", "temperature": 0.05, "calibrate": "none"}) == own
    assert Retrieval(weights="softmax").averages_as(Retrieval(weights="softmax", temperature=0.1))
    assert not own.averages_as(replace(own, temperature=0.1))


VALUES: dict[str, Any] = {"name": "a", "spots": "spots/a", "embeddings": "embed/a", "split": {"test": ["A"]}}


@pytest.mark.parametrize(
    ("retrieval", "message"),
    [
        ({"calibrate": True}, "there are none: set split.validation or split.validation_block"),
        ({"temperature": 0.2}, "a temperature of 0.2 is set for weights that have none"),
        ({"weights": "softmax", "temperature": 0}, "greater than 0"),
        ({"k": 0}, "Input should be a whole number from 1 on, or 'all'"),
        ({"k": "all", "weights": "inverse_square_l1"}, "set k to a number, or weights=inverse_square"),
    ],
)
def test_a_retrieval_that_cannot_be_is_refused(retrieval: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpotsTrainConfig.of({**VALUES, "retrieval": retrieval})


def test_true_calibrates_to_the_spread() -> None:
    split = {"test": ["A"], "validation_block": 0.2}
    config = SpotsTrainConfig.of({**VALUES, "split": split, "retrieval": {"calibrate": True, "k": "all"}})
    assert (config.retrieval.calibrate, config.retrieval.k) == ("spread", "all")
