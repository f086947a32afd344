"""The tile stream on toy slides: parallelism changes no row; a unit is committed once, or fails with a message."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from raystp.cluster.streams import units as work_units
from raystp.cluster.streams.tiles import build_plan, stream
from raystp.cluster.streams.units import Encoded, Pixels, ReadTiles, StreamResources, UnitReceipt, WorkUnit
from raystp.errors import ClusterError, EncoderError, SlideError

pytestmark = pytest.mark.ray

TILE_PX = 4
UNITS = [WorkUnit("one.0", "one", 0, 100), WorkUnit("one.1", "one", 100, 64), WorkUnit("two.0", "two", 0, 7)]
BROKEN = WorkUnit("broken.0", "broken", 0, 90)
ODD = WorkUnit("odd.0", "odd", 0, 90)
FATAL = WorkUnit("fatal.0", "fatal", 0, 20)
DEADLY = WorkUnit("deadly.0", "deadly", 0, 20)
HANGING = WorkUnit("hanging.0", "hanging", 0, 20)
MAX_ATTEMPTS = 3
MESSAGE = "slide 'broken' is truncated after 70 tiles"


@dataclass(frozen=True)
class Numbers:
    """A tile's pixels equal its number; its vector is that number and its square. A committed unit is a file."""

    folder: Path

    def is_committed(self, unit: WorkUnit) -> bool:
        return (self.folder / f"{unit.unit}.npy").exists()

    def begin(self, unit: WorkUnit) -> str:
        attempts = self.folder / "attempts" / unit.unit
        attempts.mkdir(parents=True, exist_ok=True)
        if len(list(attempts.iterdir())) >= MAX_ATTEMPTS:
            return f"{unit.slide} is refused"
        (attempts / str(time.time_ns())).touch()
        return ""

    def end(self, unit: WorkUnit) -> None:
        shutil.rmtree(self.folder / "attempts" / unit.unit)

    def begin_start(self, process: str) -> str:
        starts = self.folder / "starts" / process
        starts.mkdir(parents=True, exist_ok=True)
        if len(list(starts.iterdir())) >= MAX_ATTEMPTS:
            return "the encoder crashed its process"
        (starts / str(time.time_ns())).touch()
        return ""

    def end_start(self, process: str) -> None:
        shutil.rmtree(self.folder / "starts" / process)

    def make_reader(self, buffers: int) -> Callable[[WorkUnit, int, int], ReadTiles]:  # noqa: ARG002 -- every batch is a new array here
        return self._read

    def _read(self, unit: WorkUnit, start: int, stop: int) -> ReadTiles:
        if unit.slide == BROKEN.slide and stop > 70:
            raise SlideError(MESSAGE)
        if unit.slide == ODD.slide and stop > 70:
            return np.empty(0)[70]  # type: ignore[no-any-return]  # as a decoder with a fault of its own
        if unit.slide == FATAL.slide and start > 0 and not (self.folder / "crashed").exists():
            (self.folder / "crashed").touch()
            os._exit(1)
        if unit.slide == DEADLY.slide:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)  # until the signal arrives
        if unit.slide == HANGING.slide:
            time.sleep(3600)
        numbers = np.arange(unit.first + start, unit.first + stop, dtype=np.uint8)
        pixels = np.broadcast_to(numbers[:, None, None, None], (stop - start, TILE_PX, TILE_PX, 3)).copy()
        failed = [row for row in unit_damage(unit) if start <= row < stop]
        pixels = np.delete(pixels, [row - start for row in failed], axis=0)
        return ReadTiles(pixels, {row: f"tile {unit.first + row} is damaged" for row in failed})

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        def encode(tiles: Pixels) -> Encoded:
            mean = tiles.mean(axis=(1, 2, 3), dtype=np.float32)
            return (np.stack([mean, mean**2], axis=1),)

        return encode

    def commit(self, unit: WorkUnit, batches: Sequence[Encoded], failed: Mapping[int, str]) -> None:
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"{unit.unit}\n")
        assert dict(failed) == {row: f"tile {unit.first + row} is damaged" for row in unit_damage(unit)}
        np.save(self.folder / f"{unit.unit}.npy", np.concatenate([vectors for (vectors,) in batches]))

    def write_part(self, unit: WorkUnit, part: int, encoded: Encoded, failed: Mapping[int, str]) -> None:
        np.save(self.folder / f"part-{unit.unit}-{part}.npy", encoded[0])
        (self.folder / f"part-{unit.unit}-{part}.json").write_text(json.dumps(list(failed.items())))

    def commit_parts(self, unit: WorkUnit, parts: int) -> None:
        files = [f"{self.folder}/part-{unit.unit}-{n}" for n in range(parts)]
        failed = [entry for file in files for entry in json.loads(Path(f"{file}.json").read_text())]
        batches: list[Encoded] = [(np.load(f"{file}.npy"),) for file in files]
        self.commit(unit, batches, dict(failed))


def unit_damage(unit: WorkUnit) -> list[int]:
    """Return the rows of a unit that cannot be read: single tiles, and with batches of 7 a whole batch."""
    return [5, *range(21, 28), 63] if unit.unit == "one.1" else []


def _numbers(unit: WorkUnit) -> np.ndarray:
    number = np.arange(unit.first, unit.first + unit.rows, dtype=np.float32)
    number = np.delete(number, unit_damage(unit))
    return np.stack([number, number**2], axis=1)


def check_committed(
    folder: Path, receipts: list[UnitReceipt], units: list[WorkUnit], *, failed: list[UnitReceipt]
) -> None:
    """Each unit has one receipt and was committed once, with its rows in order; the failed ones were not committed."""
    done = [UnitReceipt(unit.unit, unit.slide, unit.rows, "") for unit in units]
    assert sorted(receipts, key=str) == sorted([*done, *failed], key=str)
    assert sorted((folder / "log.txt").read_text().split()) == sorted(unit.unit for unit in units)
    for unit in units:
        np.testing.assert_array_equal(np.load(folder / f"{unit.unit}.npy"), _numbers(unit))


def _plan(readers: int, capsys: pytest.CaptureFixture[str]) -> str:
    plan = build_plan(Numbers(Path()), UNITS, StreamResources(encoders=1, batch_tiles=7, threads=1, readers=readers))
    plan.explain()  # type: ignore[no-untyped-call]  # Ray ships it without types
    return capsys.readouterr().out.partition("Physical Plan (Optimized)")[2]


@pytest.mark.usefixtures("ray_session")
def test_separate_readers_are_their_own_operator(capsys: pytest.CaptureFixture[str]) -> None:
    inside, separate = _plan(0, capsys), _plan(1, capsys)
    assert inside.count("ActorPoolMapOperator[MapBatches(EncodeUnit)]") == inside.count("Operator[") == 1
    assert separate.count("ActorPoolMapOperator[MapBatches(ReadUnit)]") == 1
    assert separate.count("ActorPoolMapOperator[MapBatches(EncodePart)]") == 1
    assert separate.count("Operator[") == 2


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "resources",
    [
        StreamResources(encoders=1, batch_tiles=64, threads=1),
        StreamResources(encoders=2, batch_tiles=7, threads=2),
        StreamResources(encoders=1, batch_tiles=7, threads=1, readers=2),
        StreamResources(encoders=2, batch_tiles=64, threads=1, readers=1),
        StreamResources(encoders=5, batch_tiles=7, threads=2),
    ],
    ids=["one encoder", "two encoders", "two separate readers", "two encoders, one reader", "a task for each unit"],
)
def test_any_resources_commit_the_same_rows_and_a_failed_unit_is_a_receipt_with_its_message(
    resources: StreamResources, tmp_path: Path
) -> None:
    receipts = list(stream(Numbers(tmp_path), [BROKEN, ODD, *UNITS], resources))
    (odd,) = (receipt.error for receipt in receipts if receipt.unit == ODD.unit)
    reason = r"IndexError: index 70 is out of bounds for axis 0 with size 0 \(raystp/cluster/streams/\w+\.py:\d+\)"
    assert re.fullmatch(reason, odd)
    failed = [UnitReceipt(BROKEN.unit, BROKEN.slide, 0, MESSAGE), UnitReceipt(ODD.unit, ODD.slide, 0, odd)]
    check_committed(tmp_path, receipts, UNITS, failed=failed)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("encoders", "readers"), [(1, 0), (1, 1), (4, 0)], ids=["inside", "separate", "tasks"])
def test_a_unit_is_retried_after_a_crash_and_committed_once(encoders: int, readers: int, tmp_path: Path) -> None:
    resources = StreamResources(encoders=encoders, batch_tiles=7, threads=1, readers=readers)
    receipts = list(stream(Numbers(tmp_path), [FATAL, *UNITS], resources))
    assert (tmp_path / "crashed").exists()
    check_committed(tmp_path, receipts, [FATAL, *UNITS], failed=[])


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("readers", [0, 1], ids=["inside", "separate"])
def test_a_unit_committed_before_a_crash_is_not_computed_again(
    readers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAX_BLOCKS", "BLOCKS_PER_ENCODER"):
        monkeypatch.setattr(work_units, name, 2)  # so that a block has several units
    Numbers(tmp_path).commit(UNITS[0], [(_numbers(UNITS[0]),)], {})
    receipts = list(
        stream(Numbers(tmp_path), UNITS, StreamResources(encoders=1, batch_tiles=7, threads=1, readers=readers))
    )
    check_committed(tmp_path, receipts, UNITS, failed=[])


@dataclass(frozen=True)
class NoEncoder(Numbers):
    """Work whose encoder cannot be made: it raises an error, or ends the process."""

    error: Exception | None = None

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        if self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)  # until the signal arrives
        assert self.error is not None
        raise self.error


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("error", "expected", "pools"),
    [
        (EncoderError("the weights: are gated"), EncoderError("the weights: are gated"), (1, 0)),
        (ZeroDivisionError("x"), ClusterError("ZeroDivisionError: x"), (1, 0)),
        (ZeroDivisionError("x"), ClusterError("ZeroDivisionError: x"), (1, 1)),
        (None, ClusterError("the encoder crashed its process"), (1, 0)),
        (None, ClusterError("the encoder crashed its process"), (3, 0)),
    ],
    ids=["an error", "an unexpected exception", "separate readers", "a crash", "a crash of tasks"],
)
def test_an_encoder_that_cannot_be_made_ends_the_run_with_its_own_error(
    error: Exception | None, expected: Exception, pools: tuple[int, int], tmp_path: Path
) -> None:
    encoders, readers = pools
    resources = StreamResources(encoders=encoders, batch_tiles=7, threads=1, readers=readers)
    with pytest.raises(type(expected), match=rf"^{expected}( \(raystp/cluster/streams/tile_actors\.py:\d+\))?$"):
        list(stream(NoEncoder(tmp_path, error), UNITS, resources))
    assert not (tmp_path / "log.txt").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("encoders", "readers"),
    [(1, 0), pytest.param(1, 1, marks=pytest.mark.faults), pytest.param(5, 0, marks=pytest.mark.faults)],
    ids=["inside", "separate", "tasks"],
)
def test_a_unit_that_always_crashes_or_hangs_is_rejected_and_the_others_are_committed(
    encoders: int, readers: int, tmp_path: Path
) -> None:
    resources = StreamResources(encoders=encoders, batch_tiles=7, threads=1, readers=readers, deadline_s=0.5)
    receipts = list(stream(Numbers(tmp_path), [DEADLY, UNITS[0], HANGING, *UNITS[1:]], resources))
    refused = [UnitReceipt(unit.unit, unit.slide, 0, f"{unit.slide} is refused") for unit in (DEADLY, HANGING)]
    check_committed(tmp_path, receipts, UNITS, failed=refused)
    left = {path.parent.name for path in (tmp_path / "attempts").glob("*/*")}
    assert left == {DEADLY.unit, HANGING.unit}


def test_without_units_nothing_runs(tmp_path: Path) -> None:
    assert list(stream(Numbers(tmp_path), [], StreamResources(encoders=1, batch_tiles=7, threads=1))) == []
