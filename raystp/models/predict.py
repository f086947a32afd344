"""Predict whole slides with a direct model, and embed whole sections with a contrastive one.

Not in `predictor`, so that reading a config does not import SciPy.
"""

import numpy as np
from jaxtyping import Float32, Float64

from raystp.models.arrays import SpotArrays
from raystp.models.neighbours import spot_neighbours
from raystp.models.predictor import (
    ContrastivePredictor,
    DirectPredictor,
    NeighbourPredictor,
    SectionPredictor,
    SpotSections,
)


def predict_slide(
    model: DirectPredictor, features: Float32[np.ndarray, "tile feature"], boxes: Float64[np.ndarray, "tile 3"]
) -> Float32[np.ndarray, "tile gene"]:
    """Return a model's predictions for all tiles of one slide.

    `boxes` are (x, y, side) in level-0 px; they are used by a model that reads each tile's neighbours.
    """
    if isinstance(model, NeighbourPredictor) and model.needs_neighbours:
        near = spot_neighbours(boxes, np.zeros(len(boxes), np.int64))
        return model.predict(features, neighbours=(near.rows, near.mask))
    return model.predict(features)


def predict_spots(model: DirectPredictor, spots: SpotArrays) -> Float32[np.ndarray, "spot gene"]:
    """Return a model's predictions for stacked spots, section by section: a model may read a slide as a whole."""
    out = np.empty((len(spots.group), len(model.genes)), np.float32)
    for number in range(len(spots.sections)):
        rows = spots.group == number
        out[rows] = predict_slide(model, spots.features[rows], spots.boxes[rows])
    return out


def embed_reference(model: ContrastivePredictor, spots: SpotArrays) -> Float32[np.ndarray, "spot joint"]:
    """Return a model's embeddings of measured spots; `spots` hold whole sections, for a model that reads them."""
    if isinstance(model, SectionPredictor) and model.needs_sections:
        return model.embed_spots(spots.expression, sections=SpotSections(spots.group, spots.boxes))
    return model.embed_spots(spots.expression)
