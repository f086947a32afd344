"""Bags of tiles, each with the label of its case: the samples of attention regression.

A function reads the tiles, so a bag need not be in memory. Batches are padded and masked. From a bag with more tiles
than `bag_tiles`, each epoch draws another sample. The draw depends on (seed, epoch, bag) only, so it is the same for
any number of workers and after a resume.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from raystp.errors import ModelError, some
from raystp.models.training.samples import to_device

Tiles = Callable[[int, Int64[np.ndarray, "tile"] | None], Float[np.ndarray, "tile feature"]]
"""Number of a bag, and rows of its tiles (None: all) -> their features, in that order."""


def _first() -> int:
    return 0


@dataclass(frozen=True)
class BagSamples:
    """Bags by number, each with its label."""

    tiles: Tiles
    sizes: Int64[np.ndarray, "bag"]
    """Tiles in each bag."""
    labels: Float[np.ndarray, "_ gene"]
    names: Sequence[str]
    """The bags' cases, for messages."""
    bag_tiles: int | None = None
    """Maximum number of tiles of a bag in one epoch; None for all."""
    seed: int = 0
    epoch: Callable[[], int] = _first
    """The current epoch. The default is always 0: every epoch uses the same tiles."""
    device: torch.device | str = "cpu"
    missing: bool = False
    """Whether nan in a label is a missing gene; else it is an error."""

    def __post_init__(self) -> None:
        if not len(self.sizes) == len(self.labels) == len(self.names):
            seen = f"{len(self.sizes)} bags, {len(self.labels)} labels and {len(self.names)} names"
            msg = f"each bag of tiles needs one label and one name, got {seen}"
            raise ModelError(msg)
        empty = [self.names[bag] for bag in np.flatnonzero(self.sizes < 1).tolist()]
        if empty:
            msg = f"{len(empty)} of {len(self.sizes)} bags have no tiles ({some(empty)}): remove those cases"
            raise ModelError(msg)
        faulty = np.isinf(self.labels) if self.missing else ~np.isfinite(self.labels)
        wrong = [self.names[bag] for bag in np.flatnonzero(faulty.any(axis=1)).tolist()]
        if wrong:
            msg = f"the labels of {len(wrong)} bags hold nan or infinity ({some(wrong)}): remove those cases"
            raise ModelError(msg)
        if self.bag_tiles is not None and self.bag_tiles < 1:
            msg = f"bag_tiles must be 1 or more, or None for all tiles, got {self.bag_tiles}"
            raise ModelError(msg)

    @classmethod
    def of(
        cls,
        bags: Sequence[Float[np.ndarray, "_ feature"]],
        labels: Float[np.ndarray, "_ gene"],
        names: Sequence[str] | None = None,
        *,
        missing: bool = False,
    ) -> "BagSamples":
        """Return whole bags whose features are in memory; `dataclasses.replace` sets the other fields."""
        sizes = np.array([len(bag) for bag in bags], dtype=np.int64)
        named = list(names) if names is not None else [f"bag {number}" for number in range(len(bags))]

        def tiles(bag: int, chosen: Int64[np.ndarray, "tile"] | None) -> Float[np.ndarray, "tile feature"]:
            return bags[bag] if chosen is None else bags[bag][chosen]

        return cls(tiles, sizes, labels, named, missing=missing)

    def chosen(self, bag: int) -> Int64[np.ndarray, "tile"] | None:
        """Return the rows of a bag's tiles in this epoch, ascending; None for all of them."""
        size = int(self.sizes[bag])
        if self.bag_tiles is None or size <= self.bag_tiles:
            return None
        rng = np.random.default_rng([self.seed, self.epoch(), bag])
        return np.sort(rng.choice(size, self.bag_tiles, replace=False)).astype(np.int64)

    def at(
        self, rows: Int64[np.ndarray, "bag"]
    ) -> tuple[Float[Tensor, "bag tile feature"], Float[Tensor, "bag tile"], Float[Tensor, "bag gene"]]:
        """Return features padded with zeros to the longest bag, the mask (1 tile, 0 padding) and the labels."""
        bags = [self._read(bag) for bag in rows.tolist()]
        longest = max(len(bag) for bag in bags)
        features = np.zeros((len(bags), longest, bags[0].shape[1]), dtype=np.float32)
        mask = np.zeros((len(bags), longest), dtype=np.float32)
        for number, bag in enumerate(bags):
            features[number, : len(bag)], mask[number, : len(bag)] = bag, 1.0
        labels = np.ascontiguousarray(self.labels[rows], dtype=np.float32)
        one, two, three = (to_device(part, self.device) for part in (features, mask, labels))
        return one, two, three

    def sample_tiles(self, per_bag: int = 1000) -> Float[np.ndarray, "tile feature"]:
        """Return the features of up to `per_bag` tiles of each bag, the same at every call: for `standardize`."""
        part = replace(self, bag_tiles=per_bag, epoch=_first)
        return np.concatenate([part._read(bag) for bag in range(len(self))])

    def __len__(self) -> int:
        return len(self.sizes)

    def _read(self, bag: int) -> Float[np.ndarray, "tile feature"]:
        features = self.tiles(bag, self.chosen(bag))
        bad = int((~np.isfinite(features).all(axis=1)).sum())
        if bad:
            msg = f"the features of {bad} of {len(features)} tiles of {self.names[bag]} hold nan or infinity: "
            raise ModelError(msg + "remove those tiles")
        return features
