"""Attention regression on bags of whole cases, as each worker of a training builds it.

A label is of all tiles of a case's slides; no spot is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from raystp.artifacts import Artifact
from raystp.cluster.training.workers import Worker
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.expression.bulk.labels import BulkLabels, Scale, read_bulk
from raystp.models.attention.bags import BagSamples
from raystp.models.attention.model import AttentionOptions, seeded_attention
from raystp.models.attention.predictor import AttentionPredictor
from raystp.steps.train.bulk_cases import Case, bags_of
from raystp.steps.train.direct import ResampledBags
from raystp.steps.train.work import TrainSetup
from raystp.storage import StoragePath

FEWEST_FOR_PCC = 3
"""Cases that a correlation is taken over: over two it is always 1 or -1."""

TILES_FOR_SCALE = 100_000
"""Training tiles that features are standardised by."""

Meta = dict[str, Any]


@dataclass(frozen=True)
class BulkRecipe:
    """Which cases, tiles and genes; it travels to the workers, so it holds no array."""

    table: StoragePath
    scale: Scale
    case: str
    images: Artifact
    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    genes: tuple[str, ...]
    kept_bytes: float
    """Of features, in each worker."""

    def labels(self) -> BulkLabels:
        """Read the labels of the training and validation cases."""
        names = [case.name for case in (*self.train, *self.validation)]
        return read_bulk(self.table, scale=self.scale, case=self.case, cases=names)


@dataclass(frozen=True)
class BulkLearner:
    """Attention regression on bags of whole cases."""

    kind: ClassVar[str] = "attention"

    recipe: BulkRecipe
    meta: Meta
    seed: int
    options: AttentionOptions = field(default_factory=AttentionOptions)
    bag_tiles: int | None = None

    def prepare(self, worker: Worker) -> TrainSetup:
        """Read the labels and build the model, alike on every worker."""
        recipe, labels = self.recipe, self.recipe.labels()
        sides = [labels.of([case.name for case in side], recipe.genes) for side in (recipe.train, recipe.validation)]
        return self.lesson(sides[0], sides[1], worker.device)

    def lesson(
        self, train: Float32[np.ndarray, "bag gene"], held: Float32[np.ndarray, "_ gene"], device: torch.device
    ) -> TrainSetup:
        """Return the model and the bags of each side, with these labels: the cases' own, or shuffled ones."""
        recipe = self.recipe
        sides = (recipe.train, recipe.validation)
        share = recipe.kept_bytes / sum(case.tiles for side in sides for case in side)
        bags, check = (
            replace(bags_of(recipe.images, side, values, budget=share * sum(c.tiles for c in side)), device=device)
            for side, values in zip(sides, (train, held), strict=True)
        )
        seen = bags.some_tiles(max(1, min(1000, TILES_FOR_SCALE // len(bags))))
        model = seeded_attention(seen.shape[1], len(recipe.genes), self.options, seed=self.seed)
        model.standardize(seen)
        model.standardize_labels(bags.labels)
        sampled = ResampledBags(replace(bags, bag_tiles=self.bag_tiles, seed=self.seed))
        if not recipe.validation:
            return TrainSetup(model.to(device), sampled)
        score = self._score(check) if len(check) >= FEWEST_FOR_PCC else None
        return TrainSetup(model.to(device), sampled, check, score)

    def _score(self, held: BagSamples) -> Callable[[nn.Module], float]:
        """Return what gives the PCC over held-out cases, mean over genes."""

        def score(model: nn.Module) -> float:
            ready = AttentionPredictor("attention", list(self.recipe.genes), self.meta["d_image"], model)  # type: ignore[arg-type]  # it is one
            predicted = np.stack([ready.predict_bag(held.tiles(bag, None)) for bag in range(len(held))])
            return float(pcc_per_gene(predicted, held.labels)[0].mean())

        return score
