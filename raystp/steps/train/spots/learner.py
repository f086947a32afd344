"""A training on measured spots, as each worker builds it: any method, from cached features or from pixels."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from raystp.cluster.training.workers import Worker
from raystp.encoders.encoder import Encoder
from raystp.errors import ModelError
from raystp.evaluate.metrics.genes import validation_pcc
from raystp.expression.training_set import SpotTable, TrainingSetSpec, load_training_set
from raystp.impute.calibration import CalibrateTo, fit_calibration
from raystp.missing import column_means
from raystp.models.arrays import Arrays
from raystp.models.method import Options
from raystp.models.methods import METHODS, open_predictor
from raystp.models.predict import predict_spots
from raystp.models.predictor import ContrastivePredictor, MapPredictor
from raystp.models.training.bags import BagSamples
from raystp.models.training.score import ValidationScore
from raystp.models.training.setup import SpotInputs, TrainSetup
from raystp.models.training.tile_samples import TileSamples, with_features_of
from raystp.steps.train.retrieval import Retrieval, retrieve, retrieve_each
from raystp.steps.train.spots.end_to_end import PixelTraining

logger = logging.getLogger("raystp")

CPU = torch.device("cpu")

Features = Callable[[SpotTable], SpotTable]
"""Spots -> the same spots, with features of their tiles."""


@dataclass(frozen=True)
class SpotsLearner:
    """What a worker needs to build a training on spots; it is sent to workers, so it holds names and configs."""

    kind: str
    """Name of the method."""
    spec: TrainingSetSpec
    options: Options
    meta: Mapping[str, Any]
    """Record of the model to be."""
    seed: int
    retrieval: Retrieval = field(default_factory=Retrieval)
    compared: tuple[Retrieval, ...] = ()
    """Other retrievals that are scored on the validation spots in each epoch."""
    calibrate: CalibrateTo = "none"
    """What a correction of retrieved expression is fitted to, on the validation spots."""
    texts: Float32[np.ndarray, "gene text"] | None = None
    bags: Mapping[str, Any] = field(default_factory=dict)
    pixels: PixelTraining | None = None
    """The image encoder that is trained with the model, and its tiles; None for cached features."""

    def prepare(self, worker: Worker) -> TrainSetup:
        """Read the data and build the training, alike on every worker."""
        train, validation = load_training_set(self.spec)
        return self.setup(train, validation, worker.device)

    def setup(self, train: SpotTable, validation: SpotTable | None, device: torch.device) -> TrainSetup:
        """Return the training on these spots: those of the spec, or shuffled ones for a permutation null."""
        pixels = self.pixels
        encoder = pixels.build() if pixels is not None else None
        if pixels is not None and encoder is not None:
            train = pixels.features(encoder, device)(train)
        inputs = SpotInputs(
            train=train,
            validation=validation,
            d_image=int(self.meta["d_image"]),
            meta=self.meta,
            seed=self.seed,
            device=device,
            texts=self.texts,
            bags=self.bags,
            from_pixels=pixels is not None,
        )
        method = METHODS[self.kind]
        made: TrainSetup = method.setup(self.options, inputs)
        if pixels is not None and encoder is not None:
            made = pixels.attached(made, method.feature_inputs, encoder, (train, validation))
        if validation is None:
            return made
        made = replace(made, score=self._score(train, validation, made, self._features(encoder, device)))
        return made if self.calibrate == "none" else replace(made, notes=self._calibration(train, validation, device))

    def predict(
        self, arrays: Arrays, reference: SpotTable, queries: SpotTable, *, device: torch.device = CPU
    ) -> Float32[np.ndarray, "spot gene"]:
        """Return what a trained model predicts for other spots; `reference` is searched where the method retrieves.

        The features of both are computed from their tiles, on the device, for a model with an image encoder of its own.
        """
        if self.pixels is not None:
            features = self._features(self.pixels.build(arrays), device)
            reference, queries = self._reference(reference, features), features(queries)
        return self._predicted(arrays, reference, queries)

    def _features(self, encoder: Encoder | None, device: torch.device) -> Features:
        """Return the function from spots to spots with the encoder's features of this moment; cached ones stay."""
        pixels = self.pixels
        if pixels is None or encoder is None:
            return _as_they_are
        return pixels.features(encoder, device)

    def _reference(self, reference: SpotTable, features: Features) -> SpotTable:
        """Return the spots that are searched, with their images' features only where these are searched."""
        by_image = METHODS[self.kind].needs_index and self.retrieval.vectors == "image"
        return features(reference) if by_image else reference

    def _predicted(self, arrays: Arrays, reference: SpotTable, queries: SpotTable) -> Float32[np.ndarray, "spot gene"]:
        model = open_predictor(self.kind, arrays, self.meta)
        if isinstance(model, ContrastivePredictor):
            return retrieve(model, reference, queries.features, self.retrieval)
        return predict_spots(model, queries)

    def _retrieved_score(
        self, model: ContrastivePredictor, train: SpotTable, queries: SpotTable, features: Features
    ) -> ValidationScore:
        """Return the score of the model's own retrieval beside those of the others; queries are embedded once."""
        limited = [one.limited(len(train.group)) for one in (self.retrieval, *self.compared)]
        reference = features(train) if any(one.vectors == "image" for one in limited) else train
        mean, measured = column_means(train.expression), queries.expression
        scores = {
            number: ValidationScore.of(validation_pcc(predicted, measured), predicted, measured, mean)
            for number, predicted in retrieve_each(model, reference, queries.features, limited)
        }
        return replace(scores[0], compared=tuple(scores[number] for number in range(1, len(limited))))

    def _score(
        self, train: SpotTable, validation: SpotTable, made: TrainSetup, features: Features
    ) -> Callable[[nn.Module], ValidationScore]:
        """Return the function from a model to its validation score, over the genes that it was trained on.

        The error is that of the retrieved expression, for a method that retrieves; such a method learns all genes. For
        a method that learns from bags it is that of the bags' labels, since these have another level than spots have.
        """
        unseen = set(self.meta.get("unseen", ()))
        seen = [gene not in unseen for gene in self.meta["genes"]]
        mean = column_means(train.expression[:, seen])

        def score(model: nn.Module) -> ValidationScore:
            arrays = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()} | made.extra
            queries, opened = features(validation), open_predictor(self.kind, arrays, self.meta)
            if isinstance(opened, ContrastivePredictor):
                return self._retrieved_score(opened, train, queries, features)
            predicted = predict_spots(opened, queries)[:, seen]
            pcc = validation_pcc(predicted, validation.expression[:, seen])
            if made.bag_mean is None:
                return ValidationScore.of(pcc, predicted, validation.expression[:, seen], mean)
            held = made.validation
            if isinstance(held, TileSamples):
                held = with_features_of(held.samples, queries.features)
            assert isinstance(held, BagSamples)  # as every setup with a mean of bags has
            assert isinstance(opened, MapPredictor)  # as every method that learns from bags
            bags = np.stack([opened.predict_bag(held.tiles(bag, None)) for bag in range(len(held))])
            return ValidationScore.of(pcc, bags, held.labels, made.bag_mean)

        return score

    def _calibration(
        self, train: SpotTable, validation: SpotTable, device: torch.device
    ) -> Callable[[Arrays], dict[str, Any]]:
        """Return the function from a trained model to its calibration on the validation spots, for its record."""
        to = self.calibrate
        assert to != "none"  # called only then

        def notes(arrays: Arrays) -> dict[str, Any]:
            predicted = self.predict(arrays, train, validation, device=device)
            try:
                fitted = fit_calibration(predicted, validation.expression, validation.group, to)
            except ModelError as error:  # the training itself is done
                logger.warning(f"  no calibration: {error}")
                return {}
            logger.info(f"  calibration: slope {fitted.slope:.3g} to {to}, on {len(predicted)} validation spots")
            return {"calibration": {"to": to, "spots": len(predicted), **fitted.to_json()}}

        return notes


def _as_they_are(spots: SpotTable) -> SpotTable:
    return spots
