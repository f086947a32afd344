"""The attempt ledger: a marker is written before risky work and removed when the work ends, with or without an error.

A marker that stays means that the process crashed. After `MAX_CRASHES` of them the work is refused.
"""

import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from raystp.storage.path import StoragePath

MAX_CRASHES = 3
"""After this many crashes, work is refused."""


@dataclass(frozen=True)
class AttemptLedger:
    """The markers of one artifact's work: a folder for each item, named by its id."""

    path: StoragePath

    def begin(self, item: str) -> str:
        """Write a marker and return ""; after `MAX_CRASHES` crashes, return the host of the last one instead."""
        folder = self.path / item
        markers = folder.names()
        if len(markers) >= MAX_CRASHES:
            return str(json.loads((folder / markers[-1]).read_bytes())["host"])
        marker = {"host": socket.gethostname(), "process": os.getpid()}
        (folder / f"{time.time_ns():020d}.json").write_bytes(json.dumps(marker).encode())
        return ""

    def end(self, item: str) -> None:
        """Remove an item's markers."""
        (self.path / item).remove()

    def clear(self) -> None:
        """Remove all markers, so that refused work is tried again."""
        self.path.remove()

    def remove_finished(self, done: Iterable[str]) -> None:
        """Remove the markers of finished items, left by processes that died between commit and removal."""
        finished = set(done)
        for item in self.path.names():
            if item in finished:
                (self.path / item).remove()
