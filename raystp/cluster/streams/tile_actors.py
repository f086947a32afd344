"""The actors of the stream: what reads and encodes whole units, and what reads and encodes apart."""

import faulthandler
import itertools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any

import numpy as np

from raystp.cluster.streams.units import Pixels, StreamResources, UnitReceipt, UnitWork, Vectors, WorkUnit
from raystp.errors import RaystpError

HUNG = 70
"""Exit status of a process that was ended because a read hung in it."""

GRACE_S = 1.0
"""How much longer a process has that cannot end itself."""


class EncodeUnit:
    """An actor that reads, encodes and commits whole units."""

    def __init__(self, work: UnitWork, width: StreamResources) -> None:
        self._work, self._width = work, width
        self._read, self._encode = work.reader(2 * width.threads + 2), work.encoder()
        self._waited_s = self._encoded_s = 0.0
        self._threads = ThreadPoolExecutor(width.threads)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Turn a batch of one unit into its receipt."""
        unit = _unit(batch)
        self._waited_s = self._encoded_s = 0.0
        try:
            error = self._run(unit)
        except RaystpError as caught:  # the store's own
            error = str(caught)
        rows = 0 if error else unit.rows
        receipt = UnitReceipt(unit.unit, unit.slide, rows, error, self._waited_s, self._encoded_s)
        return {key: [value] for key, value in asdict(receipt).items()}

    def _run(self, unit: WorkUnit) -> str:
        """Commit a unit; return the sentence of a failure, or nothing."""
        if self._work.done(unit):
            return ""
        if refusal := self._work.begin(unit):
            return refusal
        error = ""
        try:
            vectors = [self._timed(pixels) for pixels in self._ahead(unit)]
            self._work.commit(unit, np.concatenate(vectors))
        except RaystpError as caught:
            error = str(caught)
        self._work.ended(unit)
        return error

    def _timed(self, pixels: Pixels) -> Vectors:
        began = time.monotonic()
        vectors = self._encode(pixels)
        self._encoded_s += time.monotonic() - began
        return vectors

    def _ahead(self, unit: WorkUnit) -> Iterator[Pixels]:
        """Yield a unit's batches in order, with one batch per thread being read ahead of the encoder."""
        spans = iter(_spans(unit.rows, self._width.batch_tiles))
        waiting: list[Future[Pixels]] = []

        def submit(count: int) -> None:
            waiting.extend(self._threads.submit(self._read, unit, *span) for span in itertools.islice(spans, count))

        submit(self._width.threads + 1)
        try:
            while waiting:
                began = time.monotonic()
                pixels = _in_time(waiting.pop(0), unit, self._width.deadline_s)
                self._waited_s += time.monotonic() - began
                submit(1)
                yield pixels
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)  # a read that has begun ends before the reader turns to another slide


class ReadUnit:
    """An actor that reads a unit and hands it on in bounded parts."""

    def __init__(self, work: UnitWork, width: StreamResources) -> None:
        self._work, self._read, self._width = work, work.reader(1), width
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, list[Any]]]:
        """Yield a row per part: the unit, the part's number, its pixels as bytes; or a failure's sentence.

        A unit that is committed is a single row, of no parts.
        """
        unit = _unit(batch)
        spans = _spans(unit.rows, self._width.batch_tiles)
        try:
            done = self._work.done(unit)
            error = "" if done else self._work.begin(unit)
        except RaystpError as caught:  # the store's own
            done, error = False, str(caught)
        if done or error:
            yield _part(unit, 0, 0 if done else len(spans), error=error)
            return
        for part, span in enumerate(spans):
            try:
                future = self._thread.submit(self._read, unit, *span)
                pixels = _in_time(future, unit, self._width.deadline_s)
            except RaystpError as caught:
                yield _part(unit, part, len(spans), error=str(caught))
                break
            yield _part(unit, part, len(spans), pixels=pixels)
        self._work.ended(unit)


class EncodePart:
    """An actor that encodes a part of a unit and sets it aside."""

    def __init__(self, work: UnitWork) -> None:
        self._work, self._encode = work, work.encoder()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Turn a batch of one part into what the driver needs to know: no pixels, no vectors."""
        unit, part, error = _unit(batch), int(batch["part"][0]), str(batch["error"][0])
        if not error and batch["parts"][0]:
            side = int(batch["side"][0])
            pixels = np.frombuffer(batch["pixels"][0], np.uint8).reshape(-1, side, side, 3)
            try:
                self._work.keep(unit, part, self._encode(pixels))
            except RaystpError as caught:
                error = str(caught)
        return {"unit": [unit.unit], "part": [part], "parts": [int(batch["parts"][0])], "error": [error]}


class JoinParts:
    """An actor that joins whole units: one process for all of them, since each process imports anew what it needs."""

    def __init__(self, work: UnitWork) -> None:
        self._work = work

    def join(self, unit: WorkUnit, parts: int) -> str:
        """Publish a unit from its parts; return the sentence of a failure, or nothing."""
        try:
            self._work.join(unit, parts)
        except RaystpError as error:
            return str(error)
        return ""


def _in_time(future: "Future[Pixels]", unit: WorkUnit, deadline_s: float) -> Pixels:
    """Return what was read; end this process where that takes too long, since nothing else stops a decoder.

    One that hangs with Python's lock lets no Python run: then faulthandler's own thread ends the process.
    """
    faulthandler.dump_traceback_later(deadline_s + GRACE_S, exit=True, file=2)
    try:
        return future.result(timeout=deadline_s)
    except TimeoutError:
        sys.stderr.write(f"a read of {unit.unit} has hung for {deadline_s:.0f} s: its process is ended\n")
        sys.stderr.flush()
        os._exit(HUNG)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _part(
    unit: WorkUnit, part: int, parts: int, *, pixels: Pixels | None = None, error: str = ""
) -> dict[str, list[Any]]:
    """Return the row of one part, as it crosses between the readers and the encoders."""
    side, content = (pixels.shape[1], pixels.tobytes()) if pixels is not None else (0, b"")
    row = {**asdict(unit), "part": part, "parts": parts, "side": side, "pixels": content, "error": error}
    return {key: [value] for key, value in row.items()}


def _spans(rows: int, batch: int) -> list[tuple[int, int]]:
    return [(start, min(start + batch, rows)) for start in range(0, rows, batch)]


def _unit(batch: dict[str, np.ndarray]) -> WorkUnit:
    return WorkUnit(str(batch["unit"][0]), str(batch["slide"][0]), int(batch["first"][0]), int(batch["rows"][0]))
