"""Progress of long work: a bar on a terminal, a plain line every 30 s in a log.

Messages are records of the logger `raystp`. The program decides where they go; `log_to_console` prints them on stderr.
"""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

from raystp.cluster import json_logs
from raystp.cluster.metrics import StepMetrics, step_metrics
from raystp.errors import tracebacks

LINE_INTERVAL_S = 30.0

logger = logging.getLogger("raystp")


class Progress:
    """Count finished work: `with Progress("embed", total, "tile") as progress: progress.add(64)`."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self.failures = 0
        self._start = self._last = time.monotonic()
        self.before = 0
        """How many of `done` an earlier process finished: they do not count for the rate."""
        self.note = ""
        """Further text at the end of a line or of the bar."""
        self._metrics: StepMetrics | None = None
        shown = sys.stderr.isatty() and not json_logs.are_on(logger)
        self._bar = tqdm(total=total, desc=label, unit=unit, leave=False) if shown else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            self._line()

    def add(self, count: int, *, failed: int = 0) -> None:
        """Count `count` units as finished, of which `failed` failed."""
        self.done += count
        self.failures += failed
        self._count(count, failed)
        if self._bar is not None:
            self._bar.set_postfix_str(self.note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last >= LINE_INTERVAL_S:
            self._last = time.monotonic()
            self._line()

    def add_earlier(self, count: int) -> None:
        """Count units that an earlier process finished: they do not count for the rate."""
        self.before += count
        self.done += count
        self._count(0, 0)
        if self._bar is not None:
            self._bar.update(count)

    def _count(self, count: int, failed: int) -> None:
        """Count in the metrics, once this process is connected to Ray."""
        self._metrics = self._metrics or step_metrics(self.label, self.unit, self.total)
        if self._metrics is not None:
            self._metrics.add(count, done=self.done, failed=failed)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def _line(self) -> None:
        seconds = max(self.seconds, 1e-9)
        rate = max(self.done - self.before, 0) / seconds
        text = f"{self.label}: {self.done} of {self.total} {self.unit}s in {seconds:.1f} s, {rate:.1f} {self.unit}s/s"
        if self.done < self.total and rate > 0:
            text += f", about {(self.total - self.done) / rate:.0f} s to go"
        if self.failures:
            text += f", {self.failures} failed"
        if self.note:
            text += f"; {self.note}"
        logger.info(text, extra={"step": self.label})


class ConsoleHandler(logging.Handler):
    """Print each record as one plain line on stderr, above a progress bar if there is one.

    stdout is reserved for the result of a step.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; a closed terminal does not stop the work."""
        try:
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except (OSError, ValueError):
            self.handleError(record)


def log_to_console(formatter: logging.Formatter | None = None) -> None:
    """Print the messages of raystp on stderr, from level INFO, without tracebacks; repeated calls add no handler.

    `formatter` makes the lines; without it they are the plain messages.
    """
    handler = next((one for one in logger.handlers if isinstance(one, ConsoleHandler)), None)
    if handler is None:
        handler = ConsoleHandler()
        logger.addHandler(handler)
    handler.setFormatter(formatter)
    logger.setLevel(logging.INFO)
    tracebacks.setLevel(logging.CRITICAL)
