"""Machines of a network of their own: Linux namespaces with an address, a host name, processes and files of their own.

A machine is one process that holds its namespaces of network, mounts, host name and process ids. All of its processes
end with that process, as if the power had failed. Machines share the kernel and the installed Python, and see neither
each other's processes nor each other's /tmp, /dev/shm and loopback. They reach each other and the bridge of their
network, and nothing else: there is no route out.
"""

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.namespaces.link import Link, LinkQuality, start_link

TOOLS = ("ip", "unshare", "nsenter", "mount")
SHARED_MEMORY = "400m"
BOOT_TIMEOUT_S = 30.0
INIT = """
mount --make-rprivate /
mount -t tmpfs -o size={shared} tmpfs /dev/shm
mount -t sysfs sysfs /sys
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/tmp /tmp
hostname {name}
touch /tmp/booted
exec 3<&0
cat <&3 >/dev/null &
while kill -0 $!; do sleep 1; done 2>/dev/null
"""
"""Of a machine's first process: it waits for the children of dead processes, and ends when its stdin closes."""


@functools.cache
def missing() -> str:
    """Return what this computer lacks for machines of their own, as the reason to skip a test; empty for nothing."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"no {', '.join(absent)} here: install Debian's iproute2, util-linux and mount"
    if os.getuid() != 0:
        return "only root may make network namespaces"
    probe = ["unshare", "--net", "--uts", "--pid", "--fork", "--mount", "ip", "link", "add", "probe", "type", "bridge"]
    made = subprocess.run(probe, capture_output=True, text=True, check=False)
    return "" if made.returncode == 0 else f"this kernel makes no namespaces with a bridge: {made.stderr.strip()}"


@dataclass
class Machine:
    """A machine that runs, or that has lost its power."""

    name: str
    address: str
    port: str
    """Its end of the cable at the bridge, an interface of the host."""
    folder: Path
    init: "subprocess.Popen[bytes]"
    link: Link | None

    @property
    def home(self) -> Path:
        """Its home folder, as the host sees it."""
        return self.folder / "tmp" / "home"

    def command(self, *words: str) -> list[str]:
        """Return the command that runs these words inside the machine."""
        children = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
        return ["nsenter", "-t", children[0], "--net", "--uts", "--pid", "--mount", "--", *words]

    def run(
        self, *words: str, environment: Mapping[str, str], timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the machine and return what it printed."""
        values = {**os.environ, "HOME": "/tmp/home", "TMPDIR": "/tmp", **environment}
        return subprocess.run(
            self.command(*words),
            env=values,
            cwd="/",
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def cut(self) -> None:
        """Disconnect the cable: nothing arrives, and nobody is told."""
        _ip("link", "set", self.port, "down")

    def heal(self) -> None:
        """Connect the cable again."""
        _ip("link", "set", self.port, "up")

    def power_off(self) -> None:
        """End all processes of the machine at once; its files in /tmp stay."""
        self.init.kill()
        self.init.communicate()
        if self.link is not None:
            self.link.close()
        else:
            subprocess.run(["ip", "link", "del", self.port], capture_output=True, check=False)


@dataclass
class Network:
    """A bridge on the host, and the machines that are connected to it."""

    bridge: str
    subnet: str
    """The first three numbers of all addresses."""
    folder: Path
    machines: dict[str, Machine] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """Address of the host for the machines."""
        return f"{self.subnet}.1"

    def boot(self, name: str, quality: LinkQuality | None = None) -> Machine:
        """Start a machine, or one that lost its power again: with the same address and files.

        With a quality, its cable is a slow link in user space.
        """
        number = list(self.machines).index(name) if name in self.machines else len(self.machines)
        folder = self.folder / name
        (folder / "tmp" / "home").mkdir(parents=True, exist_ok=True)
        (folder / "tmp" / "booted").unlink(missing_ok=True)
        address = f"{self.subnet}.{number + 2}"
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
        setup = INIT.format(shared=SHARED_MEMORY, folder=folder, name=name)
        spaces = ["--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        init = subprocess.Popen(["unshare", *spaces, "sh", "-ec", setup], stdin=subprocess.PIPE)
        _wait_for(folder / "tmp" / "booted")
        port = f"{self.bridge}p{number}"
        link = None if quality is None else start_link(port, f"{self.bridge}m{number}", quality)
        machine = Machine(name, address, port, folder, init, link)
        self._connect(machine)
        self.machines[name] = machine
        return machine

    def _connect(self, machine: Machine) -> None:
        """Put one end of the machine's cable into its namespace, and the other at the bridge."""
        process = machine.command()[2]
        inside = f"{self.bridge}m"
        if machine.link is None:
            _ip("link", "add", machine.port, "type", "veth", "peer", "name", inside, "netns", process)
        else:
            inside = machine.link.right
            _ip("link", "set", inside, "netns", process)
        for words in (
            ("link", "set", "lo", "up"),
            ("link", "set", inside, "name", "eth0"),
            ("addr", "add", f"{machine.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            subprocess.run(["nsenter", "-t", process, "--net", "ip", *words], check=True)
        _ip("link", "set", machine.port, "master", self.bridge, "up")


@contextlib.contextmanager
def open_network(number: int = 0) -> Iterator[Network]:
    """Yield an empty network; at the end, its machines lose their power and the bridge is removed."""
    bridge = f"rs{os.getpid()}n{number}"
    subnet = f"10.{200 + os.getpid() % 50}.{number}"
    folder = Path(tempfile.mkdtemp(prefix="rs-machines-"))
    _ip("link", "add", bridge, "type", "bridge")
    network = Network(bridge, subnet, folder)
    try:
        _ip("addr", "add", f"{network.host}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        yield network
    finally:
        for machine in network.machines.values():
            machine.power_off()
        _ip("link", "del", bridge)
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _wait_for(file: Path) -> None:
    until = time.monotonic() + BOOT_TIMEOUT_S
    while not file.exists():
        assert time.monotonic() < until, f"{file} did not appear within {BOOT_TIMEOUT_S} s"
        time.sleep(0.02)
