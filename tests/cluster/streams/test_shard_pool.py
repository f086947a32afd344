"""A pool of shards returns the results of all shards, or an error; a crashed actor only delays the result."""

import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from raystp.cluster.streams.shard_pool import ShardPool, open_pool
from raystp.errors import ArtifactError, ModelError, RaystpError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

OPEN_ERROR = "shard 1 is damaged"


@dataclass(frozen=True)
class Numbers:
    """A shard that holds its own number."""

    shard: int
    folder: Path

    def plus(self, other: int) -> int:
        return self.shard + other

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> int:
        msg = f"shard {self.shard} has no row 7"
        raise ModelError(msg)

    def divide(self) -> float:
        return 1 / self.shard

    def slow(self, started: Path) -> int:
        (started / f"{self.shard}-{os.getpid()}").touch()
        time.sleep(1.5)
        return self.shard


def open_numbers(folder: Path, shard: int) -> Numbers:
    (folder / f"{shard}-{os.getpid()}").touch()
    return Numbers(shard, folder)


def open_damaged(shard: int) -> Numbers:
    if shard == 1:
        raise ArtifactError(OPEN_ERROR)
    return Numbers(shard, Path())


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ShardPool:
    return open_pool(functools.partial(open_numbers, tmp_path_factory.mktemp("pool")), 2, replicas=2, cpus=0.2)


def test_results_are_in_the_order_of_the_shards(pool: ShardPool) -> None:
    assert pool.call("plus", 10) == [10, 11]


def test_replicas_are_called_in_turn(pool: ShardPool) -> None:
    assert len({pool.call("pid")[0] for _ in range(4)}) == 2


def test_an_error_of_a_shard_is_raised_unchanged(pool: ShardPool) -> None:
    with pytest.raises(ModelError, match=r"^shard 0 has no row 7$"):
        pool.call("fail")


def test_an_unexpected_exception_of_a_shard_is_raised_with_its_class_and_place(pool: ShardPool) -> None:
    expected = r"^ZeroDivisionError: division by zero \(raystp/cluster/streams/shard_pool\.py:\d+\)$"
    with pytest.raises(RaystpError, match=expected):
        pool.call("divide")


def test_a_shard_that_cannot_be_opened_raises_at_the_start() -> None:
    with pytest.raises(ArtifactError, match=f"^{OPEN_ERROR}$"):
        open_pool(open_damaged, 2, cpus=0.2)


def test_killing_an_actor_during_a_call_only_delays_the_result(pool: ShardPool, tmp_path: Path) -> None:
    results: list[list[int]] = []
    calling = Thread(target=lambda: results.append(pool.call("slow", tmp_path)))
    calling.start()
    for _ in range(200):
        if len(found := sorted(path.name for path in tmp_path.iterdir())) == 2:
            break
        time.sleep(0.05)
    os.kill(int(found[0].partition("-")[2]), 9)
    calling.join(60)
    assert results == [[0, 1]]
    started = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert sorted(started) == ["0", "0", "1"]  # the killed one was started twice
