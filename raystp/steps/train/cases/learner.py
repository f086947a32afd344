"""A training on labels of whole cases, as each worker builds it: a bag is all tiles of a case's slides."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
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
from raystp.models.predictor import BagEmbedder, MapPredictor
from raystp.models.training.bags import BagSamples
from raystp.models.training.score import ValidationScore
from raystp.models.training.setup import BagInputs, TrainSetup
from raystp.steps.train.cases.cohort import Case, bags_of
from raystp.steps.train.cases.retrieval import EmbeddedCases
from raystp.steps.train.retrieval import Retrieval
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

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
    retrievals: tuple[Retrieval, ...] = field(default_factory=lambda: (Retrieval(),))
    """For a method that retrieves: those that the validation chooses from; without one, the first is used."""

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
        if len(held) < MIN_CASES_PCC:
            return made
        made = replace(made, score=self._score(bags, held, made))
        retrieves = METHODS[self.kind].needs_index and len(self.retrievals) > 1
        return replace(made, notes=self._chosen_retrieval(bags, held)) if retrieves else made

    def predict(
        self,
        arrays: Arrays,
        labels: Float32[np.ndarray, "case gene"],
        bags: Iterable[Float32[np.ndarray, "_ feature"]],
    ) -> Float32[np.ndarray, "bag gene"]:
        """Return what a trained model predicts for whole bags; `labels` of training cases are searched if it retrieves.

        Raises ModelError for a method that predicts no whole case.
        """
        model = open_predictor(self.kind, arrays, self.meta)
        if isinstance(model, BagEmbedder):
            return EmbeddedCases.of(model, labels, bags).predict(self.retrievals[0])
        if not isinstance(model, MapPredictor):
            msg = f"a {self.kind} model predicts tiles only, and a prediction for whole cases is needed"
            raise ModelError(msg)
        return np.stack([model.predict_bag(bag) for bag in bags])

    def _score(self, train: BagSamples, held: BagSamples, made: TrainSetup) -> Callable[[nn.Module], ValidationScore]:
        """Return the function from a model to its score over the validation cases: mean PCC over genes, and errors.

        Of several retrievals, the best one's.
        """
        mean = made.bag_mean
        assert mean is not None  # as every method that learns from bags sets it

        def score(model: nn.Module) -> ValidationScore:
            arrays = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
            if METHODS[self.kind].needs_index:
                _, pcc, predicted = self._embedded(arrays, train, held).best(self.retrievals, held.labels)
            else:
                predicted = self.predict(arrays, train.labels, _whole_bags(held))
                pcc = float(pcc_per_gene(predicted, held.labels)[0].mean())
            return ValidationScore.of(pcc, predicted, held.labels, mean)

        return score

    def _chosen_retrieval(self, train: BagSamples, held: BagSamples) -> Callable[[Arrays], dict[str, Any]]:
        """Return the function from a trained model to the retrieval that predicts the validation cases best."""

        def notes(arrays: Arrays) -> dict[str, Any]:
            chosen, pcc, _ = self._embedded(arrays, train, held).best(self.retrievals, held.labels)
            logger.info(f"  retrieval: k={chosen.k} of {[one.k for one in self.retrievals]}, validation PCC {pcc:.4g}")
            return {"retrieval": asdict(chosen)}

        return notes

    def _embedded(self, arrays: Arrays, train: BagSamples, held: BagSamples) -> EmbeddedCases:
        model = open_predictor(self.kind, arrays, self.meta)
        assert isinstance(model, BagEmbedder)  # as every method that retrieves cases
        return EmbeddedCases.of(model, np.asarray(train.labels, np.float32), _whole_bags(held))


def _whole_bags(held: BagSamples) -> Iterator[Float32[np.ndarray, "_ feature"]]:
    """Yield all tiles of each bag."""
    return (np.asarray(held.tiles(bag, None), np.float32) for bag in range(len(held)))
