"""Image encoders in a notebook: load one, and encode tiles."""

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from raystp.encoders import encoder as encoders
from raystp.encoders.encoder import Encoder, EncoderSpec, Precision
from raystp.encoders.registry import build


def load_encoder(
    name: str = "tiny", *, weights: str | None = None, sha256: str | None = None, random: bool = False, seed: int = 0
) -> Encoder:
    """Load an image encoder by its name: `uni_v2`, `virchow2`, `resnet50`, `timm:<model>`, `hf-hub:<owner>/<name>` ...

    `weights` is a file or URI, and `sha256` its expected digest; without it the weights come from the hub or its cache.
    `tiny` needs none. `random` weights, from `seed`, are a control. `tile_px` of the result is the side of its tiles.

    Raises:
        EncoderError: an unknown name, or weights that are not found, damaged or of another network.

    Examples:
        >>> encoder = rs.load_encoder("tiny")
        >>> encoder.dim, encoder.tile_px
        (128, 224)
    """
    return build(EncoderSpec(name, weights, sha256, random, seed))


def encode(
    encoder: Encoder,
    tiles: UInt8[np.ndarray, "tile pixel pixel 3"],
    *,
    device: str | None = None,
    precision: Precision = "float32",
) -> Float32[np.ndarray, "tile dim"]:
    """Return a row per RGB tile, in the order of the tiles.

    `device` is torch's name, by default the first GPU, or without one the CPU.

    Raises:
        EncoderError: tiles of another size than the encoder's, or rows that are not finite.

    Examples:
        >>> with rs.open_slide(cohort / "slides" / "unmeasured.svs") as slide:
        ...     tiles = rs.read_tiles(slide, rs.tile_grid(slide)[:2])
        >>> rs.encode(rs.load_encoder("tiny"), tiles).shape
        (2, 128)
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return encoders.encode(encoder, tiles, device=chosen, precision=precision)
