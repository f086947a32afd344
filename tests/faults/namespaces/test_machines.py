"""The machines of the network tests themselves: they are separate, they can be cut off, and a slow link is slow."""

import statistics
import sys
import time
from collections.abc import Iterator

import pytest

from tests.faults.namespaces.link import LinkQuality
from tests.faults.namespaces.machines import Machine, Network, missing, open_network

pytestmark = [pytest.mark.faults, pytest.mark.skipif(bool(missing()), reason=missing())]

DELAY_S, LOSS = 0.02, 0.05
SERVE = """
import socket
with socket.create_server(("", 7000)) as server:
    while True:
        connection, _ = server.accept()
        while connection.recv(1):
            connection.sendall(b"x")
"""
TRIPS = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2])) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(int(sys.argv[3])):
        start = time.monotonic()
        connection.sendall(b"x")
        connection.recv(1)
        print(time.monotonic() - start)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    with open_network() as network:
        yield network


def _serve(machine: Machine) -> None:
    background = 'setsid "$0" -c "$1" >/dev/null 2>&1 &'
    assert machine.run("sh", "-c", background, sys.executable, SERVE, environment={}).returncode == 0


def _trips(machine: Machine, other: Machine, *, timeout_s: float = 10.0, count: int = 20) -> list[float]:
    """Return seconds of round trips between two machines; empty without a connection."""
    for _ in range(20):
        done = machine.run(sys.executable, "-c", TRIPS, other.address, str(timeout_s), str(count), environment={})
        if "refused" not in done.stderr:
            break
        time.sleep(0.1)
    return [float(line) for line in done.stdout.split()]


def test_machines_reach_each_other_and_nothing_else(network: Network) -> None:
    one, other = network.add("one"), network.add("other")
    assert one.run("hostname", environment={}).stdout == "one\n"
    assert one.run("ip", "route", environment={}).stdout.startswith(f"{network.subnet}.0/24 dev eth0")
    assert "booted" in one.run("ls", "/tmp", environment={}).stdout
    one.run("touch", "/tmp/file", "/dev/shm/file", environment={})
    assert other.run("ls", "/tmp/file", "/dev/shm/file", environment={}).stdout == ""
    assert len(one.run("ps", "-e", environment={}).stdout.splitlines()) < 8
    _serve(other)
    assert len(_trips(one, other)) == 20


def test_a_machine_that_is_cut_off_is_reached_again_once_it_is_connected(network: Network) -> None:
    one, other = network.add("one"), network.add("other")
    _serve(other)
    assert _trips(one, other)
    other.cut()
    assert not _trips(one, other, timeout_s=1.0)
    other.heal()
    assert _trips(one, other)


def test_a_machine_boots_again_with_its_files(network: Network) -> None:
    one = network.add("one")
    one.run("touch", "/tmp/kept", environment={})
    one.power_off()
    one.boot()
    assert one.run("ls", "/tmp/kept", environment={}).returncode == 0


def test_a_slow_link_delays_each_way_and_loses_frames(network: Network) -> None:
    one, other = network.add("one"), network.add("other", LinkQuality(DELAY_S, LOSS))
    _serve(other)
    trips = _trips(one, other, count=100)
    assert len(trips) == 100  # TCP repairs what is lost
    assert min(trips) >= 2 * DELAY_S
    assert statistics.median(trips) < max(trips) / 2  # a frame was lost and sent again
