"""What BLEEP learns from, and how it is scored while it does: pairs of tiles and expression, and retrieval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch

from raystp.cluster.streams.pixels import ReaderPool
from raystp.cluster.training.workers import Worker
from raystp.encoders.encoder import Encoder, EncoderSpec
from raystp.encoders.registry import build
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.expression.training_set import SpotTable, TrainingSetSpec, load_training_set
from raystp.impute.weights import mean
from raystp.index.expression.shard import in_memory
from raystp.index.search.exact import search
from raystp.models.bleep.loss import BleepOptions
from raystp.models.bleep.model import Bleep, seeded_bleep
from raystp.models.training.samples import PairDataset, SampleSet
from raystp.steps.train.pixels import PixelPairs, TileRows
from raystp.steps.train.work import TrainSetup
from raystp.storage.node_cache import NodeCache

NEIGHBOURS = 50
"""Neighbours in the validation's PCC, the published default; of a small bank a quarter, since all answer all alike."""


@dataclass(frozen=True)
class BleepLearner:
    """BLEEP on cached features, or with a tower that is trained along on pixels."""

    kind: ClassVar[str] = "bleep"

    recipe: TrainingSetSpec
    options: BleepOptions
    d_image: int
    seed: int
    encoder: EncoderSpec | None
    """The tower that is trained along; None for cached features."""
    readers: ReaderPool | None = None
    """Readers of its tiles apart from the trainers."""
    cache: NodeCache | None = None

    def prepare(self, worker: Worker) -> TrainSetup:
        """Return the model, the training pairs, and the validation's, which are never augmented."""
        train, validation = load_training_set(self.recipe)
        encoder = build(self.encoder) if self.encoder is not None else None
        tower = encoder.network if encoder is not None else None
        model = seeded_bleep(self.d_image, len(self.recipe.genes), self.options, seed=self.seed, tower=tower)
        if tower is None:
            model.standardize(train.features)
        score = _scorer(train, validation, worker) if encoder is None and validation is not None else None
        in_memory = self._samples(validation, encoder, worker, augment=False) if validation is not None else None
        return TrainSetup(
            model.to(worker.device), self._samples(train, encoder, worker, augment=True), in_memory, score
        )

    def _samples(self, stack: SpotTable, encoder: Encoder | None, worker: Worker, *, augment: bool) -> SampleSet:
        expression = torch.from_numpy(stack.expression).to(worker.device)
        if encoder is None:
            return PairDataset.of(torch.from_numpy(stack.features).to(worker.device), expression)
        rows = TileRows.of(self.recipe.images, stack, self.cache)
        return PixelPairs(rows, expression, encoder, augment, self.readers if augment else None)


def retrieved_pcc(model: Bleep, bank: SpotTable, queries: SpotTable, device: torch.device) -> float:
    """Return the mean over genes of the PCC of queries imputed from a bank's spots, as the model would answer."""
    with torch.inference_mode():
        spots = model.embed_spots(torch.from_numpy(bank.expression).to(device)).cpu().numpy()
        images = model.embed_images(torch.from_numpy(queries.features).to(device)).cpu().numpy()
    scores, rows = search(spots, images, min(NEIGHBOURS, max(1, len(spots) // 4)), metric="cosine")
    predicted = in_memory(bank.expression).share_of_sum(mean(scores), rows)
    return float(pcc_per_gene(predicted, queries.expression)[0].mean())


def _scorer(bank: SpotTable, queries: SpotTable, worker: Worker) -> Callable[[torch.nn.Module], float]:
    return lambda model: retrieved_pcc(cast("Bleep", model), bank, queries, worker.device)
