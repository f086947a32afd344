"""The whole pipeline as a job on three machines, undisturbed and on a network that fails, equals the one-node run."""

import contextlib
import json
import sys
import time
import urllib.error
from collections.abc import Iterator

import pytest

from tests.faults.namespaces.cluster import Job
from tests.faults.namespaces.conftest import ENCODERS, ThreeMachines, World, start_ray, stored_tables
from tests.faults.namespaces.link import LinkQuality
from tests.faults.namespaces.machines import missing
from tests.faults.namespaces.store import committed, content

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.timeout(2400),
]

JOB_TIMEOUT_S = 1200.0
CUT_S = 30.0
SLOW_NETWORK = LinkQuality(delay_s=0.01, loss=0.005)
"""Of one cable. Between two machines a packet takes 20 ms, and 1 of 100 is lost."""
LATE_S = 20.0


def check_same(world: World, name: str) -> None:
    """The results in the store `name` are those of one node, byte for byte; manifests without times and versions."""
    found = content(world.store.objects(name), world.store.location(name))
    assert sorted(found) == sorted(world.oracle)
    for path, value in world.oracle.items():
        assert found[path] == value, path


def wait_for_units(three: ThreeMachines, name: str, count: int, job: Job) -> None:
    """Wait until so many units of `embed` are committed."""
    until = time.monotonic() + JOB_TIMEOUT_S
    while len(committed(three.store.names(name))) < count:
        assert job.state()[0] in {"PENDING", "RUNNING"}, job.output()
        assert time.monotonic() < until, job.output()
        time.sleep(0.5)


def print_outcome(what: str, job: Job, three: ThreeMachines, started: float) -> None:
    """Print time, work and the job's own warnings: a line of the table in docs/clusters.md."""
    values = {"seconds": round(time.monotonic() - started), "units": three.units_started()}
    values |= {"nodes": {node["labels"]["machine"]: node["state"] for node in three.cluster.nodes()}}
    values |= {"tasks": three.cluster.work_by_node()}
    own = [line for line in job.output().splitlines() if "warning" in line.lower() or "error" in line.lower()]
    sys.stdout.write("\n".join([f"{what}: {json.dumps(values)}", *own, ""]))


@pytest.fixture
def three(world: World) -> Iterator[ThreeMachines]:
    """A cluster without faults so far."""
    with world.start() as three:
        yield three


def test_the_pipeline_on_three_machines_equals_the_one_node_run(world: World, three: ThreeMachines) -> None:
    started = time.monotonic()
    job = three.submit("many", config={"embed.run.encoders": "1", "embed.run.cpus_per_encoder": "3"})
    assert job.wait(JOB_TIMEOUT_S) == 0, job.output()
    check_same(world, "many")
    print_outcome("undisturbed", job, three, started)
    # Only the machine `gpu` has room for the encoder.
    assert three.units_started() == {"head": 0, "cpu": 0, "gpu": world.units}
    work = three.cluster.work_by_node()
    assert set(work) >= {"cpu", "gpu"}
    with pytest.raises(urllib.error.HTTPError, match=r"401|403"):
        three.cluster.api("/api/jobs/", token="0" * 64)


def test_a_worker_that_is_cut_off_for_30_s_changes_no_result(world: World, three: ThreeMachines) -> None:
    started = time.monotonic()
    job = three.submit("short")
    wait_for_units(three, "short", 3, job)
    three.gpu.cut()
    time.sleep(CUT_S)
    three.gpu.heal()
    assert job.wait(JOB_TIMEOUT_S) == 0, job.output()
    print_outcome("a worker cut off for 30 s", job, three, started)
    assert three.units_started()["gpu"]
    check_same(world, "short")  # whether Ray gave the machine up or not


def test_a_worker_that_is_cut_off_for_good_is_replaced_by_the_others(world: World, three: ThreeMachines) -> None:
    started = time.monotonic()
    job = three.submit("lost")
    wait_for_units(three, "lost", 3, job)
    three.gpu.cut()
    assert job.wait(JOB_TIMEOUT_S) == 0, job.output()
    print_outcome("a worker cut off for good", job, three, started)
    assert three.units_started()["gpu"]
    check_same(world, "lost")
    assert [node["labels"]["machine"] for node in three.cluster.nodes() if node["state"] == "DEAD"] == ["gpu"]
    three.gpu.heal()  # what the lost machine still wants to write arrives now
    time.sleep(LATE_S)
    check_same(world, "lost")


def test_links_of_20_ms_that_lose_1_percent_change_nothing_but_the_time(world: World) -> None:
    with world.start(SLOW_NETWORK) as three:
        started = time.monotonic()
        job = three.submit("slow")
        assert job.wait(JOB_TIMEOUT_S) == 0, job.output()
        print_outcome("20 ms, 1 % lost", job, three, started)
        check_same(world, "slow")


def test_without_stored_tables_a_new_head_needs_new_workers_and_the_job_continues_once_submitted_again(
    world: World,
) -> None:
    with world.start() as three:
        _check_new_head(world, three)


def _check_new_head(world: World, three: ThreeMachines) -> None:
    started = time.monotonic()
    job = three.submit("head")
    wait_for_units(three, "head", 3, job)
    three.head.power_off()
    for machine in (three.cpu, three.gpu):
        machine.power_off()
    for machine in (three.head, three.cpu, three.gpu):
        machine.boot()
    start_ray(three)
    again = three.submit("head")
    assert again.wait(JOB_TIMEOUT_S) == 0, again.output()
    print_outcome("the head lost, without stored tables", again, three, started)
    check_same(world, "head")
    assert sum(three.units_started().values()) <= world.units + 2 * ENCODERS


@pytest.mark.parametrize("storage", ["redis", "rocksdb"])
def test_with_stored_tables_a_job_survives_the_restart_of_the_head(world: World, storage: str) -> None:
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(stored_tables(storage, world.network))
        three = stack.enter_context(world.start(head=settings))
        started = time.monotonic()
        # So the driver is not on the head.
        job = three.submit(storage, "--entrypoint-num-cpus", "1")
        wait_for_units(three, storage, 3, job)
        three.head.power_off()
        three.head.boot()
        three.cluster.start_head(three.head)
        three.cluster.wait_for_nodes(alive=3)
        assert job.wait(JOB_TIMEOUT_S) == 0, job.output()
        print_outcome(f"the head restarted, {storage}", job, three, started)
        check_same(world, storage)
