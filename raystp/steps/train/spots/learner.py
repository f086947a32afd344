"""A training on measured spots, as each worker builds it: any method, from cached features or from pixels."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from raystp.cluster.streams.pixels import ReaderPool
from raystp.cluster.training.workers import Worker
from raystp.encoders.encoder import Encoder, EncoderSpec
from raystp.encoders.registry import build
from raystp.errors import ModelError
from raystp.evaluate.metrics.genes import validation_pcc
from raystp.expression.training_set import SpotTable, TrainingSetSpec, load_training_set
from raystp.impute.calibration import CalibrateTo, fit_calibration
from raystp.missing import column_means
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.method import Options
from raystp.models.methods import METHODS, open_predictor
from raystp.models.predict import predict_spots
from raystp.models.predictor import ContrastivePredictor, MapPredictor
from raystp.models.training.bags import BagSamples
from raystp.models.training.samples import SampleSet
from raystp.models.training.score import ValidationScore
from raystp.models.training.setup import SpotInputs, TrainSetup
from raystp.steps.train.retrieval import Retrieval, retrieve
from raystp.steps.train.spots.pixels import PixelPairs, TileRows
from raystp.storage.node_cache import NodeCache

logger = logging.getLogger("raystp")


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
    calibrate: CalibrateTo = "none"
    """What a correction of retrieved expression is fitted to, on the validation spots."""
    texts: Float32[np.ndarray, "gene text"] | None = None
    bags: Mapping[str, Any] = field(default_factory=dict)
    encoder: EncoderSpec | None = None
    """The image encoder that is trained with the model; None for cached features."""
    readers: ReaderPool | None = None
    """Processes that read its tiles; None reads in threads of the worker."""
    cache: NodeCache | None = None

    def prepare(self, worker: Worker) -> TrainSetup:
        """Read the data and build the training, alike on every worker."""
        train, validation = load_training_set(self.spec)
        return self.setup(train, validation, worker.device)

    def setup(self, train: SpotTable, validation: SpotTable | None, device: torch.device) -> TrainSetup:
        """Return the training on these spots: those of the spec, or shuffled ones for a permutation null."""
        encoder = build(self.encoder) if self.encoder is not None else None
        inputs = SpotInputs(
            train=train,
            validation=validation,
            d_image=int(self.meta["d_image"]),
            meta=self.meta,
            seed=self.seed,
            device=device,
            texts=self.texts,
            bags=self.bags,
            encoder=encoder.network if encoder is not None else None,
            pixel_pairs=self._pixel_pairs(encoder, device) if encoder is not None else None,
        )
        made: TrainSetup = METHODS[self.kind].setup(self.options, inputs)
        if validation is None or encoder is not None:
            return made
        made = replace(made, score=self._score(train, validation, made))
        return made if self.calibrate == "none" else replace(made, notes=self._calibration(train, validation))

    def predict(self, arrays: Arrays, reference: SpotTable, queries: SpotTable) -> Float32[np.ndarray, "spot gene"]:
        """Return what a trained model predicts for other spots; `reference` is searched where the method retrieves."""
        model = open_predictor(self.kind, arrays, self.meta)
        if isinstance(model, ContrastivePredictor):
            return retrieve(model, reference, queries.features, self.retrieval)
        return predict_spots(model, queries)

    def _score(
        self, train: SpotTable, validation: SpotTable, made: TrainSetup
    ) -> Callable[[nn.Module], ValidationScore]:
        """Return the function from a model to its validation score, over the genes that it was trained on.

        The error is that of the retrieved expression, for a method that retrieves. For a method that learns from bags
        it is that of the bags' labels, since these have another level than spots have.
        """
        unseen = set(self.meta.get("unseen", ()))
        seen = [gene not in unseen for gene in self.meta["genes"]]
        learner = replace(self, retrieval=self.retrieval.limited(len(train.group)))
        mean = column_means(train.expression[:, seen])

        def score(model: nn.Module) -> ValidationScore:
            arrays = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()} | made.extra
            predicted = learner.predict(arrays, train, validation)[:, seen]
            pcc = validation_pcc(predicted, validation.expression[:, seen])
            if made.bag_mean is None:
                return ValidationScore.of(pcc, predicted, validation.expression[:, seen], mean)
            held, opened = made.validation, open_predictor(self.kind, arrays, self.meta)
            assert isinstance(held, BagSamples)  # as every setup with a mean of bags has
            assert isinstance(opened, MapPredictor)  # as every method that learns from bags
            bags = np.stack([opened.predict_bag(held.tiles(bag, None)) for bag in range(len(held))])
            return ValidationScore.of(pcc, bags, held.labels, made.bag_mean)

        return score

    def _calibration(self, train: SpotTable, validation: SpotTable) -> Callable[[Arrays], dict[str, Any]]:
        """Return the function from a trained model to its calibration on the validation spots, for its record."""
        to = self.calibrate
        assert to != "none"  # called only then

        def notes(arrays: Arrays) -> dict[str, Any]:
            predicted = self.predict(arrays, train, validation)
            try:
                fitted = fit_calibration(predicted, validation.expression, validation.group, to)
            except ModelError as error:  # the training itself is done
                logger.warning(f"  no calibration: {error}")
                return {}
            logger.info(f"  calibration: slope {fitted.slope:.3g} to {to}, on {len(predicted)} validation spots")
            return {"calibration": {"to": to, "spots": len(predicted), **fitted.to_json()}}

        return notes

    def _pixel_pairs(self, encoder: Encoder, device: torch.device) -> Callable[[SpotArrays, bool], SampleSet]:
        def pairs(spots: SpotArrays, augment: bool) -> SampleSet:  # noqa: FBT001 -- the signature of SpotInputs
            assert isinstance(spots, SpotTable)  # this learner's own tables
            rows = TileRows.of(self.spec.images, spots, self.cache)
            expression = torch.from_numpy(spots.expression).to(device)
            return PixelPairs(rows, expression, encoder, augment, self.readers if augment else None)

        return pairs
