"""Tiles per second from memory: each encoder in float32, in bfloat16, compiled, and with a wait for each batch."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from gpu.figures import Figures, Options
from gpu.networks import encoder_of, flops_of, fused_attention, wait_for

from raystp.cluster.streams.encode_ahead import encode_ahead
from raystp.cluster.streams.units import ReadTiles
from raystp.encoders.encoder import BatchEncoder, Encoder, InferenceOptions, Precision

MODELS = {"resnet50": 512, "uni_v2": 256}
"""Encoder -> tiles in one pass on a GPU."""

SECONDS, LEAST = 6.0, 2
"""Length of a measurement on a GPU, and its fewest batches."""


@dataclass(frozen=True)
class Variant:
    """How an encoder is run."""

    name: str
    precision: Precision
    compiler: str | None = None


@dataclass(frozen=True)
class Case:
    """One encoder as it is run, and its tiles."""

    name: str
    passes: BatchEncoder
    pool: list[np.ndarray]
    flops: float
    """Of one tile."""


def measure(options: Options, figures: Figures) -> None:
    """Measure each encoder."""
    for model, batch in MODELS.items():
        encoder = encoder_of(model, quick=options.quick)
        size = 2 if options.quick else batch
        pool = _pool(encoder, size)
        flops: float | None = None
        for variant in _variants(options):
            inference = InferenceOptions(
                channels_last=model == "resnet50", compiler=variant.compiler, half_rows=variant.precision != "float32"
            )
            if variant.compiler is not None:  # a network stays compiled
                encoder = encoder_of(model, quick=options.quick)
            passes = BatchEncoder(
                encoder, device=options.device, precision=variant.precision, batch=size, options=inference
            )
            flops = flops_of(encoder) if flops is None else flops
            case = Case(f"{model}, {variant.name}", passes, pool, flops)
            _measure_case(case, options, figures)
        fused, layers = fused_attention(encoder)
        if layers:
            figures.add(f"{model}, attention layers with SDPA, of {layers}", fused, "layers")


def _variants(options: Options) -> Iterator[Variant]:
    yield Variant("float32", "float32")
    yield Variant("bfloat16", "bfloat16")
    if options.compiler is not None:
        yield Variant(f"bfloat16, compiled ({options.compiler})", "bfloat16", options.compiler)


def _pool(encoder: Encoder, size: int) -> list[np.ndarray]:
    """Return some batches of random tiles, in memory that is not pinned."""
    rng, side = np.random.default_rng(0), encoder.tile_px
    return [rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8) for _ in range(4)]


def _measure_case(case: Case, options: Options, figures: Figures) -> None:
    name, passes, pool = case.name, case.passes, case.pool
    start = time.perf_counter()
    expected = [passes(tiles) for tiles in pool[:2]]
    figures.add(f"{name}, first two batches of {len(pool[0])}", time.perf_counter() - start, "s")
    rate = ahead_rate(passes, pool, options)
    figures.add(f"{name}, ahead", rate, "tiles/s")
    figures.add(f"{name}, ahead, arithmetic", rate * case.flops / 1e12, "TFLOP/s")
    figures.add(f"{name}, a wait for each batch", waiting_rate(passes, pool, options), "tiles/s")
    again = [finish() for finish in [passes.start(tiles) for tiles in pool[:2]]]
    largest = max(float(np.abs(a - b).max()) for a, b in zip(again, expected, strict=True))
    figures.add(f"{name}, largest difference of rows ahead and one by one", largest, "")
    if options.on_cuda:
        figures.add(f"{name}, synchronisations in 8 batches", synchronisations(passes, pool), "")


def ahead_rate(passes: BatchEncoder, pool: list[np.ndarray], options: Options) -> float:
    """Return tiles per second with batches under way."""
    began, tiles = time.perf_counter(), 0
    for (rows,), _ in encode_ahead(_batches(pool, options), lambda one: as_columns(passes, one)):
        tiles += len(rows)
    return tiles / (time.perf_counter() - began)


def waiting_rate(passes: BatchEncoder, pool: list[np.ndarray], options: Options) -> float:
    """Return tiles per second if each batch is waited for."""
    began, tiles = time.perf_counter(), 0
    for batch in _batches(pool, options):
        tiles += len(passes(batch.pixels))
    return tiles / (time.perf_counter() - began)


def synchronisations(passes: BatchEncoder, pool: list[np.ndarray]) -> int:
    """Return how often torch waits for the device while 8 batches are begun."""
    wait_for("cuda")
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            finish = [passes.start(pool[number % len(pool)]) for number in range(8)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one in finish:
        one()
    return sum("synchronizing" in str(one.message) for one in caught)


def _batches(pool: list[np.ndarray], options: Options) -> Iterator[ReadTiles]:
    """Yield batches for the length of a measurement."""
    end, number = time.perf_counter() + (0.0 if options.quick else SECONDS), 0
    while number < LEAST or time.perf_counter() < end:
        yield ReadTiles(pool[number % len(pool)])
        number += 1


def as_columns(passes: BatchEncoder, tiles: np.ndarray) -> Callable[[], tuple[np.ndarray, ...]]:
    """Begin to encode; return a function that waits for the rows, as the only stored column."""
    finish = passes.start(tiles)
    return lambda: (finish(),)
