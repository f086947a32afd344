"""A trained attention regression, ready to predict: the expression of a slide, and maps of its tiles.

`predict` and the others get all tiles of a slide at once and compute them in chunks. The softmax over a slide is
computed chunk by chunk: a running maximum, and sums that are rescaled when it rises (Milakov and Gimelshein 2018), in
float64. So a slide of a million tiles needs the memory of a chunk. The result does not depend on the chunks, nor on how
a slide is divided among workers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from raystp.errors import ModelError, some
from raystp.models.arrays import Arrays
from raystp.models.attention.model import AttentionRegression, seeded_attention
from raystp.models.attention.options import AttentionOptions
from raystp.models.bags.heads import lin_ratio
from raystp.models.method import ModelMeta
from raystp.models.predictor import check_rows

_VALUES_AT_ONCE = 1 << 22
"""Values of the widest layer in memory at a time: 16 MiB in float32, and a few such layers at once."""


class RunningPool:
    """Pooled prediction of the tiles of a slide so far."""

    def __init__(self, model: AttentionRegression) -> None:
        self.model = model
        genes, device = len(model.label_mean), model.label_mean.device
        self.max_logit = torch.full((1,), -torch.inf, dtype=torch.float64, device=device)
        """The largest attention logit so far, per head."""
        self.weight = torch.zeros(1, dtype=torch.float64, device=device)
        self.total = torch.zeros(genes, dtype=torch.float64, device=device)
        self.max_local = torch.full((genes,), -torch.inf, dtype=torch.float64, device=device)
        """The largest local prediction so far."""
        self.sums = torch.zeros((2, genes), dtype=torch.float64, device=device)
        """Sums of the local predictions and of their squares so far."""

    def add(self, features: Float[Tensor, "tile feature"]) -> None:
        """Add more tiles."""
        logits, local = self.model.tiles(features)
        part, top = RunningPool(self.model), logits.amax(dim=0)
        weights = (logits - top).exp_()
        part.weight = weights.sum(dim=0, dtype=torch.float64)
        total = (weights.T @ local)[0] if weights.shape[1] == 1 else (weights * local).sum(dim=0, dtype=torch.float64)
        part.max_logit, part.total, part.max_local = top.double(), total.double(), local.amax(dim=0).double()
        if self.model.options.pooling == "lin":
            part.sums = torch.stack([local.sum(dim=0, dtype=torch.float64), local.double().square().sum(dim=0)])
        self.merge(part)

    def merge(self, other: "RunningPool") -> None:
        """Add the pool of other tiles of the same slide."""
        top = torch.maximum(self.max_logit, other.max_logit)
        own_factor, other_factor = (self.max_logit - top).exp(), (other.max_logit - top).exp()
        self.weight = self.weight * own_factor + other.weight * other_factor
        self.total = self.total * own_factor + other.total * other_factor
        self.max_local = torch.maximum(self.max_local, other.max_local)
        self.max_logit = top
        self.sums = self.sums + other.sums

    def value(self) -> Float32[np.ndarray, "gene"]:
        """Return the slide's prediction in the labels' units; raises ModelError before any tile was added."""
        if not bool((self.weight > 0).all()):
            raise _no_tiles()
        options = self.model.options
        mean = self.max_local if options.pooling == "max" else self.total / self.weight
        if options.pooling == "lin":
            mean = lin_ratio(self.sums[1], self.sums[0])
        bounded = mean.clamp(-options.clamp, options.clamp)
        out: np.ndarray = (bounded * self.model.label_scale + self.model.label_mean).float().cpu().numpy()
        return out


@dataclass(frozen=True)
class AttentionPredictor:
    """Predicts a slide as a whole, and each tile of it."""

    kind: str
    genes: list[str]
    d_image: int
    model: AttentionRegression
    chunk: int | None = None
    """Tiles at a time; None: as many as keep the memory of a chunk small, for any number of genes."""

    def predict(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile gene"]:
        """Return the local prediction of each tile, in the labels' units; raises ModelError for unfit features."""
        self._check(features)
        out = np.empty((len(features), len(self.genes)), dtype=np.float32)
        with torch.inference_mode():
            for start, rows in self._chunks(self.model, features):
                out[start : start + len(rows)] = self._units(self.model, self.model.tiles(rows)[1])
        return out

    def predict_bag(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "gene"]:
        """Return the slide's expression, in the labels' units; raises ModelError for unfit features, or none."""
        self._check(features)
        pool = RunningPool(self.model)
        with torch.inference_mode():
            for _, rows in self._chunks(self.model, features):
                pool.add(rows)
        return pool.value()

    def maps(
        self, features: Float[np.ndarray, "tile feature"], genes: Sequence[str] | None = None
    ) -> dict[str, Float32[np.ndarray, "tile gene"]]:
        """Return maps of a slide: a column for each of `genes` (None: all; they must fit in memory), a row per tile.

        `attention` sums to 1 over the tiles. Under max pooling it is 1 at the first tile with the highest local
        prediction; under `lin` it is the share of the local prediction in their sum, and may be below 0. `local` is the
        result of `predict`. `contribution` is attention times the difference of `local` from the training mean. Its sum
        is the difference of the slide's prediction from the mean, unless that was clamped.
        Raises ModelError for unfit features, for no tiles, and for a gene that the model does not have.
        """
        self._check(features)
        if not len(features):
            raise _no_tiles()
        model = self.model if genes is None else self.model.for_genes(self._columns(genes))
        with torch.inference_mode():
            parts = [model.tiles(rows) for _, rows in self._chunks(model, features)]
            logits, local = (torch.cat(side) for side in zip(*parts, strict=True))
            if model.options.pooling == "max":
                attention = torch.zeros_like(local).scatter_(0, local.argmax(dim=0, keepdim=True), 1.0)
            elif model.options.pooling == "lin":
                attention = lin_ratio(local.double(), local.double().sum(dim=0)).float()
            else:
                attention = torch.softmax(logits.double(), dim=0).float()
            contribution = attention * local * model.label_scale
        shape = tuple(local.shape)
        return {
            "attention": np.broadcast_to(attention.cpu().numpy(), shape),
            "local": self._units(model, local),
            "contribution": contribution.cpu().numpy(),
        }

    def removable(
        self, features: Float[np.ndarray, "tile feature"], gene: str
    ) -> tuple[Float32[np.ndarray, "tile 2"], Callable[[Float[np.ndarray, "_ 2"]], float]]:
        """Return the terms of one gene's prediction, tile by tile, and the function from such terms to a prediction.

        So tiles can be removed without computing the others again. The function returns the same as `predict_bag` on
        the features of those tiles, in standard deviations of the training labels from their mean. Raises as `maps`
        does.
        """
        self._check(features)
        model = self.model.for_genes(self._columns([gene]))
        with torch.inference_mode():
            parts = [torch.cat(model.tiles(rows), dim=1).cpu().numpy() for _, rows in self._chunks(model, features)]
        if not parts:
            raise _no_tiles()
        options = model.options

        def predict(rows: Float[np.ndarray, "_ 2"]) -> float:
            logits, local = rows.astype(np.float64).T
            weights = np.exp(logits - logits.max())
            value = local.max() if options.pooling == "max" else weights @ local / weights.sum()
            if options.pooling == "lin":
                value = float(lin_ratio(torch.tensor(local @ local), torch.tensor(local.sum())))
            return float(np.clip(value, -options.clamp, options.clamp))

        return np.concatenate(parts), predict

    def _columns(self, genes: Sequence[str]) -> list[int]:
        columns = {gene: column for column, gene in enumerate(self.genes)}
        if not genes:
            msg = "maps need one or more `genes`, got none; omit `genes` for all"
            raise ModelError(msg)
        unknown = [gene for gene in genes if gene not in columns]
        if unknown:
            msg = f"the {self.kind} model has no gene {some(unknown)}; it has {some(self.genes)}"
            raise ModelError(msg)
        return [columns[gene] for gene in genes]

    def _chunks(
        self, model: AttentionRegression, features: Float[np.ndarray, "tile feature"]
    ) -> Iterator[tuple[int, Float[Tensor, "part feature"]]]:
        groups, options = model.tile.embed.weight.shape[0], model.options
        widest = max(groups * options.embedding, len(model.label_mean), self.d_image)
        size = self.chunk or max(1, _VALUES_AT_ONCE // widest)
        for start in range(0, len(features), size):
            rows = np.array(features[start : start + size], dtype=np.float32)  # a copy: a table may be read-only
            yield start, torch.from_numpy(rows).to(model.label_mean.device)

    def _units(self, model: AttentionRegression, local: Float[Tensor, "tile gene"]) -> Float32[np.ndarray, "tile gene"]:
        out: np.ndarray = (local * model.label_scale + model.label_mean).cpu().numpy()
        return out

    def _check(self, features: Float[np.ndarray, "tile feature"]) -> None:
        if len(features):  # the width of a slide without tiles is unknown
            check_rows(features, self.d_image, self.kind)


def open_predictor(arrays: Arrays, meta: ModelMeta) -> AttentionPredictor:
    """Return a stored attention regression; `meta["options"]` are its `AttentionOptions`."""
    options = AttentionOptions(**meta["options"])
    model = seeded_attention(meta["d_image"], len(meta["genes"]), options, seed=0)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return AttentionPredictor("attention", list(meta["genes"]), meta["d_image"], model.eval())


def _no_tiles() -> ModelError:
    return ModelError(
        "a slide without tiles has no prediction and no maps: remove it, or check its tissue mask (`raystp tile`)"
    )
