"""The attempt ledger: a marker is written before risky work and removed when the work ends, with or without an error.

A marker that stays means that the process crashed. After `MAX_CRASHES` of them the work is refused. In an object store
an attempt without a crash costs two requests: put-if-absent and removal.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from raystp.errors import StorageError
from raystp.storage.path import StoragePath

MAX_CRASHES = 3
"""After this many crashes, work is refused."""

SUFFIX = ".json"


@dataclass(frozen=True)
class _Marker:
    """The attempts of one item that did not end, and the host of the last one."""

    attempts: int
    host: str


_MARKER = TypeAdapter(_Marker)


@dataclass(frozen=True)
class AttemptLedger:
    """The markers of one artifact's work: a file for each item, named by its id, with the number of its attempts."""

    path: StoragePath

    def begin(self, item: str) -> str:
        """Write a marker and return ""; after `MAX_CRASHES` crashes, return the host of the last one instead."""
        file = self._file(item)
        if file.write_new(_marker(1)):
            return ""
        crashed = _read(file)
        if crashed.attempts >= MAX_CRASHES:
            return crashed.host
        file.write_bytes(_marker(crashed.attempts + 1))
        return ""

    def end(self, item: str) -> None:
        """Remove an item's marker; one that cannot be removed stays, and counts as a crash."""
        with contextlib.suppress(StorageError):
            self._file(item).remove_file()

    def items(self) -> set[str]:
        """Return the items that have a marker."""
        return {name.removesuffix(SUFFIX) for name in self.path.names() if name.endswith(SUFFIX)}

    def clear(self) -> None:
        """Remove all markers, so that refused work is tried again."""
        self.path.remove()

    def remove_finished(self, done: Iterable[str]) -> None:
        """Remove the markers of finished items, left by processes that died between commit and removal."""
        for item in self.items().intersection(done):
            self.end(item)

    def _file(self, item: str) -> StoragePath:
        return self.path / f"{item}{SUFFIX}"


def _marker(attempts: int) -> bytes:
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "attempts": attempts}).encode()


def _read(file: StoragePath) -> _Marker:
    try:
        return _MARKER.validate_json(file.read_bytes())
    except ValidationError:
        return _Marker(1, "an unknown host")  # a loss of power can leave an empty file: it is one crash at least
    except StorageError:
        if file.is_file():
            raise
        return _Marker(0, "")  # another driver's process has just ended the same item
