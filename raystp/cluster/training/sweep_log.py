"""Log of a sweep: a line per trial on the console, and in MLflow a run per trial below the sweep's run.

The driver logs for all trials, so a single process writes to MLflow, however many nodes train.
"""

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from raystp.cluster.progress import Progress
from raystp.cluster.tracking.outbox import Outbox, Tracker, silence_mlflow
from raystp.cluster.tracking.run_logger import RunLogger, flat
from raystp.cluster.tracking.runs import RunRef
from raystp.cluster.training.trials import Overrides, Report, Trial
from raystp.digests import digest_of

logger = logging.getLogger("raystp")

MLFLOW_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
BEST_TAG = "raystp.best_trial"
EPOCH_METRICS = ("train_loss", "validation_loss", "validation_pcc")


class SweepLog:
    """A `TrialObserver` that logs; a context manager, since it must close the runs that it opened.

    `config` is the sweep's whole config, with the trained config under `train`.
    """

    def __init__(
        self, tracker: Tracker, run_ref: RunRef, config: Mapping[str, Any], *, metric: str, total: int
    ) -> None:
        self._tracker, self._run_ref, self._config, self._metric = tracker, run_ref, config, metric
        self._progress = Progress("tune", total, "trial")
        self._outbox: Outbox | None = None
        self._runs: dict[int, RunLogger] = {}
        self._open: set[int] = set()
        self._parent = RunLogger(None, run_ref)
        self.undelivered = ""
        """Set at the end: a message about entries that did not reach MLflow, or an empty string."""

    def __enter__(self) -> "SweepLog":
        if self._tracker.uri is not None:
            silence_mlflow()
            self._outbox = Outbox(self._tracker)
            self._parent = self._outbox.run(self._run_ref)
        self._parent.open()
        self._parent.log_parameters(self._config)
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
            self.undelivered = self._outbox.close()

    def on_start(self, number: int, overrides: Overrides) -> None:
        """Open a trial's run, with the whole config that it trains."""
        run = self._run(number, overrides)
        run.open()
        run.log_parameters(dict(flat(self._config["train"])) | overrides)
        self._open.add(number)

    def on_epoch(self, number: int, metrics: Report) -> None:
        """Log the metrics of an epoch, without those that Tune adds."""
        values = {key: metrics[key] for key in EPOCH_METRICS if key in metrics}
        self._runs[number].log_metrics(values, step=int(metrics["epoch"]))

    def on_end(self, trial: Trial) -> None:
        """Close a trial's run, and log its outcome."""
        self._close_run(trial)
        self._progress.add(1, failed=trial.status == "failed")
        score = f", {self._metric} {trial.score:.4f}" if trial.score is not None else ""
        reason = f": {trial.reason}" if trial.reason else ""
        logger.info(f"  trial {trial.number:03d} {trial.status} after {trial.epochs} epochs{score}{reason}")

    def close(self, trials: list[Trial], best: Trial | None, files: list[str], *, note: str = "") -> None:
        """Log all trials in order, also those of an earlier process, and the sweep's own outcome.

        `note` is the description of the sweep's run, Markdown.
        """
        self._progress.add(len(trials) - self._progress.done)
        for trial in trials:
            self._close_run(trial)
        self._parent.keep_children([self._identity(trial.number, trial.overrides) for trial in trials])
        self._parent.log_metrics(
            {self._metric: None if best is None else best.score, "trials": float(len(trials))}, step=0
        )
        if best is not None:
            self._parent.set_tags({BEST_TAG: f"trial-{best.number:03d}"})
            self._run(best.number, best.overrides).set_tags({BEST_TAG: "true"})
        if note:
            self._parent.describe(note)
        for file in files:
            self._parent.log_file(file)

    def _close_run(self, trial: Trial) -> None:
        run = self._run(trial.number, trial.overrides)
        for row in trial.history:
            values = {key: value for key, value in row.items() if key not in {"epoch", "seconds"}}
            run.log_metrics(values, step=row["epoch"])
        tags = {"raystp.outcome": trial.status, "raystp.model": trial.model or "", "raystp.reason": trial.reason or ""}
        run.set_tags({key: value for key, value in tags.items() if value})
        run.log_metrics({"score": trial.score}, step=0)
        run.end(MLFLOW_STATUS[trial.status])
        self._open.discard(trial.number)

    def _run(self, number: int, overrides: Overrides) -> RunLogger:
        if number not in self._runs:
            identity = self._identity(number, overrides)
            run_ref = self._tracker.run_ref(f"trial-{number:03d}", identity, parent=self._run_ref.identity)
            self._runs[number] = self._outbox.run(run_ref) if self._outbox is not None else RunLogger(None, run_ref)
        return self._runs[number]

    def _identity(self, number: int, overrides: Overrides) -> str:
        """Identify a trial by its number and its values: started again with other values, it is another run."""
        return f"{self._run_ref.identity}#{number:03d}-{digest_of(overrides)[:8]}"
