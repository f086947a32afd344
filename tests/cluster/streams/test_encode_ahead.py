"""Laws of an encoder that starts early: rows in order, a bounded number of batches under way, faults of their unit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pytest

from raystp.cluster.streams.tile_actors import ENCODED_AHEAD, EncodeUnit
from raystp.cluster.streams.units import Encoded, Pixels, ReadTiles, StreamResources, WorkUnit
from raystp.errors import EncoderError

UNIT = WorkUnit("one.0", "one", 0, 23)
FAULT = 14
"""A tile that the failing encoder refuses."""


@dataclass
class Ahead:
    """A `UnitWork` whose encoder computes a batch only when its result is needed."""

    starts_early: bool
    fails: bool = False
    log: list[tuple[str, int]] = field(default_factory=list)
    committed: list[np.ndarray] = field(default_factory=list)
    most: int = 0
    under_way: int = 0

    def is_committed(self, unit: WorkUnit) -> bool:  # noqa: ARG002 -- as the protocol
        return False

    def begin(self, unit: WorkUnit) -> str:  # noqa: ARG002 -- as the protocol
        return ""

    def end(self, unit: WorkUnit) -> None:
        self.log.append(("end", unit.first))

    def begin_start(self, process: str) -> str:  # noqa: ARG002 -- as the protocol
        return ""

    def end_start(self, process: str) -> None:
        pass

    def make_reader(self, buffers: int) -> Callable[[WorkUnit, int, int], ReadTiles]:  # noqa: ARG002 -- as the protocol
        def read(unit: WorkUnit, start: int, stop: int) -> ReadTiles:  # noqa: ARG001 -- as the protocol
            numbers = np.arange(start, stop, dtype=np.uint8)
            return ReadTiles(np.broadcast_to(numbers[:, None, None, None], (stop - start, 2, 2, 3)))

        return read

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        return EarlyEncoder(self) if self.starts_early else lambda tiles: EarlyEncoder(self).start(tiles)()

    def commit(self, unit: WorkUnit, batches: Sequence[Encoded], failed: Mapping[int, str]) -> None:  # noqa: ARG002
        self.committed = [rows for (rows,) in batches]

    def write_part(self, unit: WorkUnit, part: int, encoded: Encoded, failed: Mapping[int, str]) -> None:
        raise NotImplementedError

    def commit_parts(self, unit: WorkUnit, parts: int) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class EarlyEncoder:
    work: Ahead

    def __call__(self, tiles: Pixels) -> Encoded:
        return self.start(tiles)()

    def start(self, tiles: Pixels) -> Callable[[], Encoded]:
        work, first, rows = self.work, int(tiles[0, 0, 0, 0]), tiles[:, 0, 0, :1].astype(np.float32)
        work.log.append(("start", first))
        work.under_way += 1
        work.most = max(work.most, work.under_way)

        def finish() -> Encoded:
            work.log.append(("finish", first))
            work.under_way -= 1
            if work.fails and FAULT in rows:
                msg = "tile 14 gives nan"
                raise EncoderError(msg)
            return (rows,)

        return finish


def run(work: Ahead) -> dict[str, Any]:
    resources = StreamResources(encoders=1, batch_tiles=4, threads=1)
    return EncodeUnit(work, resources)({name: np.array([value]) for name, value in asdict(UNIT).items()})


@pytest.mark.parametrize("starts_early", [False, True])
def test_rows_are_committed_in_the_order_of_the_tiles(starts_early: bool) -> None:  # noqa: FBT001 -- pytest's
    work = Ahead(starts_early)
    assert run(work)["error"] == [""]
    np.testing.assert_array_equal(np.concatenate(work.committed).ravel(), np.arange(UNIT.rows))


def test_the_next_batches_start_before_a_result_is_needed_and_their_number_is_bounded() -> None:
    work = Ahead(starts_early=True)
    run(work)
    assert work.log[: ENCODED_AHEAD + 2] == [("start", 0), ("start", 4), ("start", 8), ("finish", 0)]
    assert (work.most, work.under_way) == (ENCODED_AHEAD + 1, 0)


def test_a_fault_that_is_found_late_fails_the_unit_once() -> None:
    work = Ahead(starts_early=True, fails=True)
    (error,) = run(work)["error"]
    assert "tile 14 gives nan" in error
    assert not work.committed
    assert work.log.count(("end", 0)) == 1
