"""What a sweep tells while it runs: a line a trial for people, and in MLflow a run a trial under the sweep's own.

The driver logs for all its trials, so one process alone writes to MLflow, however many nodes train.
"""

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from raystp.artifacts import digest_of
from raystp.cluster.progress import Progress
from raystp.cluster.tracking.delivery import RunRef
from raystp.cluster.tracking.outbox import Outbox, RunLogger, Tracker, flat, quiet
from raystp.cluster.training.trials import Trial

logger = logging.getLogger("raystp")

_ENDED = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


class SweepLog:
    """Told by the sweep what its trials do; a context, since the runs that it opened must be closed.

    `plan` is the sweep's whole config, with the one that is trained under `train`.
    """

    def __init__(self, tracker: Tracker, book: RunRef, plan: Mapping[str, Any], *, metric: str, total: int) -> None:
        self._tracker, self._book, self._plan, self._metric = tracker, book, plan, metric
        self._progress = Progress("tune", total, "trial")
        self._outbox: Outbox | None = None
        self._runs: dict[int, RunLogger] = {}
        self._open: set[int] = set()
        self._parent = RunLogger(None, book)
        self.left = ""
        """At the end: what did not reach MLflow, if anything."""

    def __enter__(self) -> "SweepLog":
        if self._tracker.uri is not None:
            quiet()
            self._outbox = Outbox(self._tracker)
            self._parent = self._outbox.run(self._book)
        self._parent.open()
        self._parent.parameters(self._plan)
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        for number in self._open:
            self._runs[number].end("KILLED")
        self._parent.end("FAILED" if kind else "FINISHED")
        if self._outbox is not None:
            self.left = self._outbox.close()

    def began(self, number: int, overrides: dict[str, Any]) -> None:
        """Open a trial's run, with the whole config that it trains."""
        run = self._run(number, overrides)
        run.open()
        run.parameters(dict(flat(self._plan["train"])) | overrides)
        self._open.add(number)

    def epoch(self, number: int, metrics: Mapping[str, Any]) -> None:
        """Log the numbers of an epoch that Tune has not added itself."""
        values = {key: metrics[key] for key in ("train_loss", "validation_loss", "validation_pcc") if key in metrics}
        self._runs[number].metrics(values, step=int(metrics["epoch"]))

    def ended(self, one: Trial) -> None:
        """Close a trial's run, and say how it ended."""
        self._settle(one)
        self._progress.add(1, failed=one.status == "failed")
        score = f", {self._metric} {one.score:.4f}" if one.score is not None else ""
        why = f": {one.reason}" if one.reason else ""
        logger.info(f"  trial {one.number:03d} {one.status} after {one.epochs} epochs{score}{why}")

    def close(self, trials: list[Trial], score: float | None, files: list[str]) -> None:
        """Bring the runs of all trials in order, those of an earlier process too, and log the sweep's own outcome."""
        self._progress.add(len(trials) - self._progress.done)
        for one in trials:
            self._settle(one)
        self._parent.keep([self._identity(one.number, one.overrides) for one in trials])
        self._parent.metrics({self._metric: score, "trials": float(len(trials))}, step=0)
        for file in files:
            self._parent.file(file)

    def _settle(self, one: Trial) -> None:
        run = self._run(one.number, one.overrides)
        for row in one.history:
            run.metrics(
                {key: value for key, value in row.items() if key not in {"epoch", "seconds"}}, step=row["epoch"]
            )
        tags = {"raystp.outcome": one.status, "raystp.model": one.model or "", "raystp.reason": one.reason or ""}
        run.tags({key: value for key, value in tags.items() if value})
        run.end(_ENDED[one.status])
        self._open.discard(one.number)

    def _run(self, number: int, overrides: dict[str, Any]) -> RunLogger:
        if number not in self._runs:
            book = self._tracker.book(
                f"trial-{number:03d}", self._identity(number, overrides), parent=self._book.identity
            )
            self._runs[number] = self._outbox.run(book) if self._outbox is not None else RunLogger(None, book)
        return self._runs[number]

    def _identity(self, number: int, overrides: dict[str, Any]) -> str:
        """A trial is its place and its values: begun anew with others, it is another run."""
        return f"{self._book.identity}#{number:03d}-{digest_of(overrides)[:8]}"
