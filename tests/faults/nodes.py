"""Three Ray nodes on this machine, each with its own raylet, managed by a separate process.

`Nodes` starts that process and sends it one command per line. So the test process does not need Ray, and all nodes stop
when the manager's stdin closes.
"""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[2]
STORE_BYTES = 100 << 20
START_TIMEOUT_S = 300.0
"""For the start of all nodes on a busy machine."""
SLOWNESS = 10
"""Factor of Ray's limit of 30 s for the start of a node, which no setting changes."""
HEALTH_PERIOD_MS, MISSED = 500, 3
"""A raylet is lost after so many missed health checks: after 1.5 s, in place of Ray's 15 s."""


@dataclass
class Nodes:
    """A head to which drivers connect, and two nodes that a test may kill; one logical CPU each."""

    manager: "subprocess.Popen[str]"

    @functools.cached_property
    def address(self) -> str:
        """Address for drivers; waits until all nodes are up."""
        address = self._send("start")
        assert address, "the nodes did not start"
        return address

    def kill(self, processes: Sequence[int]) -> None:
        """Kill all processes of one worker node that runs some of these processes, without any notice.

        Never the head, to which the driver is connected.
        """
        assert self._send(" ".join(["kill", *map(str, processes)])) == "done", (
            "none of these processes is on a worker node"
        )

    def kill_any(self, number: int) -> bool:
        """Kill all processes of the worker node of that number, modulo their count; return whether there was one."""
        return self._send(f"kill_number {number}") == "done"

    def add(self) -> None:
        """Add a node."""
        assert self._send("add") == "done"

    def close(self) -> None:
        """Stop all nodes."""
        self.manager.communicate(timeout=60)

    def _send(self, command: str) -> str:
        stdin, stdout = cast("Any", self.manager.stdin), cast("Any", self.manager.stdout)
        stdin.write(f"{command}\n")
        stdin.flush()
        return str(stdout.readline().strip())


def start_nodes(environment: dict[str, str], missed: int = MISSED) -> Nodes:
    """Start three nodes in the background; their workers get this environment and can import `tests`.

    A node is lost after `missed` health checks; on a busy machine a living one misses some.
    """
    manager = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.nodes", str(missed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    return Nodes(manager)


def _manage(missed: int) -> None:
    """Manage the nodes: a command per line on stdin, a reply per line on stdout."""
    from ray._private import node as ray_node  # noqa: PLC0415 -- the tests' own process needs no Ray
    from ray.cluster_utils import Cluster  # noqa: PLC0415 -- the same

    vars(ray_node)["time"] = _SlowClock  # a busy machine takes longer than 30 s for a node
    cluster: Any = Cluster()
    options = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    health = {"health_check_period_ms": HEALTH_PERIOD_MS, "health_check_failure_threshold": missed}
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "start":
            cluster.add_node(include_dashboard=False, _system_config=health, wait=False, **options)
            cluster.add_node(wait=False, **options)
            cluster.add_node(wait=False, **options)
            cluster.wait_for_nodes(START_TIMEOUT_S)
            reply = cluster.address
        elif command == "add":
            cluster.add_node(wait=False, **options)
            cluster.wait_for_nodes(START_TIMEOUT_S)
            reply = "done"
        else:
            found = _nodes_of(cluster, command, [int(number) for number in numbers])
            for node in found[:1]:
                cluster.remove_node(node, allow_graceful=False)
            reply = "done" if found else "none"
        sys.stdout.write(f"{reply}\n")
        sys.stdout.flush()
    cluster.shutdown()


class _SlowClock:
    """Ray's clock while it waits for a node."""

    sleep, time = staticmethod(time.sleep), staticmethod(time.time)

    @staticmethod
    def monotonic() -> float:
        return time.monotonic() / SLOWNESS


def _nodes_of(cluster: Any, command: str, numbers: list[int]) -> list[Any]:
    """Return the worker nodes that run these processes, or the one of a number."""
    nodes: list[Any] = sorted(cluster.worker_nodes, key=_raylet)
    if command == "kill_number":
        return [nodes[numbers[0] % len(nodes)]] if nodes else []
    raylets = {_parent(process) for process in numbers}
    return [node for node in nodes if _raylet(node) in raylets]


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _parent(process: int) -> int:
    """Return a process's parent; 0 if the process has exited."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[1])
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    _manage(int(sys.argv[1]))
