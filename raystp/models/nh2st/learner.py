"""NH2ST from arrays to a training: spots with their neighbourhoods."""

from raystp.models.method import SpotArrays
from raystp.models.neighbours import spot_neighbours
from raystp.models.nh2st.model import seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.nh2st.predictor import open_predictor
from raystp.models.nh2st.samples import NeighbourSamples
from raystp.models.training.setup import SpotInputs, TrainSetup

__all__ = ["open_predictor", "setup"]


def setup(options: Nh2stOptions, inputs: SpotInputs) -> TrainSetup:
    """Return the model, and the spots of both sides with their neighbours on the same side."""
    train = inputs.train
    model = seeded_nh2st(train.features.shape[1], train.expression.shape[1], options, seed=inputs.seed)
    model.standardize(train.features)
    held = _samples(inputs, inputs.validation) if inputs.validation is not None else None
    return TrainSetup(model.to(inputs.device), _samples(inputs, train), held)


def _samples(inputs: SpotInputs, spots: SpotArrays) -> NeighbourSamples:
    near = spot_neighbours(spots.boxes, spots.group)
    return NeighbourSamples.of(*inputs.tensors(spots), near.rows, near.mask)
