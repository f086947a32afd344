"""The product's own work with traps set before or after one of its calls, in the process that does it."""

import contextlib
import functools
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from raystp.cluster.streams.units import Pixels, Vectors, WorkUnit
from raystp.index.remote import open_shard_group
from raystp.steps.embed import step as embed
from raystp.steps.embed.work import EmbedWork
from raystp.steps.impute import step as impute
from raystp.steps.impute.work import SlideTask
from raystp.steps.tile import step as tile
from raystp.storage import StoragePath
from tests.faults.traps import LITTLE, MANY, Plot, Trap

_TILE = tile._tile
NONE = Plot((), Path())


@dataclass(frozen=True)
class TrappedWork(EmbedWork):
    """The product's own work, with traps in it."""

    plot: Plot = NONE

    def begin(self, unit: WorkUnit) -> str:
        self.plot.note(f"begin {unit.unit}")
        return super().begin(unit)

    def make_reader(self, *how: Any) -> Any:
        self.plot.set_up()
        self.plot.note("process")
        read = super().make_reader(*how)

        def trapped(unit: WorkUnit, start: int, stop: int) -> Pixels:
            self._spring("read", unit, stop)
            return read(unit, start, stop)

        return trapped

    def make_encoder(self) -> Callable[[Pixels], Vectors]:
        self.plot.set_up()
        self.plot.note("process")
        return super().make_encoder()

    def commit(self, unit: WorkUnit, vectors: Vectors) -> None:
        self._spring("commit", unit)
        with contextlib.ExitStack() as stack:
            for trap in self.plot.due("record", unit.slide, unit.unit):
                stack.enter_context(_before_record(trap))
            for trap in self.plot.due("aside", unit.slide, unit.unit):
                stack.enter_context(_while_written(trap))
            super().commit(unit, vectors)
        self._spring("committed", unit)

    def _spring(self, at: str, unit: WorkUnit, stop: int = MANY) -> None:
        for trap in self.plot.due(at, unit.slide, unit.unit, stop):
            trap.spring()


@contextlib.contextmanager
def _before_record(trap: Trap) -> Iterator[None]:
    """Spring between a unit's table and its commit record."""
    write = StoragePath.write_new

    def trapped(place: StoragePath, content: bytes, **more: Any) -> bool:
        if place.parent.name == "commits":
            trap.spring()
        return write(place, content, **more)

    with mock.patch.object(StoragePath, "write_new", trapped):
        yield


@contextlib.contextmanager
def _while_written(trap: Trap) -> Iterator[None]:
    """Spring while a unit's table is on its way to the disk; a full disk is full until it is through."""
    if trap.how != "full":
        with mock.patch.object(os, "fsync", side_effect=lambda _: trap.spring()):
            yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@dataclass(frozen=True)
class TrappedTile:
    """The product's own tiling of a slide, with traps before it."""

    plot: Plot

    def __call__(self, work: Any) -> Any:
        self.plot.set_up()
        self.plot.note("process")
        for trap in self.plot.due("tile", work.row.slide):
            trap.spring()
        try:
            return _TILE(work)
        finally:
            self.plot.note(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000}")


@dataclass(frozen=True)
class TrappedImpute(SlideTask):
    """The product's own prediction of slides, with traps before it, and between it and its commit record."""

    plot: Plot = NONE

    def make_worker(self) -> Callable[[str], int]:
        self.plot.note("process")
        predict = super().make_worker()

        def trapped(slide: str) -> int:
            self.plot.note(f"begin {slide}")
            for trap in self.plot.due("impute", slide):
                trap.spring()
            return predict(slide)

        return trapped


def noted_part(plot: Plot, *about: Any) -> Any:
    """Open a part of a bank, and write down who holds it."""
    plot.note("shard")
    return open_shard_group(*about)


@contextlib.contextmanager
def trapped(plot: Plot) -> Iterator[None]:
    """Set the traps in all that this process sends out as work."""

    def work(**fields: Any) -> TrappedWork:
        return TrappedWork(**fields, plot=plot)

    tiling = TrappedTile(plot)

    def tiled(one: Any) -> Any:
        return tiling(one)

    def predicted(**fields: Any) -> TrappedImpute:
        return TrappedImpute(**fields, plot=plot)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(embed, "EmbedWork", work))
        stack.enter_context(mock.patch.object(tile, "_tile", tiled))
        stack.enter_context(mock.patch.object(impute, "SlideTask", predicted))
        stack.enter_context(mock.patch.object(impute, "open_shard_group", functools.partial(noted_part, plot)))
        yield
