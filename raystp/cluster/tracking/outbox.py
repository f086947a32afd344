"""Tracking: entries of runs go to MLflow in the background, or to a file for later; the work never waits.

A thread delivers the entries in order and retries while a server is down or slow. An entry that the server rejects does
not stop the others. All that is undelivered at the end of a run is written to the store, with a message that gives the
command to send it. One process of a run logs: rank 0 of a training, the driver of a sweep.
"""

import contextlib
import logging
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raystp.cluster.tracking.backlog import backlog_file, kept_runs, read_backlog, write_backlog
from raystp.cluster.tracking.rejections import is_rejection, parts_of, reason_of
from raystp.cluster.tracking.run_logger import RunLogger
from raystp.cluster.tracking.runs import Entry, LostRunError, RunRef
from raystp.errors import RaystpError
from raystp.storage import StoragePath

if TYPE_CHECKING:
    from raystp.cluster.tracking.delivery import RunDelivery

logger = logging.getLogger("raystp")

END_TIMEOUT_S = 20.0
"""How long the end of a run waits for delivery. Time for which the server was already down counts, up to MIN_WAIT_S."""
MIN_WAIT_S = 2.0
MAX_PAUSE_S = 15.0


@dataclass(frozen=True)
class Tracker:
    """Where runs are logged, and where undelivered entries are kept."""

    uri: str | None
    """MLflow's tracking URI; None for no tracking."""
    experiment: str
    store: StoragePath
    """Undelivered entries are in its `tracking/`."""

    def run_ref(self, name: str, identity: str, *, parent: str | None = None) -> RunRef:
        """Return the reference to the run of one artifact."""
        return RunRef(self.experiment, name, identity, self.store, parent=parent)


NO_TRACKING = Tracker(None, "", StoragePath(""))
"""For every rank but the first, and for the trials of a sweep, which the driver logs."""


class Outbox:
    """A queue of entries for one or many runs, and the thread that delivers them."""

    def __init__(self, tracker: Tracker, timeout_s: float | None = None) -> None:
        self._tracker, self._timeout_s = tracker, END_TIMEOUT_S if timeout_s is None else timeout_s
        self._queue: list[tuple[RunRef, Entry]] = []
        self._rejected: list[tuple[RunRef, Entry]] = []
        self._reasons: set[str] = set()
        self._deliveries: dict[str, RunDelivery] = {}
        self._pages: dict[str, str | None] = {}
        self._changed, self._closing = threading.Condition(), False
        self._error, self._error_since = "", 0.0
        self._thread = threading.Thread(target=self._run, name="raystp-tracking", daemon=True)
        self._thread.start()

    def run(self, run_ref: RunRef) -> RunLogger:
        """Open a run, or reopen it; entries that an earlier attempt could not deliver are queued first."""
        try:
            kept = read_backlog(self._tracker.store, run_ref)
        except RaystpError as error:  # the work does not depend on its log
            logger.warning(f"  {error}")
            kept = []
        for entry in kept:
            self.put(run_ref, entry)
        return RunLogger(self, run_ref)

    def put(self, run_ref: RunRef, entry: Entry) -> None:
        """Queue an entry; return at once."""
        with self._changed:
            self._queue.append((run_ref, entry))
            self._changed.notify_all()

    def page(self, run_ref: RunRef, timeout_s: float) -> str | None:
        """Wait until the run exists; return the address of its page, None without one or after the time limit."""
        if not str(self._tracker.uri).startswith("http"):
            return None
        with self._changed:
            self._changed.wait_for(lambda: run_ref.identity in self._pages or self._error, timeout_s)
            return self._pages.get(run_ref.identity)

    def close(self) -> str:
        """Wait for the delivery, with a time limit; return a message about undelivered entries, or an empty string."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        down_s = time.monotonic() - self._error_since if self._error else 0.0
        self._thread.join(max(MIN_WAIT_S, self._timeout_s - down_s))
        with self._changed:
            undelivered, self._queue, self._rejected = [*self._rejected, *self._queue], [], []
        try:
            self._keep(undelivered)
        except RaystpError as error:
            return f"{len(undelivered)} entries were not delivered to MLflow and cannot be kept: {error}"
        if not undelivered:
            return ""
        store, reasons = self._tracker.store, "; ".join(sorted(self._reasons | {self._error} - {""})) or "too slow"
        command = f"raystp send --set {shlex.quote(f'run.store={store}')} --set run.tracking=URI"
        kept = (
            f"{len(undelivered)} entries were not delivered to MLflow ({reasons}) and are kept in {store / 'tracking'}"
        )
        return f"{kept}; send them with `{command}`"

    def _keep(self, undelivered: list[tuple[RunRef, Entry]]) -> None:
        run_refs = {run_ref.identity: run_ref for run_ref, _ in undelivered}
        for identity, run_ref in run_refs.items():
            entries = [entry for of, entry in undelivered if of.identity == identity]
            write_backlog(self._tracker.store, run_ref, entries)
        for identity in self._deliveries.keys() - run_refs.keys():
            backlog_file(self._tracker.store, identity).remove()

    def _run(self) -> None:
        pause = 0.5
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                batch = _next_batch(self._queue)
            if self._deliver(batch):
                pause = 0.5
                with self._changed:
                    del self._queue[: len(batch)]
                    self._changed.notify_all()
                continue
            with self._changed:
                self._changed.notify_all()
                if self._closing:
                    pause = min(pause, 1.0)  # retry quickly in the last seconds
                self._changed.wait(pause)
            pause = min(2 * pause, MAX_PAUSE_S)

    def _deliver(self, batch: list[tuple[RunRef, Entry]]) -> bool:
        """Deliver a batch of one run and one kind; log once when the server stops responding and when it is back."""
        run_ref = batch[0][0]
        try:
            self._send(run_ref, [entry for _, entry in batch])
        except Exception as error:  # noqa: BLE001 -- no error of a client or its database may stop the work
            self._deliveries.pop(run_ref.identity, None)
            if is_rejection(error):
                return self._deliver_parts(run_ref, [part for _, entry in batch for part in parts_of(entry)])
            reason = reason_of(error)
            if not self._error:
                self._error_since = time.monotonic()
                logger.warning(f"  MLflow does not respond ({reason}); the run continues and its log is kept")
            self._error = reason
            return False
        if self._error:
            logger.info("  MLflow responds again")
            self._error = ""
        return True

    def _send(self, run_ref: RunRef, entries: list[Entry]) -> None:
        from raystp.cluster.tracking.delivery import RunDelivery  # noqa: PLC0415 -- MLflow: a second, in this thread

        if run_ref.identity not in self._deliveries:
            self._deliveries[run_ref.identity] = RunDelivery(str(self._tracker.uri), run_ref)
            self._pages[run_ref.identity] = self._deliveries[run_ref.identity].page
        self._deliveries[run_ref.identity].deliver(entries)

    def _deliver_parts(self, run_ref: RunRef, parts: list[Entry]) -> bool:
        """Deliver the values of a rejected batch one by one; what is rejected again is kept.

        The run is opened anew, which restores it if it was deleted meanwhile. Returns False if the server does not
        respond; then the whole batch is repeated.
        """
        rejected: list[tuple[RunRef, Entry]] = []
        for part in parts:
            try:
                self._send(run_ref, [part])
            except Exception as error:  # noqa: BLE001 -- as in `_deliver`
                self._deliveries.pop(run_ref.identity, None)
                if not is_rejection(error):
                    self._error = self._error or reason_of(error)
                    return False
                reason, is_lost = reason_of(error), isinstance(error, FileNotFoundError | LostRunError)
                if reason not in self._reasons:
                    outcome = "skipped" if is_lost else "kept"
                    logger.warning(f"  MLflow rejected entries of {run_ref.name}; {outcome}: {reason}")
                if not is_lost:
                    self._reasons.add(reason)
                    rejected.append((run_ref, part))
        self._rejected += rejected
        return True


@contextlib.contextmanager
def tracked(tracker: Tracker, run_ref: RunRef, parameters: Mapping[str, object]) -> Iterator[RunLogger]:
    """Open the run, or reopen it, and close it with the outcome."""
    if tracker.uri is None:
        yield RunLogger(None, run_ref)
        return
    silence_mlflow()
    outbox = Outbox(tracker)
    run = outbox.run(run_ref)
    run.open()
    run.log_parameters(parameters)
    try:
        yield run
    except BaseException:
        run.end("FAILED")
        raise
    else:
        run.end()
    finally:
        run.undelivered = outbox.close()


def silence_mlflow() -> None:
    """Limit the log of MLflow and of its database migrations to errors."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def send(tracker: Tracker, timeout_s: float | None = None) -> tuple[int, str]:
    """Deliver the entries kept in the store; return the number of runs, and a message about undelivered entries."""
    silence_mlflow()
    outbox, runs = Outbox(tracker, timeout_s), 0
    # A run that shows others below it comes after them.
    for run_ref, entries in sorted(kept_runs(tracker.store), key=lambda kept: _has_children(kept[1])):
        runs += 1
        for entry in entries:
            outbox.put(run_ref, entry)
    return runs, outbox.close()


def _has_children(entries: Sequence[Entry]) -> bool:
    return any(entry["kind"] == "adopt" for entry in entries)


def _next_batch(queue: list[tuple[RunRef, Entry]]) -> list[tuple[RunRef, Entry]]:
    """Return the first entries of the queue that have the same run and kind."""
    (run_ref, first), count = queue[0], 0
    for of, entry in queue:
        if of.identity != run_ref.identity or entry["kind"] != first["kind"]:
            break
        count += 1
    return queue[:count]
