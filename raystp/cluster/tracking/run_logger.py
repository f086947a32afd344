"""The log of one run: each call makes an entry for a queue, and returns at once."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from raystp.cluster.tracking.runs import Entry, RunRef

PAGE_TIMEOUT_S = 5.0
"""How long a report waits for the address of its run."""


@runtime_checkable
class EntryQueue(Protocol):
    """Where entries wait for delivery: an `Outbox`."""

    def put(self, run_ref: RunRef, entry: Entry) -> None:
        """Queue an entry; return at once."""

    def page(self, run_ref: RunRef, timeout_s: float) -> str | None:
        """Return the address of a run's page; None without one, or after the time limit."""


class RunLogger:
    """An open run; every call returns at once. `undelivered` is set at the end: a message, or an empty string."""

    def __init__(self, outbox: EntryQueue | None, run_ref: RunRef) -> None:
        self._outbox, self.run_ref, self.undelivered = outbox, run_ref, ""

    @property
    def is_tracked(self) -> bool:
        """Whether the entries go to MLflow."""
        return self._outbox is not None

    def open(self) -> None:
        """Set the run's status to running, also after it had ended."""
        self._put(kind="open")

    def log_parameters(self, values: Mapping[str, object]) -> None:
        """Log a nested config as flat parameters; existing ones (of a resumed run) are kept."""
        self._put(kind="params", values={key: str(value) for key, value in flat(values)})

    def log_metrics(self, values: Mapping[str, float | None], step: int) -> None:
        """Log the numbers of an epoch; None is skipped, and existing points are kept."""
        numbers = {key: float(value) for key, value in values.items() if value is not None}
        self._put(kind="metrics", values=numbers, step=step, time=int(time.time() * 1000))

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Set tags; a later value replaces an earlier one."""
        self._put(kind="tags", values=dict(values))

    def describe(self, text: str) -> None:
        """Set the description that the run's page shows: Markdown, cut at 5,000 characters."""
        self._put(kind="note", text=text)

    def log_inputs(self, inputs: Mapping[str, str], context: str) -> None:
        """Log what a manifest lists as inputs (role -> folder, or digest) as datasets of a use, such as `training`."""
        if inputs:
            self._put(kind="inputs", values=dict(inputs), context=context)

    def adopt(self, identities: Sequence[str]) -> None:
        """Show the runs of other artifacts below this one."""
        self._put(kind="adopt", identities=list(identities))

    def page(self, timeout_s: float = PAGE_TIMEOUT_S) -> str | None:
        """Return the address of the run's page; None where there is none, or MLflow has not answered in time."""
        return None if self._outbox is None else self._outbox.page(self.run_ref, timeout_s)

    def log_file(self, path: str, folder: str | None = None) -> None:
        """Copy a finished file, named relative to the store, to the run's files."""
        self._put(kind="file", path=path, folder=folder)

    def keep_children(self, identities: list[str]) -> None:
        """Delete every child run but these."""
        self._put(kind="keep", identities=identities)

    def end(self, status: str = "FINISHED") -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self._put(kind="end", status=status)

    def _put(self, **entry: object) -> None:
        if self._outbox is not None:
            self._outbox.put(self.run_ref, entry)


def flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of a nested config under their dotted names; None is skipped."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value
