"""Metrics of a run, through Ray's own: each node's metrics port has them as `ray_raystp_...` for Prometheus.

The driver counts what a step finishes, whatever the step. The encoders of `embed` count what they commit, read and wait
for. Without Ray, nothing is counted. `docs/observability.md` lists the names.
"""

import functools
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge

PREFIX = "raystp_"
STEP_TAGS = ("step", "unit")

COUNTERS: Mapping[str, str] = {
    "step_finished": "Slides, tiles or other units that this run has finished, the failed ones too",
    "step_failed": "Of these, the failed ones",
    "units_committed": "Work units of embeddings that are committed",
    "units_failed": "Work units of embeddings that failed",
    "tiles_embedded": "Tiles of the committed work units",
    "encoder_waited_seconds": "Seconds that encoders waited for pixels",
    "encoder_busy_seconds": "Seconds that encoders computed",
    "read_bytes": "Bytes that the processes of encoders read from files, from the page cache too",
}
"""Name without the prefix -> description."""

GAUGES: Mapping[str, str] = {
    "step_planned": "Slides, tiles or other units of a step, those that an earlier run finished too",
    "step_done": "Of these, the finished ones",
    "gpu_memory_bytes": "GPU memory that torch has allocated in the process of an encoder; 0 without a GPU",
}


class StepMetrics:
    """What a driver counts of one step."""

    def __init__(self, step: str, unit: str, total: int) -> None:
        self._tags, self._total = {"step": step, "unit": unit}, total
        self.add(0, done=0)

    def add(self, count: int, *, done: int, failed: int = 0) -> None:
        """Count units that this run has finished, of which `failed` failed; `done` are finished in total.

        Ray reports a gauge only after it was set, so both are set each time.
        """
        gauge("step_planned", STEP_TAGS).set(self._total, tags=self._tags)
        gauge("step_done", STEP_TAGS).set(done, tags=self._tags)
        for name, value in (("step_finished", count), ("step_failed", failed)):
            _increase(counter(name, STEP_TAGS), value, self._tags)


class EncoderMetrics:
    """What the process of an encoder counts. Threads may share it."""

    def __init__(self) -> None:
        self._read, self._lock = bytes_read(), threading.Lock()

    def add(self, *, tiles: int, failed: bool, waited_s: float = 0.0, busy_s: float = 0.0) -> None:
        """Count a work unit, and what this process has read and holds by now."""
        with self._lock:
            before, self._read = self._read, bytes_read()
            read = self._read - before
        _increase(counter("units_failed" if failed else "units_committed"), 1)
        _increase(counter("tiles_embedded"), tiles)
        _increase(counter("encoder_waited_seconds"), waited_s)
        _increase(counter("encoder_busy_seconds"), busy_s)
        _increase(counter("read_bytes"), read)
        gauge("gpu_memory_bytes").set(gpu_memory())


def step_metrics(step: str, unit: str, total: int) -> StepMetrics | None:
    """Return the metrics of a step; None where this process is not connected to Ray."""
    ray: Any = sys.modules.get("ray")  # a command without Ray does not import it for this
    return StepMetrics(step, unit, total) if ray is not None and ray.is_initialized() else None


@functools.cache
def counter(name: str, tags: tuple[str, ...] = ()) -> "Counter":
    """Return this process's counter of a name in `COUNTERS`; Ray keeps one of each name."""
    from ray.util.metrics import Counter  # noqa: PLC0415 -- `--help` imports this module, and not Ray

    return Counter(f"{PREFIX}{name}", COUNTERS[name], tags)


@functools.cache
def gauge(name: str, tags: tuple[str, ...] = ()) -> "Gauge":
    """Return this process's gauge of a name in `GAUGES`."""
    from ray.util.metrics import Gauge  # noqa: PLC0415 -- `--help` imports this module, and not Ray

    return Gauge(f"{PREFIX}{name}", GAUGES[name], tags)


def bytes_read() -> int:
    """Return the bytes that this process has read from files; 0 where the system does not count them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("rchar:")), 0)


def gpu_memory() -> int:
    """Return the bytes that torch has allocated on this process's GPUs; 0 without one."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return sum(int(torch.cuda.memory_allocated(number)) for number in range(torch.cuda.device_count()))


def _increase(metric: "Counter", value: int | float, tags: dict[str, str] | None = None) -> None:
    """Add to a counter; Ray refuses an increase by 0, so a counter has no series before its first event."""
    if value > 0:
        metric.inc(value, tags=tags or {})
