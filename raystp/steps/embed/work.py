"""The work of an actor on one unit of tiles: read, encode, commit. `cluster.streams` distributes the units."""

import io
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raystp.cluster.streams.units import Encoded, Pixels, WorkUnit
from raystp.encoders.batches import Batch
from raystp.encoders.encoder import DEFAULT_OPTIONS, BatchEncoder, InferenceOptions, Precision, stored_precision
from raystp.errors import EncoderError
from raystp.steps.embed.failed_tiles import write_failed_tiles
from raystp.steps.embed.outputs import EncoderOutput, commit_record, commit_unit
from raystp.steps.embed.reader import SlideTiles, TileTables, UnitReader
from raystp.storage import StoragePath
from raystp.storage.attempt_ledger import MAX_CRASHES, AttemptLedger
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels

START = "start-"
"""Prefix of the markers of processes that make their encoder."""


@dataclass(frozen=True, eq=False)
class UnitEncoder:
    """Encodes tiles for each output; has `cluster`'s `StartsEarly`."""

    outputs: tuple[EncoderOutput, ...]
    encoders: tuple[BatchEncoder, ...]
    scales: int

    def __call__(self, tiles: Pixels) -> Encoded:
        """Return what is stored of these tiles; raises EncoderError, as `BatchEncoder`."""
        return self.start(tiles)()

    def start(self, tiles: Pixels) -> Callable[[], Encoded]:
        """Begin to encode, on a GPU without waiting; return a function that waits for what is stored."""
        started = [encoder.start(tiles) for encoder in self.encoders]

        def finish() -> Encoded:
            pairs = zip(self.outputs, started, strict=True)
            return tuple(column for output, rows in pairs for column in output.split(rows(), self.scales))

        return finish


@dataclass(frozen=True)
class BuiltEncoders:
    """What the encoders of a work are made from. Those of a CPU are kept for the next work of this process.

    The next slide of a notebook often has the same encoders, and Ray gives it the same process.
    """

    outputs: tuple[EncoderOutput, ...]
    device: str
    precision: Precision
    batch: Batch
    options: InferenceOptions

    @property
    def key(self) -> tuple[object, ...]:
        """All that an encoder depends on; the identity of its weights is in its source."""
        parts = [(output.source, output.dim, output.features, output.tokens) for output in self.outputs]
        return (*parts, self.device, self.precision, self.batch, self.options)

    def encoders(self) -> tuple[BatchEncoder, ...]:
        """Build the encoders, or return those of the last work of this process; raises EncoderError."""
        if self.key in _LAST:
            return _LAST[self.key]
        _LAST.clear()  # before others are built: two sets may not fit into memory
        # What is stored as float16 is copied from the device as float16.
        options = replace(self.options, half_rows=stored_precision(self.precision) == "float16")
        found = tuple(
            BatchEncoder(
                output.build(), device=self.device, precision=self.precision, batch=self.batch, options=options
            )
            for output in self.outputs
        )
        if self.device == "cpu":
            _LAST[self.key] = found
        return found


_LAST: dict[tuple[object, ...], tuple[BatchEncoder, ...]] = {}
"""Encoders of the last work of this process."""


@dataclass(frozen=True)
class EmbedWork:
    """Everything an actor needs to embed a unit: names, paths and configs. Implements `cluster`'s `UnitWork`.

    Each work unit is written to a temporary file and committed atomically (put-if-absent). Parts of units and the
    attempt ledger are in the first encoder's folder.
    """

    tiles: StoragePath
    outputs: tuple[EncoderOutput, ...]
    slides: dict[str, SlideTiles]
    tile_px: TilePixels
    precision: Precision
    scales: int = 1
    """Sizes of tiles around each place; their rows are concatenated."""
    pass_tiles: Batch = None
    options: InferenceOptions = DEFAULT_OPTIONS
    cache: NodeCache | None = None
    on_gpu: bool = False
    """Whether Ray gives each encoder a GPU, which torch must see too."""
    again: frozenset[str] = frozenset()
    """Committed units with failed tiles that are computed and committed again."""
    tables: TileTables = field(default_factory=TileTables, compare=False, repr=False)
    """Of this process: units of a slide mostly follow each other."""

    @property
    def attempts(self) -> AttemptLedger:
        """The attempt ledger: markers of units that were started."""
        return AttemptLedger(self.outputs[0].path / "attempts")

    def forget_attempts(self) -> None:
        """Remove the markers of all attempts, so that skipped units are tried again."""
        self.attempts.clear()

    def remove_stale_attempts(self) -> None:
        """Remove the markers of committed units, and of starts."""
        if left := self.attempts.items():
            starts = {name for name in left if name.startswith(START)}
            self.attempts.remove_finished(self.committed() | starts)

    def committed(self) -> set[str]:
        """Return the names of the units that are committed for every encoder."""
        names = [set((output.path / "commits").names()) for output in self.outputs]
        return {name.removesuffix(".json") for name in set.intersection(*names)} - self.again

    def is_committed(self, unit: WorkUnit) -> bool:
        """Return whether a unit has a commit record for every encoder, and is not to be committed again."""
        return unit.unit not in self.again and all(commit_record(output, unit).is_file() for output in self.outputs)

    def begin(self, unit: WorkUnit) -> str:
        """Write a marker before any decoder runs; return an error message after `MAX_CRASHES` crashes, else ""."""
        if host := self.attempts.begin(unit.unit):
            return (
                f"Tiles {unit.first} to {unit.first + unit.rows - 1} of slide {unit.slide!r} crashed {MAX_CRASHES} "
                f"workers (last on {host}); the slide is skipped. Open it in a viewer, or rerun with "
                "--set run.retry_failed=true"
            )
        return ""

    def end(self, unit: WorkUnit) -> None:
        """Remove the unit's markers."""
        self.attempts.end(unit.unit)

    def begin_start(self, process: str) -> str:
        """Write a marker before the encoder is made; return an error message after `MAX_CRASHES` crashes, else ""."""
        if host := self.attempts.begin(f"{START}{process}"):
            names = ", ".join(f"'{output.source.spec.name}'" for output in self.outputs)
            return (
                f"the process of encoder {names} crashed {MAX_CRASHES} times before its first tile (last on {host}), "
                "probably out of memory: set fewer `run.encoders`, or a smaller encoder"
            )
        return ""

    def end_start(self, process: str) -> None:
        """Remove the markers of a process that made its encoder."""
        self.attempts.end(f"{START}{process}")

    def make_reader(self, buffers: int) -> UnitReader:
        """Build a reader of tiles [start, stop) of a unit; it reuses a batch after `buffers` more."""
        return UnitReader(self.tiles, self.slides, self.tile_px, cache=self.cache, buffers=buffers, scales=self.scales)

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        """Build a `UnitEncoder`, on this process's GPU or on the CPU.

        Raises EncoderError for an encoder that cannot be built, and for a GPU that torch does not see.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.on_gpu and device == "cpu":
            msg = (
                f"Ray has a GPU for this encoder on {socket.gethostname()}, and torch {torch.__version__} sees no CUDA "
                "device there: install a driver and a torch for this GPU, or set run.gpus_per_encoder=0 for the CPU"
            )
            raise EncoderError(msg)
        built = BuiltEncoders(self.outputs, device, self.precision, self.pass_tiles, self.options)
        return UnitEncoder(self.outputs, built.encoders(), self.scales)

    def commit(self, unit: WorkUnit, batches: Sequence[Encoded], failed: Mapping[int, str]) -> None:
        """Write a unit's tables for each encoder, then its commit record. An existing table or record is kept."""
        tiles = self.tables.read(self.tiles / "tiles" / f"{unit.slide}.parquet").slice(unit.first, unit.rows)
        tiles = tiles.filter(pa.array([row not in failed for row in range(unit.rows)], pa.bool_()))
        for output in self.outputs:
            write_failed_tiles(output.path, unit.unit, failed)
        commit_unit(self.outputs, unit, tiles, batches, precision=self.precision, again=unit.unit in self.again)

    def write_part(self, unit: WorkUnit, part: int, encoded: Encoded, failed: Mapping[int, str]) -> None:
        """Write a numbered part of a unit, and the reasons of its failed tiles, to a temporary file."""
        content, rows = io.BytesIO(), np.array(list(failed), np.int64)
        columns: dict[str, Any] = {f"column{number}": values for number, values in enumerate(encoded)}
        np.savez(content, rows=rows, reasons=np.array(list(failed.values()), np.str_), **columns)
        (self._parts_folder(unit) / f"{part:06d}.npz").write_bytes(content.getvalue())

    def commit_parts(self, unit: WorkUnit, parts: int) -> None:
        """Commit a unit from its parts, in order, and remove them."""
        folder = self._parts_folder(unit)
        if not self.is_committed(unit):  # else a worker died after its commit
            batches: list[Encoded] = []
            failed: dict[int, str] = {}
            for part in range(parts):
                with np.load(io.BytesIO((folder / f"{part:06d}.npz").read_bytes()), allow_pickle=False) as arrays:
                    batches.append(tuple(arrays[f"column{number}"] for number in range(len(arrays.files) - 2)))
                    failed |= dict(zip(arrays["rows"].tolist(), arrays["reasons"].tolist(), strict=True))
            self.commit(unit, batches, failed)
        folder.remove()

    def _parts_folder(self, unit: WorkUnit) -> StoragePath:
        return self.outputs[0].path / "parts" / unit.unit
