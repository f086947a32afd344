"""How fast this machine embeds: a few tiles of the sample are read and encoded, as `embed` does it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raystp.encoders.encoder import encode
from raystp.encoders.features.stages import with_features
from raystp.errors import RaystpError, failure_reason
from raystp.slides.open import open_header, read_tiles_or_fail
from raystp.steps.embed.config import EmbedConfig
from raystp.steps.encoder_source import source_of
from raystp.steps.plan.sample import SlideCost
from raystp.units import TilePixels

BATCH, MAX_TILES, ENOUGH_S = 16, 128, 4.0


@dataclass(frozen=True)
class EncoderRate:
    """Tiles per second of one CPU, or of one GPU."""

    tiles_per_s: float | None
    is_gpu: bool
    source: str
    """`measured`, `given`, or why there is none."""


def encoder_rate(
    config: EmbedConfig, costs: Sequence[SlideCost], tile_px: int, rate: float | None, *, gpu: bool
) -> EncoderRate:
    """Return the rate that is given, else the measured one; none, with the reason, for an encoder without weights."""
    if rate is not None:
        return EncoderRate(rate, gpu, "given")
    usable = next((cost for cost in costs if cost.tiles and cost.boxes is not None), None)
    if usable is None or usable.boxes is None:
        return EncoderRate(None, is_gpu=False, source="no tile of the sample can be read")
    try:
        return _measured(config, usable, TilePixels(tile_px))
    except (RaystpError, RuntimeError, OSError) as error:
        return EncoderRate(None, is_gpu=False, source=failure_reason(error))


def _measured(config: EmbedConfig, cost: SlideCost, tile_px: TilePixels) -> EncoderRate:
    """Time batches until `ENOUGH_S` have passed; a first one warms up. On a CPU one thread encodes: CPU-seconds."""
    before_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting threads would count
    try:
        return _timed(config, cost, tile_px)
    finally:
        torch.set_num_threads(before_threads)


def _timed(config: EmbedConfig, cost: SlideCost, tile_px: TilePixels) -> EncoderRate:
    is_gpu = torch.cuda.is_available()
    encoder = with_features(source_of(config.encoder, config.run.store).build(), config.features)
    device = "cuda" if is_gpu else "cpu"
    assert cost.boxes is not None  # the caller's choice
    done, seconds, began = 0, 0.0, time.monotonic()
    opened = open_header(cost.row.slide, cost.row.path, given_mpp=cost.mpp)
    if opened is None:
        return EncoderRate(None, is_gpu=is_gpu, source="the slide has to be downloaded")
    with opened as slide:
        for number, start in enumerate(range(0, min(len(cost.boxes), MAX_TILES + BATCH), BATCH)):
            boxes = cost.boxes[start : start + BATCH]
            clock = time.perf_counter if is_gpu else time.process_time
            before = clock()
            pixels, _ = read_tiles_or_fail(slide, boxes, tile_px)  # a damaged tile is white
            encode(encoder, pixels, device=device, precision=config.precision, batch=BATCH)
            if number or len(cost.boxes) <= BATCH:
                done, seconds = done + len(boxes), seconds + clock() - before
            if done and time.monotonic() - began > ENOUGH_S:
                break
    return EncoderRate(done / max(seconds, 1e-9), is_gpu, "measured")
