"""NH2ST's setup from sections: what is smoothed, what is centred, and what is stored."""

import numpy as np
import torch

from raystp.expression.training_set import SpotTable
from raystp.models.nh2st.learner import setup
from raystp.models.nh2st.model import Nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.training.setup import SpotInputs

SIDE = 5


def _table(*, seed: int = 0) -> SpotTable:
    """Return a square section of 25 spots, 10 px apart."""
    rng = np.random.default_rng(seed)
    places = np.column_stack([axis.ravel() for axis in np.mgrid[:SIDE, :SIDE]]) * 10.0
    spots = SIDE**2
    return SpotTable(
        sections=("one",),
        slides=("one",),
        group=np.zeros(spots, np.int64),
        spots=tuple(str(number) for number in range(spots)),
        boxes=np.column_stack([places, np.full(spots, 8.0)]),
        features=rng.normal(3, 2, size=(spots, 6)).astype(np.float32),
        expression=rng.gamma(1.0, size=(spots, 4)).astype(np.float32),
        totals=np.full(spots, 100.0),
    )


def _inputs() -> SpotInputs:
    return SpotInputs(_table(), _table(seed=1), 6, {}, 0, torch.device("cpu"))


def test_only_labels_of_training_spots_are_smoothed_over_their_neighbourhood() -> None:
    made, rows = setup(Nh2stOptions(dim=16, smooth_labels=True), _inputs()), np.arange(SIDE**2)
    grid = _table().expression.reshape(SIDE, SIDE, 4)
    middle = grid[1:4, 1:4].mean(axis=(0, 1))
    np.testing.assert_allclose(made.train.at(rows)[2][12].numpy(), middle, rtol=1e-5)
    assert made.validation is not None
    np.testing.assert_array_equal(made.validation.at(rows)[2].numpy(), _table(seed=1).expression)


def test_model_records_the_scaling_of_features_and_the_mean_of_labels() -> None:
    model, table = setup(Nh2stOptions(dim=16), _inputs()).model, _table()
    assert isinstance(model, Nh2st)
    np.testing.assert_allclose(model.label_mean, table.expression.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.image_scale, table.features.std(axis=0) * 6**0.5, rtol=1e-5)
    published = setup(Nh2stOptions(dim=16, feature_scaling="published", labels="published"), _inputs()).model
    assert isinstance(published, Nh2st)
    np.testing.assert_allclose(published.image_scale, table.features.std(axis=0), rtol=1e-5)
    assert not published.label_mean.any()
