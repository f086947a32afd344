"""The product's work with traps before or after its calls, in the process that does the work."""

import contextlib
import functools
import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from raystp.cluster.streams.units import Encoded, Pixels, ReadTiles, WorkUnit
from raystp.index.remote import open_shard_group
from raystp.steps.embed import step as embed
from raystp.steps.embed.work import EmbedWork
from raystp.steps.impute import step as impute
from raystp.steps.impute.work import SlideTask
from raystp.steps.tile import step as tile
from raystp.steps.tile.work import tile_slide
from raystp.storage import StoragePath
from tests.faults.traps import FULL_DISK_BYTES, MANY, FaultPlan, Trap

NONE = FaultPlan((), Path())


@dataclass(frozen=True)
class FaultyEmbedWork(EmbedWork):
    """The work of `embed`, with traps."""

    plan: FaultPlan = NONE

    def begin(self, unit: WorkUnit) -> str:
        self.plan.log_event(f"start {unit.unit}")
        return super().begin(unit)

    def make_reader(self, *arguments: Any) -> Any:
        self.plan.set_up()
        self.plan.log_event("process")
        read = super().make_reader(*arguments)

        def trapped(unit: WorkUnit, start: int, stop: int) -> ReadTiles:
            self._trigger("read", unit, stop)
            return read(unit, start, stop)

        return trapped

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        self.plan.set_up()
        self.plan.log_event("process")
        return super().make_encoder()

    def commit(self, unit: WorkUnit, batches: Sequence[Encoded], failed: Mapping[int, str]) -> None:
        self._trigger("commit", unit)
        with contextlib.ExitStack() as stack:
            for trap in self.plan.due("record", unit.slide, unit.unit):
                stack.enter_context(_before_record(trap))
            for trap in self.plan.due("writing", unit.slide, unit.unit):
                stack.enter_context(_while_written(trap))
            super().commit(unit, batches, failed)
        self._trigger("committed", unit)

    def _trigger(self, at: str, unit: WorkUnit, stop: int = MANY) -> None:
        for trap in self.plan.due(at, unit.slide, unit.unit, stop):
            trap.trigger()


@contextlib.contextmanager
def _before_record(trap: Trap) -> Iterator[None]:
    """Trigger between a unit's table and its commit record."""
    write = StoragePath.write_new

    def trapped(path: StoragePath, content: bytes, **more: Any) -> bool:
        if path.parent.name == "commits":
            trap.trigger()
        return write(path, content, **more)

    with mock.patch.object(StoragePath, "write_new", trapped):
        yield


@contextlib.contextmanager
def _while_written(trap: Trap) -> Iterator[None]:
    """Trigger while a unit's table is written; a full disk stays full until the write ends."""
    if trap.how != "full":
        with mock.patch.object(os, "fsync", side_effect=lambda _: trap.trigger()):
            yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_DISK_BYTES, before[1]))
    sys.dont_write_bytecode = True  # of a module that is first imported here half would be written
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@dataclass(frozen=True)
class FaultyTile:
    """The work of `tile` on a slide, with traps before it."""

    plan: FaultPlan

    def __call__(self, work: Any) -> Any:
        self.plan.set_up()
        self.plan.log_event("process")
        for trap in self.plan.due("tile", work.row.slide):
            trap.trigger()
        try:
            return tile_slide(work)
        finally:
            self.plan.log_event(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000}")


@dataclass(frozen=True)
class FaultyImpute(SlideTask):
    """The work of `impute`, with traps before it, and between it and its commit record."""

    plan: FaultPlan = NONE

    def make_worker(self) -> Callable[[str], int]:
        self.plan.log_event("process")
        predict = super().make_worker()

        def trapped(slide: str) -> int:
            self.plan.log_event(f"start {slide}")
            for trap in self.plan.due("impute", slide):
                trap.trigger()
            return predict(slide)

        return trapped


def logged_shard(plan: FaultPlan, *arguments: Any) -> Any:
    """Open shards of an index, and log the process that holds them."""
    plan.log_event("shard")
    return open_shard_group(*arguments)


@contextlib.contextmanager
def trapped(plan: FaultPlan) -> Iterator[None]:
    """Add the traps to all work that this process starts."""

    def work(**fields: Any) -> FaultyEmbedWork:
        return FaultyEmbedWork(**fields, plan=plan)

    tiling = FaultyTile(plan)

    def tiled(one: Any) -> Any:
        return tiling(one)

    def predicted(**fields: Any) -> FaultyImpute:
        return FaultyImpute(**fields, plan=plan)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(embed, "EmbedWork", work))
        stack.enter_context(mock.patch.object(tile, "tile_slide", tiled))
        stack.enter_context(mock.patch.object(impute, "SlideTask", predicted))
        stack.enter_context(mock.patch.object(impute, "open_shard_group", functools.partial(logged_shard, plan)))
        yield
