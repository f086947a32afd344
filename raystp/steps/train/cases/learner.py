"""A training on labels of whole cases, as each worker builds it: a bag is all tiles of a case's slides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from raystp.artifacts import Artifact
from raystp.cluster.training.workers import Worker
from raystp.errors import ModelError
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.expression.bulk.kinds import Scale
from raystp.expression.bulk.labels import BulkLabels, read_bulk
from raystp.models.arrays import Arrays
from raystp.models.method import Options
from raystp.models.methods import METHODS, open_predictor
from raystp.models.predictor import MapPredictor
from raystp.models.training.bags import BagSamples
from raystp.models.training.score import ValidationScore
from raystp.models.training.setup import BagInputs, TrainSetup
from raystp.steps.train.cases.cohort import Case, bags_of
from raystp.storage import StoragePath

MIN_CASES_PCC = 3
"""Fewest cases for a correlation: over two it is always 1 or -1."""

SCALE_TILES = 100_000
"""Training tiles that features are standardised by."""


@dataclass(frozen=True)
class CasesSpec:
    """Which cases, tiles and genes; it is sent to workers, so it holds no array."""

    table: StoragePath
    scale: Scale
    case: str
    """Column of the table with the cases' names."""
    images: Artifact
    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    genes: tuple[str, ...]
    cache_bytes: float
    """Bytes of features that each worker keeps in memory."""

    def labels(self) -> BulkLabels:
        """Read the labels of the training and validation cases."""
        names = [case.name for case in (*self.train, *self.validation)]
        return read_bulk(self.table, scale=self.scale, case=self.case, cases=names)


@dataclass(frozen=True)
class CasesLearner:
    """What a worker needs to build a training on cases; it is sent to workers, so it holds names and configs."""

    kind: str
    """Name of the method."""
    spec: CasesSpec
    options: Options
    meta: Mapping[str, Any]
    """Record of the model to be."""
    seed: int
    bag_tiles: int | None = None

    def prepare(self, worker: Worker) -> TrainSetup:
        """Read the labels and build the training, alike on every worker."""
        spec, labels = self.spec, self.spec.labels()
        sides = [labels.of([case.name for case in side], spec.genes) for side in (spec.train, spec.validation)]
        return self.setup(sides[0], sides[1], worker.device)

    def setup(
        self, train: Float32[np.ndarray, "bag gene"], validation: Float32[np.ndarray, "_ gene"], device: torch.device
    ) -> TrainSetup:
        """Return the training with these labels: the cases' own, or permuted ones for a permutation null."""
        spec = self.spec
        sides = (spec.train, spec.validation)
        share = spec.cache_bytes / sum(case.tiles for side in sides for case in side)
        bags, held = (
            replace(bags_of(spec.images, side, values, budget=share * sum(c.tiles for c in side)), device=device)
            for side, values in zip(sides, (train, validation), strict=True)
        )
        inputs = BagInputs(
            train=bags,
            validation=held if spec.validation else None,
            features=bags.sample_tiles(max(1, min(1000, SCALE_TILES // len(bags)))),
            seed=self.seed,
            device=device,
            bag_tiles=self.bag_tiles,
        )
        made: TrainSetup = METHODS[self.kind].setup_bags(self.options, inputs)
        return replace(made, score=self._score(held, made)) if len(held) >= MIN_CASES_PCC else made

    def open(self, arrays: Arrays) -> MapPredictor:
        """Return a trained model; raises ModelError for a method that predicts no whole case."""
        model = open_predictor(self.kind, arrays, self.meta)
        if not isinstance(model, MapPredictor):
            msg = f"a {self.kind} model predicts tiles only, and a prediction for whole cases is needed"
            raise ModelError(msg)
        return model

    def _score(self, held: BagSamples, made: TrainSetup) -> Callable[[nn.Module], ValidationScore]:
        """Return the function from a model to its score over the validation cases: mean PCC over genes, and errors."""
        mean = made.bag_mean
        assert mean is not None  # as every method that learns from bags sets it

        def score(model: nn.Module) -> ValidationScore:
            opened = self.open({name: value.detach().cpu().numpy() for name, value in model.state_dict().items()})
            predicted = np.stack([opened.predict_bag(held.tiles(bag, None)) for bag in range(len(held))])
            pcc = float(pcc_per_gene(predicted, held.labels)[0].mean())
            return ValidationScore.of(pcc, predicted, held.labels, mean)

        return score
