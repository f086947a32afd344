"""Sessions: a local Ray with its own token, a session inside a session, and a cluster that is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from raystp.cluster.session import cluster_cpus, session
from raystp.cluster.streams.tasks import map_tasks

pytestmark = pytest.mark.ray

ALONE = """
import posixpath
import ray
from raystp.cluster.session import cluster_cpus, session
from raystp.cluster.streams.tasks import each
from raystp.errors import ConfigError

try:
    with session("127.0.0.1:1"):
        pass
except ConfigError as error:
    print(error)
with session():
    print(cluster_cpus())
    print(sorted(each(posixpath.basename, ["a/b", "c/d"])))
print(ray.is_initialized())
"""


def _double(number: int) -> int:
    return 2 * number


def _die_once(folder: Path) -> str:
    try:
        (folder / "died").touch(exist_ok=False)
    except FileExistsError:
        return "done"
    os._exit(1)


def test_absent_cluster_is_a_sentence_and_a_local_one_is_locked_by_a_token_and_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    del environment["RAY_AUTH_MODE"]
    done = subprocess.run([sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, cpus, *rest = done.stdout.splitlines()
    assert refused.startswith("run.address: no Ray cluster answers at '127.0.0.1:1' (")
    assert refused.endswith("; leave it out for a local Ray")
    assert int(cpus) == max(4, os.cpu_count() or 1)
    assert rest == ["[(0, 'b'), (1, 'd')]", "False"]
    assert len((tmp_path / ".ray" / "auth_token").read_text()) == 64


@pytest.mark.usefixtures("ray_session")
def test_session_inside_a_session_is_that_session_and_leaves_it_open() -> None:
    with session(), session("10.0.0.1:1"):
        assert cluster_cpus() == 4
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_session")
def test_each_answers_once_for_every_item_with_few_in_flight(tmp_path: Path) -> None:
    assert sorted(map_tasks(_double, range(20), in_flight=3)) == [(number, 2 * number) for number in range(20)]
    assert list(map_tasks(_die_once, [tmp_path])) == [(0, "done")]
    assert list(map_tasks(_double, [])) == []
