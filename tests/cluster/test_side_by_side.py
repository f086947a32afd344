"""Parts of a run side by side: the same results as one after the other; messages arrive; a part fails alone."""

import logging
import os

import pytest
from ray.exceptions import OutOfDiskError

from raystp.cluster.progress import Progress
from raystp.cluster.side_by_side import run_parts
from raystp.errors import ClusterError, ModelError

logger = logging.getLogger("raystp")

PARTS = {"fold 1": 2, "fold 2": 0, "fold 3": 5}


def _tenfold(number: int) -> tuple[int, int]:
    """Return ten times a number and the process that did it; refuse 0."""
    with Progress("steps", 2, "step") as progress:
        progress.add(2)
    if not number:
        msg = "0 has no tenfold"
        raise ModelError(msg)
    return 10 * number, os.getpid()


def test_parts_in_this_process_keep_their_order_and_one_fails_alone() -> None:
    found = list(run_parts(_tenfold, PARTS, at_once=1))
    assert [label for label, _ in found] == list(PARTS)
    assert found[0][1] == (20, os.getpid())
    assert found[2][1] == (50, os.getpid())
    assert isinstance(found[1][1], ModelError)


def _full(_: int) -> None:
    msg = "Local disk is full"
    raise OutOfDiskError(msg)


def test_a_part_that_ray_ends_has_the_sentence_of_its_error() -> None:
    ((_, error),) = run_parts(_full, {"fold 1": 1}, at_once=1)
    assert isinstance(error, ClusterError)
    assert "run.readers=0" in str(error)


@pytest.mark.ray
def test_parts_in_tasks_have_the_same_results_and_their_messages_are_printed_under_their_names(
    ray_session: None,  # noqa: ARG001 -- Ray must be up
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "raystp"):
        found = dict(run_parts(_tenfold, PARTS, at_once=2))
    assert set(found) == set(PARTS)
    for label in ("fold 1", "fold 3"):
        result = found[label]
        assert isinstance(result, tuple)
        assert result[0] == 10 * PARTS[label]
        assert result[1] != os.getpid()
    assert isinstance(found["fold 2"], ModelError)
    assert str(found["fold 2"]) == "0 has no tenfold"
    assert {record.__dict__["step"] for record in caplog.records} == {"steps"}
    lines = [record.getMessage() for record in caplog.records]
    assert all(any(line.startswith(f"{label}: steps: 2 of 2 steps in ") for line in lines) for label in PARTS)
