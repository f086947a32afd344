"""NH2ST's training from arrays: spots with their neighbourhoods."""

import torch

from raystp.missing import filled, has_missing
from raystp.models.arrays import SpotArrays
from raystp.models.neighbours import spot_neighbours
from raystp.models.nh2st.model import seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.nh2st.predictor import open_predictor
from raystp.models.nh2st.samples import NeighbourSamples
from raystp.models.training.setup import SpotInputs, TrainSetup

__all__ = ["open_predictor", "setup"]


def setup(options: Nh2stOptions, inputs: SpotInputs) -> TrainSetup:
    """Return the model and its samples; neighbours of training spots are training spots, likewise in validation."""
    train = inputs.train
    model = seeded_nh2st(train.features.shape[1], train.expression.shape[1], options, seed=inputs.seed)
    model.standardize(train.features)
    model.center_labels(inputs.training_mean())
    model.misses_genes = has_missing(train.expression)
    validation = _samples(inputs, inputs.validation) if inputs.validation is not None else None
    samples = _samples(inputs, train, smooth_labels=options.smooth_labels)
    return TrainSetup(model.to(inputs.device), samples, validation)


def _samples(inputs: SpotInputs, spots: SpotArrays, *, smooth_labels: bool = False) -> NeighbourSamples:
    near = spot_neighbours(spots.boxes, spots.group)
    features, expression = inputs.tensors(spots)
    fill = inputs.training_mean()
    encoded = torch.from_numpy(filled(spots.expression, fill)).to(inputs.device)
    return NeighbourSamples.of(features, expression, near.rows, near.mask, smooth_labels=smooth_labels, encoded=encoded)
