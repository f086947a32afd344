"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

LINE_EVERY_S = 30.0


class Progress:
    """Counts work done; `with Progress("embed", total, "tile") as progress: progress.add(64)`."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit, self.done, self.failures = label, total, unit, 0, 0
        self._start = self._last = time.monotonic()
        self.note = ""
        """What else a line says, the bar behind its rate."""
        self._bar = tqdm(total=total, desc=label, unit=unit, leave=False) if sys.stderr.isatty() else None

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
        """Count `count` units as done, `failed` of them with a failure."""
        self.done += count
        self.failures += failed
        if self._bar is not None:
            self._bar.set_postfix_str(self.note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            self._line()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def _line(self) -> None:
        seconds = max(self.seconds, 1e-9)
        rate = self.done / seconds
        text = f"{self.label}: {self.done} of {self.total} {self.unit}s in {seconds:.1f} s, {rate:.1f} {self.unit}s/s"
        if self.done < self.total and rate > 0:
            text += f", about {(self.total - self.done) / rate:.0f} s to go"
        if self.failures:
            text += f", {self.failures} failed"
        if self.note:
            text += f"; {self.note}"
        say(text)


def say(text: str) -> None:
    """Print a line for the person who runs the step; on stderr, since a step's result is on stdout."""
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()
