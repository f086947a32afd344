"""A training whose image encoder learns along: the same for every method whose record states its `feature_inputs`."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from raystp.artifacts import Artifact
from raystp.cluster.streams.pixels import ReaderPool
from raystp.encoders.augment.options import Augmentation
from raystp.encoders.encoder import BatchEncoder, Encoder, EncoderSpec
from raystp.encoders.registry import build
from raystp.expression.training_set import SpotTable
from raystp.models.arrays import Arrays, encoder_weights
from raystp.models.training.options import FitOptions
from raystp.models.training.setup import TrainSetup
from raystp.models.training.tile_samples import TileSamples
from raystp.models.training.tower import attach_tower
from raystp.slides.open import Slide
from raystp.steps.train.spots.pixels import EncoderTiles, TileRows
from raystp.storage.node_cache import NodeCache

TILES_AT_ONCE = 64
"""Tiles that are read, and passed through the encoder, at a time where no gradient is needed."""


@dataclass
class TileFeatures:
    """Gives spots the features that an encoder, as it is at the moment, has of their tiles. Slides stay open."""

    tiles: Artifact
    encoder: Encoder
    device: torch.device
    cache: NodeCache | None = None
    _open: dict[str, Slide] = field(default_factory=dict, repr=False)

    def __call__(self, spots: SpotTable) -> SpotTable:
        """Return the spots with the features of their tiles, which are not augmented."""
        read = replace(TileRows.of(self.tiles, spots, self.cache), _open=self._open)
        passes = BatchEncoder(self.encoder, device=str(self.device), batch=TILES_AT_ONCE)
        rows = np.arange(len(spots.group), dtype=np.int64)
        blocks = [rows[start : start + TILES_AT_ONCE] for start in range(0, len(rows), TILES_AT_ONCE)]
        return replace(spots, features=np.concatenate([passes(read(block)) for block in blocks]))


@dataclass(frozen=True)
class PixelTraining:
    """The encoder that is trained with a model, and the tiles; it is sent to workers, so it holds no weights."""

    tiles: Artifact
    encoder: EncoderSpec
    augment: Augmentation
    fit: FitOptions
    readers: ReaderPool | None = None
    """Processes that read tiles; None reads in threads of the worker."""
    cache: NodeCache | None = None

    def build(self, arrays: Arrays | None = None) -> Encoder:
        """Return the encoder before its training, or as it was trained with the model of these arrays."""
        encoder = build(self.encoder)
        if arrays is not None:
            encoder.network.load_state_dict(
                {name: torch.from_numpy(np.asarray(value)) for name, value in encoder_weights(arrays).items()}
            )
        return encoder

    def features(self, encoder: Encoder, device: torch.device) -> "TileFeatures":
        """Return the function from spots to spots with the features of their tiles."""
        return TileFeatures(self.tiles, encoder, device, self.cache)

    def attached(
        self,
        made: TrainSetup,
        inputs: tuple[int, ...],
        encoder: Encoder,
        sides: tuple[SpotTable, SpotTable | None],
    ) -> TrainSetup:
        """Return a method's training, from pixels: its model with the encoder as its tower, its samples with tiles.

        `sides` are the training and the validation spots. Training tiles are augmented, validation tiles are not.
        """
        device = next(made.model.parameters()).device
        attach_tower(made.model, encoder.network.to(device), inputs, self.fit)
        train, validation = sides
        tiles = EncoderTiles(
            TileRows.of(self.tiles, train, self.cache), encoder, device, self.augment, self.fit.seed, self.readers
        )
        held = made.validation
        if held is not None and validation is not None:
            others = EncoderTiles(TileRows.of(self.tiles, validation, self.cache), encoder, device)
            held = TileSamples(held, inputs, others)
        return replace(made, train=TileSamples(made.train, inputs, tiles), validation=held)
