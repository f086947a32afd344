"""A slow link in user space: frames between two TAP devices arrive late, and some never.

Kernels without `netem` have no other way to delay packets. A TAP device gives whole frames with their checksums, so TCP
above it is the kernel's own: it measures the delay, retransmits what is lost and lowers its rate.

The process opens both devices, prints a line, and copies frames until its stdin closes. It needs only the standard
library.
"""

import argparse
import collections
import fcntl
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

TUN = "/dev/net/tun"
SET_DEVICE = 0x400454CA
"""TUNSETIFF of linux/if_tun.h."""
TAP_WITHOUT_HEADER = 0x1002
"""IFF_TAP | IFF_NO_PI: whole Ethernet frames, nothing before them."""
LONGEST_FRAME = 1 << 16


@dataclass(frozen=True)
class LinkQuality:
    """What a link does to each frame, in each direction."""

    delay_s: float
    loss: float
    """Share of frames that are dropped."""


@dataclass
class Link:
    """A running link process; `left` and `right` are its devices, in the namespace where it started."""

    left: str
    right: str
    process: "subprocess.Popen[str]"

    def close(self) -> None:
        """Stop the process, which removes its devices."""
        self.process.communicate(timeout=10)


def start_link(left: str, right: str, quality: LinkQuality) -> Link:
    """Start a link process and wait until its devices exist."""
    process = subprocess.Popen(
        [sys.executable, __file__, left, right, str(quality.delay_s), str(quality.loss)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the link did not start"
    return Link(left, right, process)


def _open_tap(name: str) -> int:
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, SET_DEVICE, struct.pack("16sH22x", name.encode(), TAP_WITHOUT_HEADER))
    return device


def _copy(left: int, right: int, quality: LinkQuality) -> None:
    """Copy frames in both directions until stdin closes."""
    draw = random.Random(left)
    other = {left: right, right: left}
    late: collections.deque[tuple[float, int, bytes]] = collections.deque()
    """Frames on their way, with the time when they arrive: all take equally long, so the oldest is the first."""
    with selectors.DefaultSelector() as ready:
        for device in (left, right, sys.stdin.fileno()):
            ready.register(device, selectors.EVENT_READ)
        while True:
            wait_s = max(0.0, late[0][0] - time.monotonic()) if late else None
            for key, _ in ready.select(wait_s):
                if key.fd == sys.stdin.fileno():
                    return
                for frame in _waiting_frames(int(key.fd)):
                    if draw.random() >= quality.loss:
                        late.append((time.monotonic() + quality.delay_s, other[int(key.fd)], frame))
            while late and late[0][0] <= time.monotonic():
                _, device, frame = late.popleft()
                _deliver(device, frame)


def _waiting_frames(device: int) -> list[bytes]:
    frames = []
    try:
        while True:
            frames.append(os.read(device, LONGEST_FRAME))
    except OSError:  # nothing more waits, or the device is down
        return frames


def _deliver(device: int, frame: bytes) -> None:
    try:
        os.write(device, frame)
    except OSError:  # the device is down: the frame is lost, as on a real link
        return


def main() -> None:
    """Run the link that the command line describes."""
    parser = argparse.ArgumentParser()
    for name in ("left", "right"):
        parser.add_argument(name)
    for name in ("delay_s", "loss"):
        parser.add_argument(name, type=float)
    words = parser.parse_args()
    left, right = _open_tap(words.left), _open_tap(words.right)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    _copy(left, right, LinkQuality(words.delay_s, words.loss))


if __name__ == "__main__":
    main()
