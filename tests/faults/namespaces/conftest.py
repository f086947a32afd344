"""A network with an object store, the result of one node, and clusters of three machines."""

import contextlib
import functools
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.faults.namespaces.cluster import ENVIRONMENT, Job, RayCluster
from tests.faults.namespaces.cohort import draw_cohort
from tests.faults.namespaces.link import LinkQuality
from tests.faults.namespaces.machines import Machine, Network, missing, open_network
from tests.faults.namespaces.slow_job import FOLDER
from tests.faults.namespaces.store import Store, committed, content, running_store

SLOW_JOB = "tests/faults/namespaces/slow_job.py"
WORKERS = {"cpu": 2, "gpu": 4}
"""Machine -> CPUs for tasks. The second stands for a node with a GPU: only it has room for a large encoder."""
ENCODERS = 2
CONFIG = {
    "run.tracking": "none",
    "embed.unit_tiles": "16",
    "embed.run.encoders": str(ENCODERS),
    "embed.run.batch_tiles": "8",
}
ONE_NODE_TIMEOUT_S = 900.0
REDIS_PORT = 6390
UNIT = re.compile(r"start \S+\.\d{5}\b")
"""The start of a work unit in a machine's log; the slides of later steps stand there, too."""


@dataclass
class ThreeMachines:
    """A cluster of a head and two workers, and the store that they share."""

    cluster: RayCluster
    store: Store
    head: Machine
    cpu: Machine
    gpu: Machine

    def submit(self, name: str, *flags: str, config: Mapping[str, str] | None = None) -> Job:
        """Submit the pipeline with slow units, and start new logs of them; its results are in the store `name`."""
        for log in self._logs().values():
            log.write_text("")
        return self.cluster.submit(SLOW_JOB, *pipeline_words(self.store, name, config or {}), flags=flags)

    def units_started(self) -> dict[str, int]:
        """Return machine -> work units of `embed` that were started there."""
        return {name: len(UNIT.findall(log.read_text())) for name, log in self._logs().items()}

    def _logs(self) -> dict[str, Path]:
        return {one.name: one.folder / FOLDER.relative_to("/") / "log.txt" for one in self.cluster.network.machines}


@dataclass
class World:
    """A network with a store in which the pipeline runs on one node, beside the first test."""

    network: Network
    store: Store
    one_node: "subprocess.Popen[str]"

    @functools.cached_property
    def oracle(self) -> dict[str, Any]:
        """Path -> content of what the pipeline on one node wrote."""
        printed, _ = self.one_node.communicate(timeout=ONE_NODE_TIMEOUT_S)
        assert self.one_node.returncode == 0, printed
        return content(self.store.objects("one"), self.store.location("one"))

    @property
    def units(self) -> int:
        """Work units of `embed`."""
        return len(committed(self.oracle))

    @contextlib.contextmanager
    def start(
        self, quality: LinkQuality | None = None, head: Mapping[str, str] | None = None
    ) -> Iterator[ThreeMachines]:
        """Yield a cluster on new machines; `head` holds settings of the head's process."""
        machines = [self.network.add(name, quality) for name in ("head", *WORKERS)]
        cluster = RayCluster(self.network, head_environment=dict(head or {}))
        three = ThreeMachines(cluster, self.store, *machines)
        for machine in machines:
            (machine.folder / FOLDER.relative_to("/")).mkdir()
        try:
            start_ray(three)
            yield three
        finally:
            self.network.remove_all()


@contextlib.contextmanager
def stored_tables(kind: str, network: Network) -> Iterator[dict[str, str]]:
    """Yield the settings of a head that stores its tables in a Redis on the host, or in files on its disk."""
    if kind == "rocksdb":
        yield {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": "/tmp/gcs"}
        return
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here: install Debian's redis-server")
    flags = ["--bind", network.host, "--port", str(REDIS_PORT), "--protected-mode", "no", "--save", ""]
    with subprocess.Popen(["redis-server", *flags], stdout=subprocess.DEVNULL) as server:
        try:
            yield {"RAY_REDIS_ADDRESS": f"{network.host}:{REDIS_PORT}"}
        finally:
            server.terminate()


def start_ray(three: ThreeMachines) -> None:
    """Start Ray on all machines and wait until it accepts jobs."""
    three.cluster.start_head(three.head)
    with ThreadPoolExecutor() as threads:
        for started in [
            threads.submit(three.cluster.start_worker, machine, cpus=WORKERS[machine.name])
            for machine in (three.cpu, three.gpu)
        ]:
            started.result()
    three.cluster.wait_for_nodes(alive=1 + len(WORKERS))
    three.cluster.wait_for_jobs()


def pipeline_words(store: Store, name: str, config: Mapping[str, str]) -> list[str]:
    """Return the command line of the pipeline on the cohort, with its results in the store `name`."""
    values = {"slides": store.uri("input/slides.csv"), "run.store": store.uri(name), **CONFIG, **config}
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return ["pipeline", "--config", "conf/pipeline/smoke.yaml", *settings]


def _run_on_one_node(store: Store) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "raystp.cli", *pipeline_words(store, "one", {})],
        env={**os.environ, **ENVIRONMENT, "RAY_AUTH_MODE": "disabled"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if missing():
        pytest.skip(missing())
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the store logs each request
    with open_network() as network, running_store(network) as store:
        folder = tmp_path_factory.mktemp("cohort")
        draw_cohort(folder)
        store.upload(folder, "input")
        with _run_on_one_node(store) as one_node:
            try:
                yield World(network, store, one_node)
            finally:
                one_node.terminate()
