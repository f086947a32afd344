"""BLEEP's training on labels of whole cases, from arrays, and its embeddings from a stored model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from raystp.errors import ModelError
from raystp.missing import column_means
from raystp.models.arrays import Arrays
from raystp.models.bags.resampled import ResampledBags
from raystp.models.bleep.bag_model import BagBleep, seeded_bag_bleep
from raystp.models.bleep.options import BagBleepOptions
from raystp.models.method import ModelMeta
from raystp.models.predictor import checked_rows
from raystp.models.training.setup import BagInputs, TrainSetup

VALUES_AT_ONCE = 1 << 22
"""Values of the widest layer in memory at a time: 16 MiB in float32, and a few such layers at once."""


def setup_bags(options: BagBleepOptions, inputs: BagInputs) -> TrainSetup:
    """Return the model and its bags; a validation bag is limited as a training bag, and its sample stays the same."""
    labels = inputs.train.labels
    model = seeded_bag_bleep(inputs.features.shape[1], labels.shape[1], options, seed=inputs.seed)
    model.standardize(inputs.features, labels)
    train = ResampledBags(replace(inputs.train, bag_tiles=inputs.bag_tiles, seed=inputs.seed))
    held = inputs.validation
    if held is not None:
        held = replace(held, bag_tiles=inputs.bag_tiles, seed=inputs.seed)
    return TrainSetup(model.to(inputs.device), train, held, bag_mean=column_means(labels))


@dataclass(frozen=True)
class BagBleepPredictor:
    """Embeds bags of tiles, single tiles and expression in one joint space."""

    kind: str
    genes: list[str]
    d_image: int
    model: BagBleep
    chunk: int | None = None
    """Tiles at a time; None: as many as keep the memory of a chunk small."""

    def embed_images(self, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query joint"]:
        """Return the embedding of each tile alone, a bag of one; raises ModelError for features of another encoder."""
        rows = checked_rows(features, self.d_image, self.kind)
        with torch.inference_mode():
            parts = [self.model.embed_pooled(self.model.embed_tiles(part)[:, 0]) for part in self._chunks(rows)]
        out: np.ndarray = torch.cat(parts).cpu().numpy() if parts else np.empty((0, self.model.options.dim), np.float32)
        return out

    def embed_bag(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, " joint"]:
        """Return the embedding of all tiles together; raises ModelError for no tiles, and as `embed_images` does."""
        if not len(features):
            msg = "a bag without tiles has no embedding: remove that slide, or check its tissue mask (`raystp tile`)"
            raise ModelError(msg)
        rows = checked_rows(features, self.d_image, self.kind)
        with torch.inference_mode():
            out: np.ndarray = self.model.embed_bag(self._chunks(rows)).cpu().numpy()
        return out

    def embed_spots(self, expression: Float[np.ndarray, "spot gene"]) -> Float32[np.ndarray, "spot joint"]:
        """Return the embeddings of expression, a row per case, columns in the order of `genes`."""
        rows = checked_rows(expression, len(self.genes), self.kind, "genes")
        with torch.inference_mode():
            out: np.ndarray = self.model.embed_spots(self._tensor(rows)).cpu().numpy()
        return out

    def _chunks(self, rows: Float32[np.ndarray, "tile feature"]) -> Iterator[Tensor]:
        size = self.chunk or max(1, VALUES_AT_ONCE // max(self.model.options.embedding, self.d_image))
        return (self._tensor(rows[start : start + size]) for start in range(0, len(rows), size))

    def _tensor(self, rows: Float32[np.ndarray, "row column"]) -> Tensor:
        return torch.from_numpy(np.array(rows)).to(self.model.label_mean.device)  # a copy: a table may be read-only


def open_bag_predictor(arrays: Arrays, meta: ModelMeta) -> BagBleepPredictor:
    """Return a stored model of whole cases; `meta["options"]` are its `BagBleepOptions`."""
    options = BagBleepOptions(**meta["options"])
    model = seeded_bag_bleep(meta["d_image"], len(meta["genes"]), options, seed=0)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return BagBleepPredictor("bleep", list(meta["genes"]), meta["d_image"], model.eval())
