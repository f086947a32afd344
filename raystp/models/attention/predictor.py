"""A trained attention regression, ready to answer: a slide's expression, and the maps that say where it came from.

All tiles of a slide come in at once and are taken in chunks. The softmax over a slide runs along: a running maximum and
sums that are scaled when it rises (Milakov and Gimelshein 2018), kept in float64. So a slide of a million tiles needs
the memory of a chunk, and neither the chunk nor the parts a slide was dealt in change the answer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from raystp.errors import ModelError, some
from raystp.models.arrays import Arrays
from raystp.models.attention.model import AttentionRegression, seeded_attention
from raystp.models.attention.options import AttentionOptions

_VALUES_AT_ONCE = 1 << 22
"""Values of the widest layer that are held at a time: 16 MiB in float32, and a few such layers at once."""

_NO_TILES = "a slide without tiles has no maps: leave it out, or look for its tissue again"


class RunningPool:
    """What a slide's tiles amount to so far."""

    def __init__(self, model: AttentionRegression) -> None:
        self.model = model
        genes, device = len(model.label_mean), model.label_mean.device
        self.top = torch.full((1,), -torch.inf, dtype=torch.float64, device=device)
        """The largest attention logit so far, per head."""
        self.weight = torch.zeros(1, dtype=torch.float64, device=device)
        self.total = torch.zeros(genes, dtype=torch.float64, device=device)
        self.most = torch.full((genes,), -torch.inf, dtype=torch.float64, device=device)
        """The largest local prediction so far."""

    def add(self, features: Float[Tensor, "tile feature"]) -> None:
        """Take in some more tiles."""
        logits, local = self.model.tiles(features)
        part, top = RunningPool(self.model), logits.amax(dim=0)
        weights = (logits - top).exp_()
        part.weight = weights.sum(dim=0, dtype=torch.float64)
        total = (weights.T @ local)[0] if weights.shape[1] == 1 else (weights * local).sum(dim=0, dtype=torch.float64)
        part.top, part.total, part.most = top.double(), total.double(), local.amax(dim=0).double()
        self.merge(part)

    def merge(self, other: "RunningPool") -> None:
        """Take in what other tiles of the same slide amount to."""
        top = torch.maximum(self.top, other.top)
        mine, theirs = (self.top - top).exp(), (other.top - top).exp()
        self.weight = self.weight * mine + other.weight * theirs
        self.total = self.total * mine + other.total * theirs
        self.most = torch.maximum(self.most, other.most)
        self.top = top

    def value(self) -> Float32[np.ndarray, "gene"]:
        """Return the slide's prediction in the labels' units; raises ModelError before any tile was added."""
        if not bool((self.weight > 0).all()):
            msg = "a slide without tiles has no prediction: leave it out, or look for its tissue again"
            raise ModelError(msg)
        options = self.model.options
        mean = self.most if options.pooling == "max" else self.total / self.weight
        bounded = mean.clamp(-options.clamp, options.clamp)
        out: np.ndarray = (bounded * self.model.label_scale + self.model.label_mean).float().cpu().numpy()
        return out


@dataclass(frozen=True)
class AttentionPredictor:
    """A model that answers for a slide as a whole, and for each tile of it."""

    kind: str
    genes: list[str]
    d_image: int
    model: AttentionRegression
    chunk: int | None = None
    """Tiles taken at a time; None: as many as keep a chunk's memory small, whatever the number of genes."""

    def predict(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile gene"]:
        """Return what each tile predicts by itself, in the labels' units; raises ModelError for unfit features."""
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

        `attention` sums to 1 over the tiles (under max pooling all of it is on the first tile that predicts most);
        `local` is what `predict` gives; `contribution` is attention times how far `local` is from the training mean,
        and sums to how far the slide's prediction is from it (but for a prediction that was clamped). Raises
        ModelError for unfit features, for none, and for a gene that the model does not know.
        """
        self._check(features)
        if not len(features):
            raise ModelError(_NO_TILES)
        model = self.model if genes is None else self.model.only(self._columns(genes))
        with torch.inference_mode():
            parts = [model.tiles(rows) for _, rows in self._chunks(model, features)]
            logits, local = (torch.cat(side) for side in zip(*parts, strict=True))
            if model.options.pooling == "max":
                attention = torch.zeros_like(local).scatter_(0, local.argmax(dim=0, keepdim=True), 1.0)
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
        """Return what one gene's prediction is made of, tile by tile, and what makes the prediction of any of them.

        So tiles can be taken away without the others being read again: on the rows that are left the answer is that of
        `predict_bag` on their features, in standard deviations of the training labels from their mean. Raises as `maps`
        does.
        """
        self._check(features)
        model = self.model.only(self._columns([gene]))
        with torch.inference_mode():
            parts = [torch.cat(model.tiles(rows), dim=1).cpu().numpy() for _, rows in self._chunks(model, features)]
        if not parts:
            raise ModelError(_NO_TILES)
        options = model.options

        def predict(rows: Float[np.ndarray, "_ 2"]) -> float:
            logits, local = rows.astype(np.float64).T
            weights = np.exp(logits - logits.max())
            value = local.max() if options.pooling == "max" else weights @ local / weights.sum()
            return float(np.clip(value, -options.clamp, options.clamp))

        return np.concatenate(parts), predict

    def _columns(self, genes: Sequence[str]) -> list[int]:
        at = {gene: column for column, gene in enumerate(self.genes)}
        unknown = [gene for gene in genes if gene not in at]
        if unknown or not genes:
            msg = f"the {self.kind} model has no gene {some(unknown)}; it has {some(self.genes)}"
            raise ModelError(msg if unknown else "maps are of genes, and none is named; leave `genes` out for all")
        return [at[gene] for gene in genes]

    def _chunks(
        self, model: AttentionRegression, features: Float[np.ndarray, "tile feature"]
    ) -> Iterator[tuple[int, Float[Tensor, "part feature"]]]:
        groups, options = model.tile.embed.weight.shape[0], model.options
        widest = max(groups * options.embedding, len(model.label_mean), self.d_image)
        size = self.chunk or max(1, _VALUES_AT_ONCE // widest)
        for start in range(0, len(features), size):
            rows = np.array(features[start : start + size], dtype=np.float32)  # its own: a table may not be written
            bad = int((~np.isfinite(rows).all(axis=1)).sum())
            if bad:
                msg = (
                    f"the image features for the {self.kind} model hold nan or infinity in {bad} of {len(rows)} rows "
                    f"from row {start}: leave those rows out"
                )
                raise ModelError(msg)
            yield start, torch.from_numpy(rows).to(model.label_mean.device)

    def _units(self, model: AttentionRegression, local: Float[Tensor, "tile gene"]) -> Float32[np.ndarray, "tile gene"]:
        out: np.ndarray = (local * model.label_scale + model.label_mean).cpu().numpy()
        return out

    def _check(self, features: Float[np.ndarray, "tile feature"]) -> None:
        if len(features) and features.shape[1] != self.d_image:  # without tiles nobody knows how long they are
            msg = (
                f"the {self.kind} model reads {self.d_image} image features, got {features.shape[1]}: "
                "they are of another encoder"
            )
            raise ModelError(msg)


def open_predictor(arrays: Arrays, meta: Mapping[str, Any]) -> AttentionPredictor:
    """Return a stored attention regression ready to answer; `meta["options"]` are its `AttentionOptions`.

    Raises ModelError where the arrays or the options are not those of such a model.
    """
    try:
        options = AttentionOptions(**meta["options"])
        model = seeded_attention(meta["d_image"], len(meta["genes"]), options, seed=0)
        model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    except (RuntimeError, TypeError, KeyError) as error:
        msg = f"the stored arrays or options are not those of an attention model ({error}): a damaged or altered file"
        raise ModelError(msg) from None
    return AttentionPredictor("attention", list(meta["genes"]), meta["d_image"], model.eval())
