"""Progress of a training, from rank 0 on any node to the driver: through a small file beside the checkpoints.

The worker writes it at most every few seconds, and the driver reads it. A file needs no connection between them, and
survives a restart of the worker.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from raystp.cluster.progress import Progress
from raystp.errors import StorageError
from raystp.storage import StoragePath

WRITE_INTERVAL_S = 2.0
READ_INTERVAL_S = 0.5

EpochRow = dict[str, Any]
"""A row of the `epochs` table."""


class EpochWriter:
    """Writes the progress of a training; `file` is None where it is not read."""

    def __init__(self, file: StoragePath | None, *, resumed: int) -> None:
        self._file, self._resumed, self._written = file, resumed, 0.0

    def write(self, rows: Sequence[EpochRow]) -> None:
        """Write the last epoch, unless one was written a moment ago; an error of the store is no error of the work."""
        if self._file is None or time.monotonic() - self._written < WRITE_INTERVAL_S:
            return
        content = json.dumps({"done": len(rows), "resumed": self._resumed, "last": rows[-1]})
        with contextlib.suppress(StorageError):
            self._file.write_bytes(content.encode())
        self._written = time.monotonic()


_SHOWING = threading.Lock()
"""The driver and the thread that follows the file both show epochs."""


@contextlib.contextmanager
def epochs_shown(file: StoragePath, epochs: int) -> Iterator[Progress]:
    """Show the epochs that a worker writes to `file`, while the driver waits for the end of the training."""
    file.remove()
    stop = threading.Event()
    with Progress("train", epochs, "epoch") as progress:
        reader = threading.Thread(target=_follow, args=(file, progress, stop), name="raystp-epochs", daemon=True)
        reader.start()
        try:
            yield progress
        finally:
            stop.set()
            reader.join()


def show(progress: Progress, done: int, row: EpochRow, *, resumed: int | None = None) -> None:
    """Show that `done` epochs are finished, of which an earlier process finished `resumed`; `row` is the last one."""
    with _SHOWING:
        if done < progress.done:  # read from the file before a later epoch was shown
            return
        progress.note = describe(row)
        progress.before = progress.before if resumed is None else resumed
        if done > progress.done:
            progress.add(done - progress.done)


def describe(row: EpochRow) -> str:
    """Return the losses, the PCC and the error of an epoch as text."""
    named = (
        ("loss", "train_loss"),
        ("validation loss", "validation_loss"),
        ("validation PCC", "validation_pcc"),
        ("validation MSE", "validation_mse"),
        ("gene mean's MSE", "gene_mean_mse"),
    )
    return ", ".join(f"{name} {row[key]:.4g}" for name, key in named if row.get(key) is not None)


def _follow(file: StoragePath, progress: Progress, stop: threading.Event) -> None:
    while not stop.wait(READ_INTERVAL_S):
        with contextlib.suppress(StorageError, ValueError):  # not there yet, or the store does not respond
            found = json.loads(file.read_bytes())
            show(progress, found["done"], found["last"], resumed=found["resumed"])
