"""What an actor does with a unit of tiles: read, encode, commit. The stream that moves units about is `cluster`'s."""

import hashlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float32, Float64, UInt8

from raystp import tables
from raystp.cluster.tile_units import Unit
from raystp.encoders.batches import Batch
from raystp.encoders.encoder import PLAIN, Precision, Ways, encode
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.steps.encoder_source import EncoderSource
from raystp.storage import Place
from raystp.units import TilePixels

Pixels = UInt8[np.ndarray, "tile pixel pixel 3"]
Vectors = Float32[np.ndarray, "tile dim"]

DEATHS = 3
"""After so many processes that ended over a unit, it is refused: the slide's file brings the decoder down."""


@dataclass(frozen=True)
class EmbedWork:
    """What an actor needs to embed any unit: names, places and configs."""

    tiles: Place
    target: Place
    slides: dict[str, tuple[str, float]]
    """Slide -> path or URI, and um/px in force."""
    pixels: int
    encoder_source: EncoderSource
    precision: Precision
    passes: Batch = None
    ways: Ways = PLAIN

    def done(self, unit: Unit) -> bool:
        """Say whether a unit has its commit record."""
        return (self.target / "commits" / f"{unit.unit}.json").exists()

    def begin(self, unit: Unit) -> str:
        """Leave a mark before any decoder runs; a unit with `DEATHS` marks is refused, by name."""
        folder = self.target / "attempts" / unit.unit
        marks = folder.names()
        if len(marks) >= DEATHS:
            last = json.loads((folder / marks[-1]).read_bytes())
            return (
                f"reading tiles {unit.first} to {unit.first + unit.rows - 1} of slide {unit.slide!r} has ended "
                f"{len(marks)} processes (the last on {last['host']}): it is left out; open the slide in a viewer, or "
                "try again with --set run.retry_failed=true"
            )
        mark = {"host": socket.gethostname(), "process": os.getpid()}
        (folder / f"{time.time_ns():020d}.json").write_bytes(json.dumps(mark).encode())
        return ""

    def ended(self, unit: Unit) -> None:
        """Take the marks away."""
        (self.target / "attempts" / unit.unit).remove()

    def reader(self) -> "UnitReader":
        """Build what reads tiles [start, stop) of a unit."""
        return UnitReader(self)

    def encoder(self) -> Callable[[Pixels], Vectors]:
        """Build the encoder, on the GPU that this process was given, or on the CPU."""
        encoder, device = self.encoder_source.build(), "cuda" if torch.cuda.is_available() else "cpu"
        return lambda tiles: encode(
            encoder, tiles, device=device, precision=self.precision, batch=self.passes, ways=self.ways
        )

    def commit(self, unit: Unit, vectors: Vectors) -> None:
        """Write a unit's table, then its commit record, which makes it exist; of either, the first one stays."""
        places = (self.tiles / "tiles" / f"{unit.slide}.parquet").read_table().slice(unit.first, unit.rows)
        columns = [column.combine_chunks() for column in places.columns]
        precision = stored(self.precision)
        schema = tables.embeddings(vectors.shape[1], precision=precision)
        table = pa.Table.from_arrays([*columns, tables.vectors(vectors, precision)], schema=schema)
        file, stream = self.target / "embeddings" / unit.slide / f"{unit.unit}.parquet", io.BytesIO()
        pq.write_table(table, stream, compression="zstd")
        content = stream.getvalue()
        if not file.write_new(content):
            content = file.read_bytes()  # of a worker that died before its record, or still runs beside this one
        record = {"rows": unit.rows, "dim": vectors.shape[1], "sha256": hashlib.sha256(content).hexdigest()}
        (self.target / "commits" / f"{unit.unit}.json").write_new(json.dumps(record).encode())

    def keep(self, unit: Unit, part: int, vectors: Vectors) -> None:
        """Set a part of a unit aside, under its number."""
        content = io.BytesIO()
        np.save(content, vectors, allow_pickle=False)
        (self.target / "parts" / unit.unit / f"{part:06d}.npy").write_bytes(content.getvalue())

    def join(self, unit: Unit, parts: int) -> None:
        """Commit a unit from its parts, in order, and remove them."""
        folder = self.target / "parts" / unit.unit
        if not self.done(unit):  # else a worker died after it had committed
            contents = [(folder / f"{part:06d}.npy").read_bytes() for part in range(parts)]
            self.commit(unit, np.concatenate([np.load(io.BytesIO(one), allow_pickle=False) for one in contents]))
        folder.remove()


def stored(precision: Precision) -> str:
    """Return the precision that vectors are stored in; Arrow has no bfloat16, and float16 keeps all its digits."""
    return "float32" if precision == "float32" else "float16"


class UnitReader:
    """Reads spans of a unit's tiles; keeps the slide in hand open, and closes it when another comes."""

    def __init__(self, work: EmbedWork) -> None:
        self._work, self._lock = work, threading.Lock()
        self._name: str | None = None
        self._slide: Slide | None = None
        self._squares: Float64[np.ndarray, "tile 3"] = np.empty((0, 3))

    def __call__(self, unit: Unit, start: int, stop: int) -> Pixels:
        """Return the tiles [start, stop) of a unit as pixels."""
        slide, squares = self._open(unit.slide)
        return read_tiles(slide, squares[unit.first + start : unit.first + stop], TilePixels(self._work.pixels))

    def _open(self, name: str) -> tuple[Slide, Float64[np.ndarray, "tile 3"]]:
        with self._lock:
            if self._slide is None or self._name != name:
                if self._slide is not None:
                    self._slide.close()
                self._slide, self._name = None, name
                path, mpp = self._work.slides[name]
                self._slide = open_slide(name, Place(path), given_mpp=mpp)
                table = (self._work.tiles / "tiles" / f"{name}.parquet").read_table(["x", "y", "side"])
                self._squares = np.stack([table[column].to_numpy() for column in ("x", "y", "side")], axis=1)
            return self._slide, self._squares
