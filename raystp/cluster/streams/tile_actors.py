"""Actors of the tile stream: one that reads and encodes whole units, and three that share a unit's parts."""

import contextlib
import faulthandler
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import TypeAlias, TypeVar

import numpy as np
import ray

from raystp.cluster.memory import keep_freed_memory
from raystp.cluster.metrics import EncoderMetrics
from raystp.cluster.streams.encode_ahead import encode_ahead, starter
from raystp.cluster.streams.units import (
    Encoded,
    HoldsFile,
    Pixels,
    ReadTiles,
    StreamResources,
    UnitReceipt,
    UnitWork,
    WorkUnit,
)
from raystp.errors import ClusterError, RaystpError, failure_reason, to_text

Batch: TypeAlias = dict[str, np.ndarray]
Rows: TypeAlias = dict[str, list[object]]
Result = TypeVar("Result")

EXIT_HUNG = 70
"""Exit status of a process that was killed because a read hung."""

GRACE_S = 1.0
"""Time that a hung process gets to exit by itself, before faulthandler ends it."""


class _Start:
    """What a process makes before its first unit. An exception there ends the run, as a receipt with `fatal`.

    Ray would print the traceback of an actor's constructor on both streams, and restart without limit one that crashes.
    """

    def __init__(self, work: UnitWork, make: Callable[[], None]) -> None:
        context = ray.get_runtime_context()
        process = context.get_actor_id() or context.get_task_id() or ""  # a retried task keeps its id
        self.fatal = ""
        keep_freed_memory()
        try:
            if refusal := work.begin_start(process):
                self.fatal = to_text(ClusterError(refusal))
                return
            make()
            work.end_start(process)
        except Exception as caught:  # noqa: BLE001 -- the driver raises it
            self.fatal = to_text(caught)
            with contextlib.suppress(RaystpError):  # the store's own error is the one above
                work.end_start(process)


class EncodeUnit:
    """Actor that reads, encodes and commits whole units."""

    def __init__(self, work: UnitWork, resources: StreamResources) -> None:
        self._work, self._resources = work, resources
        self._start = _Start(work, self._make)
        self._waited_s = self._encoded_s = 0.0
        self._threads = ThreadPoolExecutor(resources.threads)
        self._metrics = EncoderMetrics()

    def _make(self) -> None:
        self._read = self._work.make_reader(2 * self._resources.threads + 2)
        self._start_encoding = starter(self._work.make_encoder())

    def __call__(self, batch: Batch) -> Rows:
        """Turn a batch of one unit into its receipt."""
        unit = _unit(batch)
        self._waited_s = self._encoded_s = 0.0
        fatal, error = self._start.fatal, ""
        try:
            error = fatal or self._run(unit)
        except Exception as caught:  # noqa: BLE001 -- from the store
            error = failure_reason(caught)
        rows = 0 if error else unit.rows
        self._metrics.add(tiles=rows, failed=bool(error), waited_s=self._waited_s, busy_s=self._encoded_s)
        receipt = UnitReceipt(unit.unit, unit.slide, rows, error, self._waited_s, self._encoded_s, fatal)
        return {key: [value] for key, value in asdict(receipt).items()}

    def close(self) -> None:
        """End the threads, and close the slide that is open."""
        self._threads.shutdown(wait=False)  # no read is under way between units
        if not self._start.fatal and isinstance(self._read, HoldsFile):
            self._read.close()

    def _run(self, unit: WorkUnit) -> str:
        """Commit a unit; return an error message, or an empty string."""
        if self._work.is_committed(unit):
            return ""
        if refusal := self._work.begin(unit):
            return refusal
        error = ""
        try:
            encoded: list[Encoded] = []
            failed: dict[int, str] = {}
            for columns, reasons in encode_ahead(self._batches(unit), self._timed_start):
                encoded.append(columns)
                failed |= reasons
            self._work.commit(unit, encoded, failed)
        except Exception as caught:  # noqa: BLE001 -- one unit's fault does not end the others
            error = failure_reason(caught)
        self._work.end(unit)
        return error

    def _timed_start(self, pixels: Pixels) -> Callable[[], Encoded]:
        finish = self._timed(lambda: self._start_encoding(pixels))
        return lambda: self._timed(finish)

    def _timed(self, function: Callable[[], Result]) -> Result:
        start = time.monotonic()
        result = function()
        self._encoded_s += time.monotonic() - start
        return result

    def _batches(self, unit: WorkUnit) -> Iterator[ReadTiles]:
        """Yield a unit's batches in order; each thread reads one batch ahead of the encoder."""
        ranges = iter(_ranges(unit.rows, self._resources.batch_tiles))
        reading: list[Future[ReadTiles]] = []

        def submit(count: int) -> None:
            reading.extend(self._threads.submit(self._read, unit, *one) for one in itertools.islice(ranges, count))

        submit(self._resources.threads + 1)
        try:
            while reading:
                start = time.monotonic()
                tiles = _result(reading.pop(0), unit, self._resources.deadline_s)
                self._waited_s += time.monotonic() - start
                submit(1)
                yield tiles
        finally:
            for future in reading:
                future.cancel()
            wait(reading)  # running reads finish before the reader opens another slide


class ReadUnit:
    """Actor that reads a unit and yields it in bounded parts."""

    def __init__(self, work: UnitWork, resources: StreamResources) -> None:
        self._work, self._resources = work, resources
        self._start = _Start(work, self._make)
        self._thread = ThreadPoolExecutor(1)

    def _make(self) -> None:
        self._read = self._work.make_reader(1)

    def __call__(self, batch: Batch) -> Iterator[Rows]:
        """Yield a row per part: the unit, the part's number, and its pixels as bytes or an error message.

        A committed unit gives a single row with 0 parts.
        """
        unit, fatal = _unit(batch), self._start.fatal
        ranges = _ranges(unit.rows, self._resources.batch_tiles)
        try:
            committed = not fatal and self._work.is_committed(unit)
            error = fatal or ("" if committed else self._work.begin(unit))
        except Exception as caught:  # noqa: BLE001 -- from the store
            committed, error = False, failure_reason(caught)
        if committed or error:
            yield _part_row(unit, 0, 0 if committed else len(ranges), error=error, fatal=fatal)
            return
        for part, (start, stop) in enumerate(ranges):
            try:
                future = self._thread.submit(self._read, unit, start, stop)
                tiles = _result(future, unit, self._resources.deadline_s)
            except Exception as caught:  # noqa: BLE001 -- one unit's fault does not end the others
                yield _part_row(unit, part, len(ranges), error=failure_reason(caught))
                break
            yield _part_row(unit, part, len(ranges), tiles=tiles)
        self._work.end(unit)


class EncodePart:
    """Actor that encodes a part of a unit and writes it to a temporary file."""

    def __init__(self, work: UnitWork) -> None:
        self._work = work
        self._start = _Start(work, self._make)

    def _make(self) -> None:
        self._encode = self._work.make_encoder()

    def __call__(self, batch: Batch) -> Rows:
        """Turn a batch of one part into a row for the driver, without pixels and vectors."""
        unit, part = _unit(batch), int(batch["part"][0])
        fatal = str(batch["fatal"][0]) or self._start.fatal
        error = str(batch["error"][0]) or fatal
        if not error and batch["parts"][0]:
            tile_px = int(batch["tile_px"][0])
            pixels = np.frombuffer(batch["pixels"][0], np.uint8).reshape(-1, tile_px, tile_px, 3)
            failed = {int(row): str(reason) for row, reason in json.loads(batch["failed"][0])}
            try:
                self._work.write_part(unit, part, self._encode(pixels), failed)
            except Exception as caught:  # noqa: BLE001 -- one unit's fault does not end the others
                error = failure_reason(caught)
        row = {"unit": unit.unit, "part": part, "parts": int(batch["parts"][0]), "error": error, "fatal": fatal}
        return {key: [value] for key, value in row.items()}


class JoinParts:
    """Actor that joins units from their parts: one process for all units, since each process imports everything."""

    def __init__(self, work: "list[ray.ObjectRef[UnitWork]]") -> None:
        self._work = ray.get(work[0])
        self._metrics = EncoderMetrics()

    def join(self, unit: WorkUnit, parts: int) -> str:
        """Commit a unit from its parts; return an error message, or an empty string."""
        try:
            self._work.commit_parts(unit, parts)
        except Exception as error:  # noqa: BLE001 -- one unit's fault does not end the others
            self._metrics.add(tiles=0, failed=True)
            return failure_reason(error)
        self._metrics.add(tiles=unit.rows, failed=False)
        return ""


def _result(future: "Future[ReadTiles]", unit: WorkUnit, deadline_s: float) -> ReadTiles:
    """Return what was read; after the deadline exit the process, since a decoder cannot be interrupted otherwise.

    A decoder that hangs while it holds the GIL stops this thread too; then faulthandler's own thread exits.
    """
    faulthandler.dump_traceback_later(deadline_s + GRACE_S, exit=True, file=2)
    try:
        return future.result(timeout=deadline_s)
    except TimeoutError:
        sys.stderr.write(f"a read of {unit.unit} exceeded the {deadline_s:.0f} s deadline; its process exits\n")
        sys.stderr.flush()
        os._exit(EXIT_HUNG)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _part_row(
    unit: WorkUnit, part: int, parts: int, *, tiles: ReadTiles | None = None, error: str = "", fatal: str = ""
) -> Rows:
    """Return the row of one part, as the readers send it to the encoders."""
    tile_px, content, failed = 0, b"", "[]"
    if tiles is not None:
        tile_px, content = tiles.pixels.shape[1], tiles.pixels.tobytes()
        failed = json.dumps(list(tiles.failed.items()))
    row = {**asdict(unit), "part": part, "parts": parts, "tile_px": tile_px, "pixels": content, "failed": failed}
    return {key: [value] for key, value in {**row, "error": error, "fatal": fatal}.items()}


def _ranges(rows: int, batch: int) -> list[tuple[int, int]]:
    return [(start, min(start + batch, rows)) for start in range(0, rows, batch)]


def _unit(batch: Batch) -> WorkUnit:
    return WorkUnit(str(batch["unit"][0]), str(batch["slide"][0]), int(batch["first"][0]), int(batch["rows"][0]))
