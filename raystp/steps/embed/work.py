"""What an actor does with a unit of tiles: read, encode, commit. The stream that moves units about is `cluster`'s."""

import hashlib
import io
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float32, Float64, UInt8

from raystp import tables
from raystp.artifacts import content_id, file_id
from raystp.cluster.streams.units import WorkUnit
from raystp.encoders.batches import Batch
from raystp.encoders.encoder import DEFAULT_OPTIONS, BatchEncoder, InferenceOptions, Precision
from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide, prefetch_tiles, read_tiles
from raystp.steps.encoder_source import EncoderSource
from raystp.storage import StoragePath
from raystp.storage.attempts import MAX_CRASHES, AttemptLedger
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels

Pixels = UInt8[np.ndarray, "tile pixel pixel 3"]
Vectors = Float32[np.ndarray, "tile dim"]


@dataclass(frozen=True)
class EncoderOutput:
    """One encoder, and where its rows go."""

    place: StoragePath
    source: EncoderSource
    dim: int


@dataclass(frozen=True)
class EmbedWork:
    """What an actor needs to embed any unit: names, places and configs.

    With several encoders, a tile's vector is all of theirs end to end until it is committed. What is aside, and the
    marks of attempts, lie in the first one's place.
    """

    tiles: StoragePath
    outputs: tuple[EncoderOutput, ...]
    slides: dict[str, tuple[str, float, str]]
    """Slide -> path or URI, um/px in force, and the id of the content that was tiled."""
    pixels: int
    precision: Precision
    passes: Batch = None
    ways: InferenceOptions = DEFAULT_OPTIONS
    cache: NodeCache | None = None

    @property
    def aside(self) -> StoragePath:
        """Where unfinished work leaves its marks."""
        return self.outputs[0].place

    @property
    def attempts(self) -> AttemptLedger:
        """The marks of units that were begun."""
        return AttemptLedger(self.aside / "attempts")

    def forget(self) -> None:
        """Take away the marks of all attempts: what was refused is tried again."""
        self.attempts.forget()

    def sweep(self) -> None:
        """Take away the marks of units that are committed."""
        self.attempts.sweep(self.committed())

    def committed(self) -> set[str]:
        """Return the names of the units that every encoder has committed."""
        names = [set((output.place / "commits").names()) for output in self.outputs]
        return {name.removesuffix(".json") for name in set.intersection(*names)}

    def is_committed(self, unit: WorkUnit) -> bool:
        """Say whether a unit has its commit records."""
        return all((output.place / "commits" / f"{unit.unit}.json").exists() for output in self.outputs)

    def begin(self, unit: WorkUnit) -> str:
        """Leave a mark before any decoder runs; a unit with `MAX_CRASHES` marks is refused, by name."""
        if host := self.attempts.begin(unit.unit):
            return (
                f"reading tiles {unit.first} to {unit.first + unit.rows - 1} of slide {unit.slide!r} has ended "
                f"{MAX_CRASHES} processes (the last on {host}): it is left out; open the slide in a viewer, or "
                "try again with --set run.retry_failed=true"
            )
        return ""

    def end(self, unit: WorkUnit) -> None:
        """Take the marks away."""
        self.attempts.ended(unit.unit)

    def make_reader(self, buffers: int) -> "UnitReader":
        """Build what reads tiles [start, stop) of a unit; a batch is overwritten once `buffers` more were begun."""
        return UnitReader(self, buffers)

    def make_encoder(self) -> Callable[[Pixels], Vectors]:
        """Build the encoders, on the GPU that this process was given, or on the CPU."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        encodings = [
            BatchEncoder(
                output.source.build(), device=device, precision=self.precision, batch=self.passes, options=self.ways
            )
            for output in self.outputs
        ]

        def run(tiles: Pixels) -> Vectors:
            found = [encoding(tiles) for encoding in encodings]
            return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

        return run

    def commit(self, unit: WorkUnit, vectors: Vectors) -> None:
        """Write each encoder's table of a unit, then its commit record, which makes it exist; the first one stays."""
        places = (self.tiles / "tiles" / f"{unit.slide}.parquet").read_table().slice(unit.first, unit.rows)
        columns = [column.combine_chunks() for column in places.columns]
        start = 0
        for output in self.outputs:
            self._commit(unit, output, columns, vectors[:, start : start + output.dim])
            start += output.dim

    def _commit(self, unit: WorkUnit, output: EncoderOutput, places: list[pa.Array], vectors: Vectors) -> None:
        precision = stored(self.precision)
        schema = tables.embeddings(output.dim, precision=precision)
        table = pa.Table.from_arrays([*places, tables.vectors(vectors, precision)], schema=schema)
        file, stream = output.place / "embeddings" / unit.slide / f"{unit.unit}.parquet", io.BytesIO()
        pq.write_table(table, stream, compression="zstd")
        content = stream.getvalue()
        if not file.write_new(content):
            content = file.read_bytes()  # of a worker that died before its record, or still runs beside this one
        record = {"rows": unit.rows, "dim": output.dim, "sha256": hashlib.sha256(content).hexdigest()}
        (output.place / "commits" / f"{unit.unit}.json").write_new(json.dumps(record).encode())

    def write_part(self, unit: WorkUnit, part: int, vectors: Vectors) -> None:
        """Set a part of a unit aside, under its number."""
        content = io.BytesIO()
        np.save(content, vectors, allow_pickle=False)
        (self.aside / "parts" / unit.unit / f"{part:06d}.npy").write_bytes(content.getvalue())

    def commit_parts(self, unit: WorkUnit, parts: int) -> None:
        """Commit a unit from its parts, in order, and remove them."""
        folder = self.aside / "parts" / unit.unit
        if not self.is_committed(unit):  # else a worker died after it had committed
            contents = [(folder / f"{part:06d}.npy").read_bytes() for part in range(parts)]
            self.commit(unit, np.concatenate([np.load(io.BytesIO(one), allow_pickle=False) for one in contents]))
        folder.remove()


def stored(precision: Precision) -> str:
    """Return the precision that vectors are stored in; Arrow has no bfloat16, and float16 keeps all its digits."""
    return "float32" if precision == "float32" else "float16"


class UnitReader:
    """Reads spans of a unit's tiles; keeps the slide in hand open, and closes it when another comes.

    Batches go into the same few arrays in turn: new memory for each would cost a fifth of the reading.
    """

    def __init__(self, work: EmbedWork, held: int) -> None:
        self._work, self._lock = work, threading.Lock()
        self._arrays: deque[Pixels] = deque([np.empty((0, 0, 0, 3), np.uint8)] * held)
        self._name: str | None = None
        self._unit: str | None = None
        self._slide: Slide | None = None
        self._squares: Float64[np.ndarray, "tile 3"] = np.empty((0, 3))

    def __call__(self, unit: WorkUnit, start: int, stop: int) -> Pixels:
        """Return the tiles [start, stop) of a unit as pixels."""
        slide, squares = self._open(unit)
        span = squares[unit.first + start : unit.first + stop]
        return read_tiles(slide, span, TilePixels(self._work.pixels), into=self._array(stop - start))

    def _array(self, count: int) -> Pixels:
        with self._lock:
            array = self._arrays.popleft()
            if len(array) < count:
                array = np.empty((count, self._work.pixels, self._work.pixels, 3), np.uint8)
            self._arrays.append(array)
        return array[:count]

    def _open(self, unit: WorkUnit) -> tuple[Slide, Float64[np.ndarray, "tile 3"]]:
        name = unit.slide
        with self._lock:
            if self._slide is None or self._name != name:
                if self._slide is not None:
                    self._slide.close()
                self._slide, self._name = None, name
                path, mpp, content = self._work.slides[name]
                place = StoragePath(path)
                if (content_id(place) if place.is_local else file_id(place)) != content:
                    msg = (
                        f"slide {name!r} ({place}) is not what was tiled: it was replaced since; run "
                        "`raystp tile` again"
                    )
                    raise SlideError(msg)
                self._slide = open_slide(name, place, given_mpp=mpp, cache=self._work.cache)
                table = (self._work.tiles / "tiles" / f"{name}.parquet").read_table(["x", "y", "side"])
                self._squares = np.stack([table[column].to_numpy() for column in ("x", "y", "side")], axis=1)
            if unit.unit != self._unit:
                self._unit = unit.unit
                ahead = self._squares[unit.first : unit.first + unit.rows]
                prefetch_tiles(self._slide, ahead, TilePixels(self._work.pixels))
            return self._slide, self._squares
