"""Tiles per second from an SVS to vectors, with 1, 2 and 4 reader threads; how long the device waits for tiles."""

import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gpu.figures import Figures, Options
from gpu.memory import MODELS, as_columns
from gpu.networks import Timed, encoder_of

from raystp.cluster.streams.encode_ahead import encode_ahead
from raystp.cluster.streams.units import ReadTiles
from raystp.encoders.encoder import BatchEncoder, InferenceOptions
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.storage import StoragePath
from raystp.units import MicronsPerPixel, TilePixels

READERS = (1, 2, 4)
MPP = 0.5
MOST = {"resnet50": 16_384, "uni_v2": 4_096}
"""Encoder -> tiles of a run."""


@dataclass(frozen=True)
class Source:
    """Tiles of a slide, in batches."""

    slide: Slide
    boxes: np.ndarray
    batch: int

    def read(self, readers: int) -> Iterator[ReadTiles]:
        """Yield batches in order; each thread reads one batch ahead, into the same few arrays in turn."""
        side = TilePixels(int(self.boxes[0, 2]))
        buffers = deque(np.empty((self.batch, side, side, 3), np.uint8) for _ in range(readers + 2))
        parts = deque(self.boxes[start : start + self.batch] for start in range(0, len(self.boxes), self.batch))
        with ThreadPoolExecutor(readers) as pool:
            reading: deque[Future[np.ndarray]] = deque()
            while parts or reading:
                while parts and len(reading) <= readers:
                    part = parts.popleft()
                    buffers.rotate(-1)
                    reading.append(pool.submit(read_tiles, self.slide, part, side, into=buffers[-1][: len(part)]))
                yield ReadTiles(reading.popleft().result())


def measure(options: Options, figures: Figures) -> None:
    """Measure reading alone, then each encoder with each number of readers."""
    tiles = 32 if options.quick else 16_384
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide
        if path is None:
            from bench_embed_slide import make_slide  # noqa: PLC0415 -- needs more packages than the rest

            path = str(Path(folder) / "bench.svs")
            make_slide(Path(path), tiles)
        slide = open_slide("bench", StoragePath(path), given_mpp=MicronsPerPixel(MPP), cache=None)
        side = encoder_of("resnet50", quick=options.quick).tile_px
        boxes = _grid(slide, tiles, side)
        for readers in READERS:
            began = time.perf_counter()
            count = sum(len(one.pixels) for one in Source(slide, boxes, 32).read(readers))
            figures.add(f"read alone, {readers} reader threads", count / (time.perf_counter() - began), "tiles/s")
        for model, batch in MODELS.items():
            source = Source(slide, boxes[: MOST[model]], 8 if options.quick else batch)
            _measure_model(model, source, options, figures)


def _measure_model(model: str, source: Source, options: Options, figures: Figures) -> None:
    encoder = encoder_of(model, quick=options.quick)
    timed = Timed(encoder.network)
    passes = BatchEncoder(
        replace(encoder, network=timed),
        device=options.device,
        precision="bfloat16",
        batch=source.batch,
        options=InferenceOptions(channels_last=model == "resnet50", half_rows=True),
    )
    passes(np.zeros((source.batch, encoder.tile_px, encoder.tile_px, 3), np.uint8))
    for readers in READERS:
        timed.busy_s()
        began, tiles = time.perf_counter(), 0
        for (rows,), _ in encode_ahead(source.read(readers), lambda one: as_columns(passes, one)):
            tiles += len(rows)
        seconds = time.perf_counter() - began
        name = f"{model}, bfloat16, {readers} reader threads"
        figures.add(f"{name}, end to end", tiles / seconds, "tiles/s")
        figures.add(f"{name}, device waits", 100 * (1 - timed.busy_s() / seconds), "% of the time")


def _grid(slide: Slide, tiles: int, side: int) -> np.ndarray:
    """Return the boxes of the first tiles of a grid, row by row."""
    across, down = range(0, slide.width - side + 1, side), range(0, slide.height - side + 1, side)
    boxes = [(float(x), float(y), float(side)) for y in down for x in across]
    return np.array(boxes[:tiles], np.float64)
