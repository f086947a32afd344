"""Ray nodes on this machine, in a process of their own that ends when its stdin closes.

    python -m simulated.cluster NODES CPUS

It prints the address and the process ids of the GCS and of the raylets, as JSON.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

STORE_BYTES = 200 << 20
START_TIMEOUT_S = 400.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    address: str
    gcs: int
    raylets: list[int]


@contextmanager
def running(nodes: int, cpus: int) -> Iterator[Cluster]:
    """Run a cluster of `nodes` raylets with `cpus` logical CPUs each."""
    with tempfile.TemporaryFile("w+") as errors:
        manager = subprocess.Popen(
            [sys.executable, "-m", "simulated.cluster", str(nodes), str(cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            line = cast("Any", manager.stdout).readline()
            if not line:
                errors.seek(0)
                msg = f"the {nodes} Ray nodes of {cpus} CPUs did not start: {errors.read()[-2000:]}"
                raise RuntimeError(msg)
            yield Cluster(**json.loads(line))
        finally:
            _end(manager)


def _end(manager: "subprocess.Popen[str]") -> None:
    """Let the manager stop its nodes; kill it if it takes too long."""
    try:
        manager.communicate(timeout=START_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        manager.kill()
        manager.wait()
        raise


def main() -> None:
    """Start the nodes, print their processes, wait for the end of stdin."""
    from ray.cluster_utils import Cluster as RayCluster  # noqa: PLC0415 -- only this process needs Ray

    nodes, cpus = int(sys.argv[1]), int(sys.argv[2])
    cluster: Any = RayCluster()
    for number in range(nodes):
        head = {"include_dashboard": False} if number == 0 else {}
        cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES, wait=False, **head)
    cluster.wait_for_nodes(START_TIMEOUT_S)
    found = cluster.list_all_nodes()
    raylets = [node.all_processes["raylet"][0].process.pid for node in found]
    gcs = cluster.head_node.all_processes["gcs_server"][0].process.pid
    sys.stdout.write(f"{json.dumps({'address': cluster.address, 'gcs': gcs, 'raylets': raylets})}\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
