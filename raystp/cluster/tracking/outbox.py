"""Tracking: what a run logs reaches MLflow beside the work, or lies on disk until it does; the work never waits for it.

A thread of its own brings the entries, in order, and tries again while a server is down or slow. What is not there
when the run has ended is written to the store, with the command that sends it. Only one process of a run logs: rank 0
of a training, the driver of a sweep.
"""

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raystp.cluster.tracking.delivery import Entry, RunDelivery, RunRef
from raystp.errors import RaystpError
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

PATIENCE_S = 20.0
"""How long the end of a run waits for what is left; a server that has been silent as long by then gets LAST_S."""
LAST_S = 2.0
LONGEST_PAUSE_S = 15.0

REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "RESOURCE_DOES_NOT_EXIST"})
"""Answers that another try would not change: such an entry is said and left, so that those after it arrive."""


@dataclass(frozen=True)
class Tracker:
    """Where runs are logged, and where that waits which could not be."""

    uri: str | None
    """MLflow's tracking URI; None for no tracking."""
    experiment: str
    store: StoragePath
    """What is not delivered lies in its `tracking/`."""

    def book(self, name: str, identity: str, *, parent: str | None = None) -> RunRef:
        """Return the logbook of one artifact."""
        return RunRef(self.experiment, name, identity, self.store, parent=parent)


NOWHERE = Tracker(None, "", StoragePath(""))
"""No tracking: for every rank but the first, and for the trials of a sweep, whose driver logs them."""


class Outbox:
    """The thread that brings entries, for one run or for many."""

    def __init__(self, tracker: Tracker, patience_s: float | None = None) -> None:
        self._tracker, self._patience_s = tracker, PATIENCE_S if patience_s is None else patience_s
        self._waiting: list[tuple[RunRef, Entry]] = []
        self._deliveries: dict[str, RunDelivery] = {}
        self._changed, self._closing = threading.Condition(), False
        self._trouble, self._since = "", 0.0
        self._thread = threading.Thread(target=self._work, name="raystp-tracking", daemon=True)
        self._thread.start()

    def run(self, book: RunRef) -> "RunLogger":
        """Open a run, the earlier one if there is one; what an earlier attempt left on disk goes first."""
        for entry in _read_backlog(self._tracker.store, book):
            self.put(book, entry)
        return RunLogger(self, book)

    def put(self, book: RunRef, entry: Entry) -> None:
        """Take an entry; returns at once."""
        with self._changed:
            self._waiting.append((book, entry))
            self._changed.notify()

    def close(self) -> str:
        """Wait a while for what is left; return a sentence about what did not arrive, or nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        silent_s = time.monotonic() - self._since if self._trouble else 0.0
        self._thread.join(max(LAST_S, self._patience_s - silent_s))
        with self._changed:
            left, self._waiting = self._waiting, []
        books = {book.identity: book for book, _ in left}
        for identity, book in books.items():
            _write_backlog(self._tracker.store, book, [entry for of, entry in left if of.identity == identity])
        for identity in self._deliveries.keys() - books.keys():
            _backlog(self._tracker.store, identity).remove()
        if not left:
            return ""
        store = self._tracker.store
        return (
            f"MLflow did not take {len(left)} entries ({self._trouble}); they are kept in {store / 'tracking'}, and "
            f"`raystp send --set run.store={store} --set run.tracking=URI` sends them when it answers"
        )

    def _work(self) -> None:
        pause = 0.5
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                batch = _alike(self._waiting)
            if self._tried(batch):
                pause = 0.5
                with self._changed:
                    del self._waiting[: len(batch)]
                continue
            with self._changed:
                if self._closing:
                    pause = min(pause, 1.0)  # the last moments, in which a server may come back
                self._changed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _tried(self, batch: list[tuple[RunRef, Entry]]) -> bool:
        """Bring a batch of one run and one kind; say once when the server stops answering, and when it is back."""
        book = batch[0][0]
        try:
            if book.identity not in self._deliveries:
                self._deliveries[book.identity] = RunDelivery(str(self._tracker.uri), book)
            self._deliveries[book.identity].bring([entry for _, entry in batch])
        except Exception as error:  # noqa: BLE001 -- whatever a client or its database raises must not stop the work
            reason = _reason(error)
            if _is_final(error):
                logger.warning(f"  an entry of {book.name} cannot be logged and is left out: {reason}")
                return True
            if not self._trouble:
                self._since = time.monotonic()
                logger.warning(f"  MLflow does not answer ({reason}); the run goes on, and what it logs is kept")
            self._trouble = reason
            self._deliveries.pop(book.identity, None)
            return False
        if self._trouble:
            logger.info("  MLflow answers again")
            self._trouble = ""
        return True


class RunLogger:
    """One run that is open; every call returns at once. `left` is set at the end: what did not arrive, if anything."""

    def __init__(self, outbox: Outbox | None, book: RunRef) -> None:
        self._outbox, self.book, self.left = outbox, book, ""

    def open(self) -> None:
        """Say that the run is at work, again if it had ended."""
        self._put(kind="open")

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log a nested config as flat parameters; one that stands already (a resumed run) is left as it is."""
        self._put(kind="params", values={key: str(value) for key, value in flat(values)})

    def metrics(self, values: Mapping[str, float | None], step: int) -> None:
        """Log numbers at an epoch; None is left out, and an epoch that stands already is left as it is."""
        numbers = {key: float(value) for key, value in values.items() if value is not None}
        self._put(kind="metrics", values=numbers, step=step, time=int(time.time() * 1000))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; a later value takes the place of an earlier one."""
        self._put(kind="tags", values=dict(values))

    def file(self, path: str, folder: str | None = None) -> None:
        """Copy a finished file, named relative to the store, to the run's own files."""
        self._put(kind="file", path=path, folder=folder)

    def keep(self, identities: list[str]) -> None:
        """Delete every run under this one but those."""
        self._put(kind="keep", identities=identities)

    def end(self, status: str = "FINISHED") -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self._put(kind="end", status=status)

    def _put(self, **entry: Any) -> None:
        if self._outbox is not None:
            self._outbox.put(self.book, entry)


@contextlib.contextmanager
def tracked(tracker: Tracker, book: RunRef, parameters: Mapping[str, Any]) -> Iterator[RunLogger]:
    """Open the run of this artifact, the earlier one if there is one, and close it with the outcome."""
    if tracker.uri is None:
        yield RunLogger(None, book)
        return
    quiet()
    outbox = Outbox(tracker)
    run = outbox.run(book)
    run.open()
    run.parameters(parameters)
    try:
        yield run
    except BaseException:
        run.end("FAILED")
        raise
    else:
        run.end()
    finally:
        run.left = outbox.close()


def quiet() -> None:
    """Let MLflow and its database's migrations speak of errors alone."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def send(tracker: Tracker, patience_s: float | None = None) -> tuple[int, str]:
    """Bring all that earlier runs left in the store; return how many runs that were, and what did not arrive."""
    quiet()
    files = [(tracker.store / "tracking" / name) for name in (tracker.store / "tracking").names()]
    outbox = Outbox(tracker, patience_s)
    for file in files:
        values = json.loads(file.read_bytes())
        book = RunRef(**{**values["book"], "store": tracker.store})
        for entry in values["entries"]:
            outbox.put(book, entry)
    return len(files), outbox.close()


def _is_final(error: Exception) -> bool:
    """Say whether another try would end alike: a refusal, or a file of ours that is not there."""
    return isinstance(error, RaystpError | FileNotFoundError) or getattr(error, "error_code", None) in REFUSALS


def _reason(error: Exception) -> str:
    """Return an error's first line, without what stands before an `@` in an address."""
    line = str(error).strip().partition("\n")[0][:160]
    return f"{type(error).__name__}: {re.sub(r'//[^/@ ]*@', '//', line)}"


def _alike(waiting: list[tuple[RunRef, Entry]]) -> list[tuple[RunRef, Entry]]:
    """Return the first entries, as far as they are of one run and one kind."""
    (book, first), count = waiting[0], 0
    for of, entry in waiting:
        if of.identity != book.identity or entry["kind"] != first["kind"]:
            break
        count += 1
    return waiting[:count]


def _backlog(store: StoragePath, identity: str) -> StoragePath:
    return store / "tracking" / f"{identity.replace('/', '.').replace('#', '.')}.json"


def _read_backlog(store: StoragePath, book: RunRef) -> list[Entry]:
    file = _backlog(store, book.identity)
    entries: list[Entry] = json.loads(file.read_bytes())["entries"] if file.exists() else []
    return entries


def _write_backlog(store: StoragePath, book: RunRef, entries: list[Entry]) -> None:
    """Write what is left, without the store's address, which may hold a secret."""
    about = {key: value for key, value in asdict(book).items() if key != "store"}
    _backlog(store, book.identity).write_bytes(json.dumps({"book": about, "entries": entries}, indent=1).encode())


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a nested config's single values under their dotted names; None is left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value
