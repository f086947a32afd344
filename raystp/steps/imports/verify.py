"""Embed some tiles of an imported slide again, and compare: are these vectors what raystp's encoder gives?"""

from dataclasses import dataclass

import numpy as np

from raystp.encoders.encoder import BatchEncoder
from raystp.encoders.registry import describe
from raystp.errors import EncoderError, failure_as_reason
from raystp.interop.registry import feature_format
from raystp.slides.open import open_slide, read_tiles
from raystp.steps.encoder_source import EncoderSource
from raystp.steps.imports.config import ImportConfig
from raystp.steps.imports.sources import Source
from raystp.units import TilePixels

SAME = 0.999
"""Cosine from which two vectors are of the same pixels and weights."""


@dataclass(frozen=True)
class VerifyTask:
    """A slide some of whose tiles are embedded again."""

    source: Source
    config: ImportConfig
    encoder: EncoderSource


@failure_as_reason
def verify_slide(task: VerifyTask) -> list[float]:
    """Return the cosine of each chosen tile's vector with that of raystp's encoder; or the reason of a failure.

    The tiles are spread evenly over the file, and read at the size in px that the encoder expects.
    """
    source, config, row = task.source, task.config, task.source.row
    assert row is not None  # the config requires a slide table
    cache, derived = config.run.node_cache(), source.section_mpp
    with open_slide(source.slide, row.path, given_mpp=row.mpp, derived_mpp=derived, cache=cache) as slide:
        tiles = feature_format(config.format).read(source.files, config.choice, float(slide.mpp))
        if not len(tiles.boxes):
            return []
        chosen = np.unique(np.linspace(0, len(tiles.boxes) - 1, config.verify).round().astype(int))
        spec = task.encoder.spec
        pixels = read_tiles(slide, tiles.boxes[chosen], TilePixels(describe(spec).tile_px))
    own = BatchEncoder(task.encoder.build(), device="cpu")(pixels)
    theirs = tiles.vectors[chosen].astype(np.float64)
    if own.shape[1] != theirs.shape[1]:
        msg = (
            f"encoder: {spec.name} has {own.shape[1]} values a tile, and the vectors of slide {source.slide!r} have "
            f"{theirs.shape[1]}: they are of another encoder, or of another output of it"
        )
        raise EncoderError(msg)
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(theirs, axis=1)
    products = (own.astype(np.float64) * theirs).sum(axis=1)
    return [float(one) for one in np.divide(products, lengths, out=np.zeros(len(lengths)), where=lengths > 0)]
