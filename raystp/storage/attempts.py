"""The ledger of attempts: a mark before a piece of work is begun, taken away when it has ended, however it ended.

A piece whose marks pile up has brought its process down each time; who begins it next is told so, and refuses it.
"""

import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from raystp.storage.place import StoragePath

MAX_CRASHES = 3
"""After so many processes that ended over a piece of work, it is refused."""


@dataclass(frozen=True)
class AttemptLedger:
    """The marks of one artifact's pieces of work, a folder a piece."""

    place: StoragePath

    def begin(self, piece: str) -> str:
        """Write a marker; return "", or the host of the last of `MAX_CRASHES` processes that this piece crashed."""
        folder = self.place / piece
        marks = folder.names()
        if len(marks) >= MAX_CRASHES:
            return str(json.loads((folder / marks[-1]).read_bytes())["host"])
        mark = {"host": socket.gethostname(), "process": os.getpid()}
        (folder / f"{time.time_ns():020d}.json").write_bytes(json.dumps(mark).encode())
        return ""

    def ended(self, piece: str) -> None:
        """Take a piece's marks away."""
        (self.place / piece).remove()

    def forget(self) -> None:
        """Take all marks away: what was refused is tried again."""
        self.place.remove()

    def sweep(self, done: Iterable[str]) -> None:
        """Take away the marks of pieces that are done: their process died between that and its receipt."""
        finished = set(done)
        for piece in self.place.names():
            if piece in finished:
                (self.place / piece).remove()
