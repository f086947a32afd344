"""Three nodes of Ray on this machine, each with a raylet of its own, kept by a process of their own.

`Nodes` starts that process and tells it line by line what to do; so a test's process needs no Ray, and an end of the
process (its stdin closes) takes every node with it.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[2]
STORE_BYTES = 100 << 20
START_S = 120.0
"""Within which nodes must have come up, on a busy machine."""
HEALTH = {
    # A raylet that was killed is told from a slow one after a second and a half, not after fifteen.
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


@dataclass
class Nodes:
    """A head that drivers join, and two nodes that may be killed; one logical CPU each."""

    keeper: "subprocess.Popen[str]"

    @functools.cached_property
    def address(self) -> str:
        """What drivers join; waits until all nodes are there."""
        address = self._tell("start")
        assert address, "the nodes did not start"
        return address

    def kill(self, processes: Sequence[int]) -> None:
        """End every process of a node at once, of one that has some of these; none is told, none says goodbye.

        It is not the head, which the driver is joined to.
        """
        assert self._tell(" ".join(["kill", *map(str, processes)])) == "done", "none of these is on a node that may go"

    def add(self) -> None:
        """Add a node."""
        assert self._tell("add") == "done"

    def close(self) -> None:
        """End all nodes."""
        self.keeper.communicate(timeout=60)

    def _tell(self, word: str) -> str:
        stdin, stdout = cast("Any", self.keeper.stdin), cast("Any", self.keeper.stdout)
        stdin.write(f"{word}\n")
        stdin.flush()
        return str(stdout.readline().strip())


def start_nodes(environment: dict[str, str]) -> Nodes:
    """Begin to start three nodes; their workers have this environment, and can import `tests`."""
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    return Nodes(keeper)


def _keep() -> None:
    """Be the process that keeps the nodes: a word on stdin, an answer on stdout."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 -- the tests' own process needs no Ray

    cluster: Any = Cluster()
    like = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    for line in sys.stdin:
        word, *processes = line.split()
        if word == "start":
            cluster.add_node(include_dashboard=False, _system_config=HEALTH, wait=False, **like)
            cluster.add_node(wait=False, **like)
            cluster.add_node(wait=False, **like)
            cluster.wait_for_nodes(START_S)
            answer = cluster.address
        elif word == "add":
            cluster.add_node(wait=False, **like)
            cluster.wait_for_nodes(START_S)
            answer = "done"
        else:
            raylets = {_parent(int(process)) for process in processes}
            found = [node for node in cluster.worker_nodes if _raylet(node) in raylets]
            for node in found[:1]:
                cluster.remove_node(node, allow_graceful=False)
            answer = "done" if found else "none"
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    cluster.shutdown()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _parent(process: int) -> int:
    """Return a process's parent, 0 where it has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[1])
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    _keep()
