"""What the models that answer by themselves learn from: NH2ST, GeneQuery, attention regression; on cached features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import nn

from raystp.cluster.training.workers import Worker
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.expression.neighbours import REACH, SpotNeighbours, neighbours, tile_centres
from raystp.expression.training_set import SpotTable, TrainingSetSpec, load_training_set
from raystp.models.attention.bags import BagSamples
from raystp.models.attention.model import AttentionOptions, seeded_attention
from raystp.models.genequery.model import GeneQuery, seeded_genequery
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.genequery.samples import SectionGenes
from raystp.models.nh2st.model import seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.nh2st.samples import NeighbourSamples
from raystp.models.predictor import UNSEEN_TEXT, predictor
from raystp.models.training.samples import PairDataset, SampleSet
from raystp.steps.train.work import TrainSetup

Meta = dict[str, Any]


@dataclass(frozen=True)
class DirectLearner:
    """A model that predicts a slide's tiles from their features."""

    kind: ClassVar[str]

    recipe: TrainingSetSpec
    meta: Meta
    seed: int

    def prepare(self, worker: Worker) -> TrainSetup:
        """Read the data and build the model, alike on every worker."""
        train, held = load_training_set(self.recipe)
        return self.lesson(train, held, worker.device)

    def lesson(self, train: SpotTable, held: SpotTable | None, device: torch.device) -> TrainSetup:
        """Return what is learned from some spots: the training's own, or shuffled ones for a null."""
        raise NotImplementedError

    def _score(
        self, held: SpotTable | None, extra: dict[str, np.ndarray] | None = None
    ) -> Callable[[nn.Module], float]:
        """Return what scores a model on held-out spots as it would answer there."""

        def score(model: nn.Module) -> float:
            arrays = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
            ready = predictor(self.kind, arrays | (extra or {}), self.meta)
            assert held is not None  # only then it is asked for
            # No epoch is chosen by genes that are held back.
            seen = [gene not in set(self.meta.get("unseen", ())) for gene in ready.genes]
            return float(pcc_per_gene(predict_stack(ready, held)[:, seen], held.expression[:, seen])[0].mean())

        return score


def predict_stack(ready: Any, stack: SpotTable) -> Float32[np.ndarray, "spot gene"]:
    """Return a model's answers for stacked spots, slide by slide, since a model may read a slide as a whole."""
    out = np.empty((len(stack.group), len(ready.genes)), np.float32)
    for number in range(len(stack.sections)):
        rows = stack.group == number
        out[rows] = predict_slide(ready, stack.features[rows], stack.boxes[rows])
    return out


def predict_slide(
    ready: Any, features: Float32[np.ndarray, "tile feature"], squares: Float64[np.ndarray, "tile 3"]
) -> Float32[np.ndarray, "tile gene"]:
    """Return a model's answers for all tiles of a slide; who is near whom is told where the model reads it."""
    if not getattr(ready, "needs_neighbours", False):
        found: Float32[np.ndarray, "tile gene"] = ready.predict(features)
        return found
    near = around(squares, np.zeros(len(squares), np.int64))
    answered: Float32[np.ndarray, "tile gene"] = ready.predict(features, neighbours=(near.rows, near.mask))
    return answered


def around(squares: Float64[np.ndarray, "spot 3"], group: Int64[np.ndarray, "spot"]) -> SpotNeighbours:
    """Return the neighbourhoods of tiles in their own slides, within `REACH` of the array's pitch.

    The pitch is the median distance to the nearest other tile of the slide: it suits hexagonal and square arrays, and
    grids of tiles.
    """
    centres = tile_centres(squares)
    nearest = neighbours(centres, group, k=2)
    apart = np.linalg.norm(centres - centres[nearest.rows[:, 1]], axis=1)
    within = np.full(len(group), np.inf)
    for number in np.unique(group).tolist():
        rows = (group == number) & nearest.mask[:, 1]
        if rows.any():
            within[group == number] = REACH * float(np.median(apart[rows]))
    return neighbours(centres, group, within=within)


def _tensors(stack: SpotTable, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(stack.features).to(device), torch.from_numpy(stack.expression).to(device)


@dataclass(frozen=True)
class Nh2stLearner(DirectLearner):
    """NH2ST: spots with their neighbourhoods."""

    kind: ClassVar[str] = "nh2st"

    options: Nh2stOptions = field(default_factory=Nh2stOptions)

    def lesson(self, train: SpotTable, held: SpotTable | None, device: torch.device) -> TrainSetup:
        """Return the model, and each side's spots with their neighbours on that side."""
        model = seeded_nh2st(train.features.shape[1], train.expression.shape[1], self.options, seed=self.seed)
        model.standardize(train.features)
        sides = [self._samples(side, device) if side is not None else None for side in (train, held)]
        score = self._score(held) if held is not None else None
        assert sides[0] is not None  # the training side always is
        return TrainSetup(model.to(device), sides[0], sides[1], score)

    def _samples(self, stack: SpotTable, device: torch.device) -> SampleSet:
        near = around(stack.boxes, stack.group)
        return NeighbourSamples.of(*_tensors(stack, device), near.rows, near.mask)


@dataclass(frozen=True)
class GeneQueryLearner(DirectLearner):
    """GeneQuery: spots, or genes of whole sections, with the texts of the genes that are trained on."""

    kind: ClassVar[str] = "genequery"

    options: GeneQueryOptions = field(default_factory=GeneQueryOptions)
    texts: Float32[np.ndarray, "gene text"] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """Of all genes of the panel, in its order."""

    def lesson(self, train: SpotTable, held: SpotTable | None, device: torch.device) -> TrainSetup:
        """Return the model of the seen genes; the texts of the others are stored with it, their counts never read."""
        at = {gene: column for column, gene in enumerate(self.meta["genes"])}
        seen, unseen = ([at[gene] for gene in self.meta[side]] for side in ("seen", "unseen"))
        model = seeded_genequery(train.features.shape[1], self.texts[seen], self.options, seed=self.seed)
        model.standardize(train.features)
        model.standardize_labels(train.expression[:, seen], train.group)
        extra = {UNSEEN_TEXT: self.texts[unseen]} if unseen else {}
        sides = [self._samples(side, seen, model, device) if side is not None else None for side in (train, held)]
        score = self._score(held, extra) if held is not None else None
        assert sides[0] is not None  # the training side always is
        return TrainSetup(model.to(device), sides[0], sides[1], score, extra)

    def _samples(self, stack: SpotTable, seen: list[int], model: GeneQuery, device: torch.device) -> SampleSet:
        features, expression = _tensors(replace(stack, expression=stack.expression[:, seen]), device)
        if model.options.context != "spot":
            return PairDataset.of(features, expression)
        parts = [torch.from_numpy(stack.group == number).to(device) for number in range(len(stack.sections))]
        kept = [(name, part) for name, part in zip(stack.sections, parts, strict=True) if bool(part.any())]
        return SectionGenes.of(
            [features[part] for _, part in kept], [expression[part] for _, part in kept], [name for name, _ in kept]
        )


@dataclass
class ResampledBags:
    """Bags whose tiles are drawn anew each epoch."""

    bags: BagSamples
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.bags)

    def foresee(self, parts: Sequence[Int64[np.ndarray, " _"]], epoch: int) -> None:  # noqa: ARG002 -- nothing is read ahead
        """Say which epoch the bags are drawn for."""
        self.epoch = epoch

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[torch.Tensor, ...]:
        """Return some bags, as `BagSamples.at` does."""
        return replace(self.bags, epoch=lambda: self.epoch).at(rows)


@dataclass(frozen=True)
class AttentionLearner(DirectLearner):
    """Attention regression: bags of tiles under one label, here the pooled counts of a part of a section."""

    kind: ClassVar[str] = "attention"

    options: AttentionOptions = field(default_factory=AttentionOptions)
    parts: int = 1
    bag_tiles: int | None = None

    def lesson(self, train: SpotTable, held: SpotTable | None, device: torch.device) -> TrainSetup:
        """Return the model, and the bags of each side; a label is a whole bag's, no spot's own count is read."""
        bags = self._bags(train, device)
        model = seeded_attention(train.features.shape[1], train.expression.shape[1], self.options, seed=self.seed)
        model.standardize(train.features)
        model.standardize_labels(bags.labels)
        score = self._score(held) if held is not None else None
        check = self._bags(held, device) if held is not None else None
        sampled = ResampledBags(replace(bags, bag_tiles=self.bag_tiles, seed=self.seed))
        return TrainSetup(model.to(device), sampled, check, score)

    def _bags(self, stack: SpotTable, device: torch.device) -> BagSamples:
        groups = [
            (f"{name} {number}", part)
            for section, name in enumerate(stack.sections)
            for number, part in enumerate(_parts(stack, np.flatnonzero(stack.group == section), self.parts))
        ]
        labels = np.stack([_pooled(stack, part) for _, part in groups])
        bags = BagSamples.of([stack.features[part] for _, part in groups], labels, [name for name, _ in groups])
        return replace(bags, device=device)


def _parts(stack: SpotTable, rows: Int64[np.ndarray, "spot"], parts: int) -> list[Int64[np.ndarray, "part"]]:
    """Cut a section's spots into about `parts` compact parts of equal size: columns, each cut into rows."""
    columns = max(1, round(parts**0.5))
    centres = tile_centres(stack.boxes)
    found = []
    for column in np.array_split(rows[np.argsort(centres[rows, 0], kind="stable")], columns):
        ordered = column[np.argsort(centres[column, 1], kind="stable")]
        found += [part for part in np.array_split(ordered, max(1, parts // columns)) if len(part)]
    return found


def _pooled(stack: SpotTable, rows: Int64[np.ndarray, "part"]) -> Float32[np.ndarray, " gene"]:
    """Return log1p of counts per 10,000 of the pooled spots: their own shares, weighed by their totals."""
    shares = np.expm1(stack.expression[rows].astype(np.float64))
    totals = stack.totals[rows]
    pooled: Float64[np.ndarray, " gene"] = (shares * totals[:, None]).sum(axis=0) / max(totals.sum(), 1.0)
    labels: Float32[np.ndarray, " gene"] = np.log1p(pooled).astype(np.float32)
    return labels
