"""Sessions: a local Ray with a token, nested sessions, an unreachable cluster; tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from raystp.cluster.session import check_resources, cluster_cpus, session
from raystp.cluster.streams.tasks import map_tasks
from raystp.errors import ClusterError, ModelError

pytestmark = pytest.mark.ray

SCRIPT = """
import posixpath
import ray
from raystp.cluster.session import check_resources, cluster_cpus, session
from raystp.cluster.streams.tasks import map_tasks
from raystp.errors import ConfigError

try:
    with session("127.0.0.1:1"):
        pass
except ConfigError as error:
    print(error)
with session():
    print(cluster_cpus())
    try:
        check_resources(cpus=1, gpus=9)
    except ConfigError as error:
        print(error)
    print(sorted(map_tasks(posixpath.basename, ["a/b", "c/d"])))
print(ray.is_initialized())
"""


def _double(number: int) -> int:
    return 2 * number


def _crash_once(folder: Path) -> str:
    try:
        (folder / "crashed").touch(exist_ok=False)
    except FileExistsError:
        return "done"
    os._exit(1)


def test_an_unreachable_cluster_is_an_error_and_a_local_ray_has_a_token_and_stops(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    del environment["RAY_AUTH_MODE"]
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, cpus, too_few, *rest = done.stdout.splitlines()
    assert refused.startswith("run.address: no Ray cluster responds at '127.0.0.1:1' (")
    assert refused.endswith("; omit it to start a local Ray")
    assert int(cpus) == max(4, os.cpu_count() or 1)
    assert too_few.startswith("one process needs 1 logical CPUs and 9 GPUs, and the largest node of Ray has ")
    assert rest == ["[(0, 'b'), (1, 'd')]", "False"]
    assert len((tmp_path / ".ray" / "auth_token").read_text()) == 64


TABLE = "slide,path,patient,layout,counts\nA,A.svs,P,scverse,A.h5ad\n"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"RAY_TMPDIR": "/tmp/" + "x" * 100}, "is too long for Ray's sockets, whose paths have at most 107 bytes: set"),
        ({"HOME": "/proc"}, "Ray cannot start on this machine (FileNotFoundError: "),
    ],
    ids=["a long temporary folder", "a home that cannot be written"],
)
def test_where_ray_cannot_start_the_step_ends_with_a_sentence_and_the_line_for_a_scheduler(
    change: dict[str, str], expected: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), **change}
    del environment["RAY_AUTH_MODE"]
    (tmp_path / "slides.csv").write_text(TABLE)
    fields = [f"slides={tmp_path / 'slides.csv'}", f"run.store={tmp_path / 'store'}"]
    command = [sys.executable, "-m", "raystp.cli", "spots", *(word for field in fields for word in ("--set", field))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = json.loads(done.stdout)
    assert (last["status"], last["error"]) == ("failed", "ClusterError")
    assert expected in last["message"]
    assert last["message"] not in done.stderr


@pytest.mark.usefixtures("ray_session")
def test_a_cluster_that_may_grow_is_waited_for_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    check_resources(cpus=4, gpus=0)
    assert not caplog.records
    check_resources(cpus=400, gpus=0)
    assert "one process needs 400 logical CPUs and 0 GPUs, and the largest node of Ray has 4 and" in caplog.text


def _fail(error: Exception) -> None:
    raise error


@pytest.mark.usefixtures("ray_session")
def test_an_exception_of_a_task_is_raised_as_the_error_itself() -> None:
    with pytest.raises(ModelError, match=r"^k: 0$"):
        list(map_tasks(_fail, [ModelError("k: 0")]))
    with pytest.raises(ClusterError, match=r"^ZeroDivisionError: x \(raystp/cluster/streams/tasks\.py:\d+\)$"):
        list(map_tasks(_fail, [ZeroDivisionError("x")]))


@pytest.mark.usefixtures("ray_session")
def test_a_nested_session_uses_the_outer_one_and_leaves_it_open() -> None:
    with session(), session("10.0.0.1:1"):
        assert cluster_cpus() == 4
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_session")
def test_map_tasks_yields_each_item_once_with_few_in_flight(tmp_path: Path) -> None:
    assert sorted(map_tasks(_double, range(20), in_flight=3)) == [(number, 2 * number) for number in range(20)]
    assert list(map_tasks(_crash_once, [tmp_path])) == [(0, "done")]
    assert list(map_tasks(_double, [])) == []
