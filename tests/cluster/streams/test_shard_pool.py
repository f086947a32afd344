"""A pool of parts: every part answers or an error says why; an actor that dies only delays the answer."""

import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from raystp.cluster.streams.shard_pool import ShardPool, open_pool
from raystp.errors import ArtifactError, ModelError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

REFUSED = "shard 1 is damaged"


@dataclass(frozen=True)
class Numbers:
    """What lies in one part: its own number."""

    part: int
    folder: Path

    def plus(self, other: int) -> int:
        return self.part + other

    def who(self) -> int:
        return os.getpid()

    def refuse(self) -> int:
        msg = f"part {self.part} has no row 7"
        raise ModelError(msg)

    def slowly(self, marks: Path) -> int:
        (marks / f"{self.part}-{os.getpid()}").touch()
        time.sleep(1.5)
        return self.part


def opened(folder: Path, part: int) -> Numbers:
    (folder / f"{part}-{os.getpid()}").touch()
    return Numbers(part, folder)


def damaged(part: int) -> Numbers:
    if part == 1:
        raise ArtifactError(REFUSED)
    return Numbers(part, Path())


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ShardPool:
    return open_pool(functools.partial(opened, tmp_path_factory.mktemp("pool")), 2, replicas=2, cpus=0.2)


def test_every_part_answers_in_the_order_of_the_parts(pool: ShardPool) -> None:
    assert pool.ask("plus", 10) == [10, 11]


def test_replicas_take_turns(pool: ShardPool) -> None:
    assert len({pool.ask("who")[0] for _ in range(4)}) == 2


def test_an_error_that_was_foreseen_comes_back_as_itself(pool: ShardPool) -> None:
    with pytest.raises(ModelError, match=r"^part 0 has no row 7$"):
        pool.ask("refuse")


def test_a_part_that_cannot_be_opened_is_said_before_anything_is_asked() -> None:
    with pytest.raises(ArtifactError, match=f"^{REFUSED}$"):
        open_pool(damaged, 2, cpus=0.2)


def test_an_actor_that_is_killed_in_the_middle_of_a_question_only_delays_the_answer(
    pool: ShardPool, tmp_path: Path
) -> None:
    answers: list[list[int]] = []
    asking = Thread(target=lambda: answers.append(pool.ask("slowly", tmp_path)))
    asking.start()
    for _ in range(200):
        if len(found := sorted(path.name for path in tmp_path.iterdir())) == 2:
            break
        time.sleep(0.05)
    os.kill(int(found[0].partition("-")[2]), 9)
    asking.join(60)
    assert answers == [[0, 1]]
    begun = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert sorted(begun) == ["0", "0", "1"]  # the one that was killed began again
