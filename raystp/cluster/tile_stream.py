"""Slides -> embeddings, on Ray Data: the stream's row is a work unit, never a tile.

A unit is a compact part of one slide (a range of rows of its tiles table). Only units travel from the driver. Pixels
are made where they are used: by default, reader threads inside the encoder's actor keep batches of uint8 tiles ahead
of the device. With `readers` > 0, a separate pool of CPU readers hands bounded parts of a unit over one hop through
the object store instead (slow codecs, GPU nodes that are poor in CPU). Same rows either way.

What is done with a unit is passed in as a `Work`: this room moves it about, and knows no slide and no encoder. A unit
that fails with a sentence becomes a receipt with that sentence; the stream goes on.

Ray Data's own row checkpoints do not serve here (they filter nothing unless the plan starts at a read), so a unit is
committed by the worker that finished it, under its own name, and the driver subtracts what is committed before it
starts.
"""

import itertools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import ray
import ray.data
from jaxtyping import Float, UInt8
from ray.data import ActorPoolStrategy

from raystp.errors import RaystpError

Pixels = UInt8[np.ndarray, "tile pixel pixel 3"]
Vectors = Float[np.ndarray, "tile dim"]

JOIN_THREADS = 4

RETRIES = 3
"""How often a unit whose actor died is tried again; Ray's own default is without end, which hides a crashing slide."""


@dataclass(frozen=True)
class Unit:
    """A compact part of one slide: rows `first` to `first + rows` of its tiles table."""

    unit: str
    slide: str
    first: int
    rows: int


@dataclass(frozen=True)
class Receipt:
    """What became of a unit: its rows are committed, or `error` is the sentence that says why not."""

    unit: str
    slide: str
    rows: int
    error: str


@runtime_checkable
class Work(Protocol):
    """What is done with a unit.

    It travels to the workers: it holds names and configs, and builds what it needs there.
    """

    def reader(self) -> Callable[[Unit, int, int], Pixels]:
        """Build what reads tiles [start, stop) of a unit."""

    def encoder(self) -> Callable[[Pixels], Vectors]:
        """Build what turns tiles into vectors, on the device of this process."""

    def commit(self, unit: Unit, vectors: Vectors) -> None:
        """Publish a whole unit, atomically."""

    def keep(self, unit: Unit, part: int, vectors: Vectors) -> None:
        """Set a part of a unit aside."""

    def join(self, unit: Unit, parts: int) -> None:
        """Publish a unit from its parts."""


@dataclass(frozen=True)
class Width:
    """How wide the stream runs; nothing here changes a row."""

    encoders: int
    batch_tiles: int
    threads: int
    readers: int = 0
    cpus_per_encoder: float = 1.0
    gpus_per_encoder: float = 0.0


def stream(work: Work, units: list[Unit], width: Width) -> Iterator[Receipt]:
    """Run every unit and yield its receipt as it is done, in no particular order."""
    if not units:
        return
    plan = build_plan(work, units, width)
    if width.readers == 0:
        for row in plan.iter_rows():
            yield Receipt(**row)
        return
    yield from _join_parts(work, {unit.unit: unit for unit in units}, plan)


def build_plan(work: Work, units: list[Unit], width: Width) -> "ray.data.Dataset":
    """Return the lazy Ray Data plan: one actor pool, or a reader pool and an encoder pool one hop apart."""
    source = ray.data.from_items([asdict(unit) for unit in units], override_num_blocks=len(units))
    pool: dict[str, Any] = {
        "batch_size": 1,
        "compute": ActorPoolStrategy(size=width.encoders),
        "num_cpus": width.cpus_per_encoder,
        "num_gpus": width.gpus_per_encoder,
        "max_task_retries": RETRIES,
    }
    with warnings.catch_warnings():
        # Ray means to drop extra actor options in 2.64; in 2.60 there is no other way to bound the retries.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        if width.readers == 0:
            return source.map_batches(EncodeUnit, fn_constructor_args=(work, width), **pool)
        parts = source.map_batches(
            ReadUnit,
            fn_constructor_args=(work, width),
            batch_size=1,
            compute=ActorPoolStrategy(size=width.readers),
            num_cpus=0.5,  # unlike the encoders' share, or Ray fuses both into one operator
            max_task_retries=RETRIES,
        )
        return parts.map_batches(EncodePart, fn_constructor_args=(work,), **pool)


class EncodeUnit:
    """An actor that reads, encodes and commits whole units."""

    def __init__(self, work: Work, width: Width) -> None:
        self._work, self._width = work, width
        self._read, self._encode = work.reader(), work.encoder()
        self._threads = ThreadPoolExecutor(width.threads)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Turn a batch of one unit into its receipt."""
        unit = _unit(batch)
        try:
            vectors = [self._encode(pixels) for pixels in self._ahead(unit)]
            self._work.commit(unit, np.concatenate(vectors))
        except RaystpError as error:
            return _receipt(unit, str(error))
        return _receipt(unit, "")

    def _ahead(self, unit: Unit) -> Iterator[Pixels]:
        """Yield a unit's batches in order, with one batch per thread being read ahead of the encoder."""
        spans = iter(_spans(unit.rows, self._width.batch_tiles))
        waiting: list[Future[Pixels]] = []

        def submit(count: int) -> None:
            waiting.extend(self._threads.submit(self._read, unit, *span) for span in itertools.islice(spans, count))

        submit(self._width.threads + 1)
        try:
            while waiting:
                pixels = waiting.pop(0).result()
                submit(1)
                yield pixels
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)  # a read that has begun ends before the reader turns to another slide


class ReadUnit:
    """An actor that reads a unit and hands it on in bounded parts."""

    def __init__(self, work: Work, width: Width) -> None:
        self._read, self._width = work.reader(), width

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, list[Any]]]:
        """Yield a row per part: the unit, the part's number, its pixels as bytes; or a failure's sentence."""
        unit = _unit(batch)
        spans = _spans(unit.rows, self._width.batch_tiles)
        for part, span in enumerate(spans):
            row = {**asdict(unit), "part": part, "parts": len(spans), "side": 0, "pixels": b"", "error": ""}
            try:
                pixels = self._read(unit, *span)
            except RaystpError as error:
                yield {key: [value] for key, value in (row | {"error": str(error)}).items()}
                return
            row |= {"side": pixels.shape[1], "pixels": pixels.tobytes()}
            yield {key: [value] for key, value in row.items()}


class EncodePart:
    """An actor that encodes a part of a unit and sets it aside."""

    def __init__(self, work: Work) -> None:
        self._work, self._encode = work, work.encoder()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Turn a batch of one part into what the driver needs to know: no pixels, no vectors."""
        unit, part, error = _unit(batch), int(batch["part"][0]), str(batch["error"][0])
        if not error:
            side = int(batch["side"][0])
            pixels = np.frombuffer(batch["pixels"][0], np.uint8).reshape(-1, side, side, 3)
            try:
                self._work.keep(unit, part, self._encode(pixels))
            except RaystpError as caught:
                error = str(caught)
        return {"unit": [unit.unit], "part": [part], "parts": [int(batch["parts"][0])], "error": [error]}


class JoinParts:
    """An actor that joins whole units: one process for all of them, since each process imports anew what it needs."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def join(self, unit: Unit, parts: int) -> str:
        """Publish a unit from its parts; return the sentence of a failure, or nothing."""
        try:
            self._work.join(unit, parts)
        except RaystpError as error:
            return str(error)
        return ""


def _join_parts(work: Work, units: dict[str, Unit], plan: "ray.data.Dataset") -> Iterator[Receipt]:
    """Join each unit once all its parts are aside; yield its receipt as soon as it is there."""
    # No CPU of its own: the encoders may hold all of them until the last part is encoded.
    options = {"num_cpus": 0, "max_restarts": RETRIES, "max_task_retries": RETRIES, "max_concurrency": JOIN_THREADS}
    joiner: Any = ray.remote(JoinParts).options(**options).remote(work)
    seen: dict[str, set[int]] = defaultdict(set)
    failed: set[str] = set()
    joining: dict[ray.ObjectRef[str], Unit] = {}
    for row in plan.iter_rows():
        unit = units[row["unit"]]
        if row["error"] and unit.unit not in failed:
            failed.add(unit.unit)
            yield Receipt(unit.unit, unit.slide, 0, row["error"])
        seen[unit.unit].add(row["part"])
        if len(seen[unit.unit]) == row["parts"] and unit.unit not in failed:
            joining[joiner.join.remote(unit, row["parts"])] = unit
        yield from _joined(joining, timeout_s=0.0)
    while joining:
        yield from _joined(joining, timeout_s=None)


def _joined(joining: "dict[ray.ObjectRef[str], Unit]", timeout_s: float | None) -> Iterator[Receipt]:
    """Yield the receipts of units whose joining is over, after waiting for one if there is no timeout."""
    ready, _ = ray.wait(list(joining), timeout=timeout_s) if joining else ([], [])
    for reference in ready:
        unit, error = joining.pop(reference), ray.get(reference)
        yield Receipt(unit.unit, unit.slide, 0 if error else unit.rows, error)


def _spans(rows: int, batch: int) -> list[tuple[int, int]]:
    return [(start, min(start + batch, rows)) for start in range(0, rows, batch)]


def _unit(batch: dict[str, np.ndarray]) -> Unit:
    return Unit(str(batch["unit"][0]), str(batch["slide"][0]), int(batch["first"][0]), int(batch["rows"][0]))


def _receipt(unit: Unit, error: str) -> dict[str, list[Any]]:
    return {"unit": [unit.unit], "slide": [unit.slide], "rows": [0 if error else unit.rows], "error": [error]}
