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
    if Path(__file__).resolve().is_relative_to("/tmp"):
        return "the checkout is in /tmp, and each machine has a /tmp of its own"
    probe = ["unshare", "--net", "--uts", "--pid", "--fork", "--mount", "ip", "link", "add", "probe", "type", "bridge"]
    made = subprocess.run(probe, capture_output=True, text=True, check=False)
    return "" if made.returncode == 0 else f"this kernel makes no namespaces with a bridge: {made.stderr.strip()}"


@dataclass
class Machine:
    """A machine, with or without power; its address and its files stay the same."""

    name: str
    address: str
    bridge: str
    number: int
    folder: Path
    quality: LinkQuality | None
    """Of its cable; None for an ordinary one."""
    init: "subprocess.Popen[bytes] | None" = None
    link: Link | None = None

    @property
    def port(self) -> str:
        """Its end of the cable at the bridge, an interface of the host."""
        return f"{self.bridge}p{self.number}"

    def boot(self) -> None:
        """Start the first process, and connect the machine to the bridge."""
        (self.folder / "tmp" / "home").mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp" / "booted").unlink(missing_ok=True)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        setup = INIT.format(shared=SHARED_MEMORY, folder=self.folder, name=self.name)
        spaces = ["--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        self.init = subprocess.Popen(["unshare", *spaces, "sh", "-ec", setup], stdin=subprocess.PIPE)
        _wait_for(self.folder / "tmp" / "booted")
        self._connect()

    def _connect(self) -> None:
        """Put one end of the cable into the machine's namespace, and the other at the bridge."""
        process, inside = self._process(), f"{self.bridge}m{self.number}"
        if self.quality is None:
            _ip("link", "add", self.port, "type", "veth", "peer", "name", inside, "netns", process)
        else:
            self.link = start_link(self.port, inside, self.quality)
            _ip("link", "set", inside, "netns", process)
        for words in (
            ("link", "set", "lo", "up"),
            ("link", "set", inside, "name", "eth0"),
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            subprocess.run(["nsenter", "-t", process, "--net", "ip", *words], check=True)
        _ip("link", "set", self.port, "master", self.bridge, "up")

    def _process(self) -> str:
        """Return the id of the machine's first process, as the host sees it."""
        assert self.init is not None, f"{self.name} has no power"
        return Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()[0]

    def run(
        self, *words: str, environment: Mapping[str, str], timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the machine and return what it printed."""
        spaces = ["--net", "--uts", "--pid", "--mount"]
        return subprocess.run(
            ["nsenter", "-t", self._process(), *spaces, "--", *words],
            env={**os.environ, "HOME": "/tmp/home", "TMPDIR": "/tmp", **environment},
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
        if self.init is None:
            return
        self.init.kill()
        self.init.communicate()
        if self.link is None:
            subprocess.run(["ip", "link", "del", self.port], capture_output=True, check=False)
        else:
            self.link.close()
        self.init = self.link = None


@dataclass
class Network:
    """A bridge on the host, and the machines that are connected to it."""

    bridge: str
    subnet: str
    """The first three numbers of all addresses."""
    folder: Path
    machines: list[Machine] = field(default_factory=list)
    added: int = 0

    @property
    def host(self) -> str:
        """Address of the host for the machines."""
        return f"{self.subnet}.1"

    def add(self, name: str, quality: LinkQuality | None = None) -> Machine:
        """Start a new machine; with a quality, its cable is a slow link in user space."""
        self.added += 1
        address = f"{self.subnet}.{self.added + 1}"
        folder = self.folder / f"{self.added}"
        machine = Machine(name, address, self.bridge, self.added, folder, quality)
        self.machines.append(machine)
        machine.boot()
        return machine

    def remove_all(self) -> None:
        """Switch off all machines, and delete their files."""
        for machine in self.machines:
            machine.power_off()
            shutil.rmtree(machine.folder, ignore_errors=True)
        self.machines.clear()


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
        network.remove_all()
        _ip("link", "del", bridge)
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _wait_for(file: Path) -> None:
    until = time.monotonic() + BOOT_TIMEOUT_S
    while not file.exists():
        assert time.monotonic() < until, f"{file} did not appear within {BOOT_TIMEOUT_S} s"
        time.sleep(0.02)
