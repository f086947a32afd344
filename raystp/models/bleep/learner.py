"""BLEEP's training from arrays, and its embeddings from a stored model."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32

from raystp.missing import filled
from raystp.models.arrays import Arrays
from raystp.models.bleep.bag_learner import BagBleepPredictor, open_bag_predictor, setup_bags
from raystp.models.bleep.model import Bleep, seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.method import ModelMeta
from raystp.models.predictor import checked_rows
from raystp.models.training.setup import SpotInputs, TrainSetup, training_mean

__all__ = ["open_predictor", "setup", "setup_bags"]


def setup(options: BleepOptions, inputs: SpotInputs) -> TrainSetup:
    """Return the model and its pairs for training and validation.

    A gene that a spot's section has not measured enters the spot encoder with its training mean.
    """
    inputs = inputs.with_filled_expression()
    genes = inputs.train.expression.shape[1]
    model = seeded_bleep(inputs.d_image, genes, options, seed=inputs.seed)
    model.standardize(inputs.train.features)
    validation = inputs.pairs(inputs.validation) if inputs.validation is not None else None
    return TrainSetup(model.to(inputs.device), inputs.pairs(inputs.train), validation)


@dataclass(frozen=True)
class BleepPredictor:
    """Embeds features and expression with the two trained heads."""

    kind: str
    genes: list[str]
    d_image: int
    heads: Bleep
    training_mean: Float32[np.ndarray, "gene"] | None = None
    """Input for a gene that a spot's section has not measured."""

    def embed_images(self, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query joint"]:
        """Return the embeddings of tiles; raises ModelError for features of another encoder."""
        rows = checked_rows(features, self.d_image, self.kind)
        with torch.inference_mode():
            out: np.ndarray = self.heads.embed_images(torch.from_numpy(rows)).numpy()
        return out

    def embed_spots(self, expression: Float[np.ndarray, "spot gene"]) -> Float32[np.ndarray, "spot joint"]:
        """Return the embeddings of measured spots, columns in the order of `genes`; raises ModelError for others.

        A missing value (NaN) is replaced by the gene's training mean.
        """
        if self.training_mean is not None and expression.shape[1] == len(self.genes):
            expression = filled(expression, self.training_mean)
        rows = checked_rows(expression, len(self.genes), self.kind, "genes")
        with torch.inference_mode():
            out: np.ndarray = self.heads.embed_spots(torch.from_numpy(rows)).numpy()
        return out


def open_predictor(arrays: Arrays, meta: ModelMeta) -> BleepPredictor | BagBleepPredictor:
    """Return a stored model; `meta["options"]` are its `BleepOptions`.

    A model of whole cases, which records `bulk`, embeds bags of tiles.
    """
    if "bulk" in meta:
        return open_bag_predictor(arrays, meta)
    heads = Bleep(meta["d_image"], len(meta["genes"]), BleepOptions(**meta["options"]))
    heads.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return BleepPredictor("bleep", meta["genes"], meta["d_image"], heads.eval(), training_mean(meta))
