"""Units as plain tasks, as on one machine: the same rows; a process makes its encoder once, and lets go of old work."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray

from raystp.cluster.session import joined
from raystp.cluster.streams import tiles as tile_stream
from raystp.cluster.streams import unit_tasks
from raystp.cluster.streams.tile_actors import EncodeUnit
from raystp.cluster.streams.tiles import stream
from raystp.cluster.streams.units import Encoded, Pixels, ReadTiles, StreamResources, UnitReceipt, WorkUnit
from tests.cluster.streams.test_tiles import BROKEN, FATAL, MESSAGE, UNITS, Numbers, check_committed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_on_one_machine_units_are_plain_tasks_and_commit_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_stream, "build_plan", None)  # Ray Data must not be used
    resources = StreamResources(encoders=2, batch_tiles=7, threads=2)
    with joined(is_local=True):
        receipts = list(stream(Numbers(tmp_path), [BROKEN, FATAL, *UNITS], resources))
    failed = [UnitReceipt(BROKEN.unit, BROKEN.slide, 0, MESSAGE)]
    check_committed(tmp_path, receipts, [FATAL, *UNITS], failed=failed)


@dataclass(frozen=True)
class Counted(Numbers):
    """Work that notes each encoder that is made, by its process."""

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        (self.folder / f"made-{os.getpid()}-{time.time_ns()}").touch()
        return super().make_encoder()


def test_a_process_makes_its_encoder_once(tmp_path: Path) -> None:
    units = [WorkUnit(f"one.{number}", "one", number, 1) for number in range(12)]
    with joined(is_local=True):
        list(stream(Counted(tmp_path), units, StreamResources(encoders=2, batch_tiles=7, threads=1)))
    made = [path.name.split("-")[1] for path in tmp_path.glob("made-*")]
    assert len(set(made)) == len(made) < len(units)


@dataclass
class Reader:
    """A reader that notes whether it was closed."""

    is_open: bool = True

    def __call__(self, unit: WorkUnit, start: int, stop: int) -> ReadTiles:
        raise NotImplementedError

    def close(self) -> None:
        self.is_open = False


@dataclass(frozen=True)
class Holding(Numbers):
    """Work whose reader holds a file."""

    reader: Reader = field(default_factory=Reader)

    def make_reader(self, buffers: int) -> Reader:  # noqa: ARG002 -- none is read
        return self.reader


def test_a_process_that_gets_other_work_closes_the_slide_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, resources = Holding(tmp_path), StreamResources(encoders=1, batch_tiles=7, threads=1)
    last = {b"before": EncodeUnit(before, resources)}
    monkeypatch.setattr(unit_tasks, "_LAST", last)
    unit_tasks._run_unit(UNITS[0], [ray.put(Numbers(tmp_path))], resources)
    assert (len(last), before.reader.is_open) == (1, False)
