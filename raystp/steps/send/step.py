"""send: deliver to MLflow what was not delivered during the runs.

A run continues while its MLflow server is down, and keeps its undelivered entries in `<store>/tracking`.
"""

from typing import ClassVar

from pydantic import Field

from raystp.cluster.tracking.outbox import send
from raystp.config import StepConfig
from raystp.errors import ConfigError, Unfinished
from raystp.steps.run_config import TrackedRun

STEP = "send"


class SendConfig(StepConfig[TrackedRun]):
    """Configuration of `raystp send`."""

    RENAMED: ClassVar[dict[str, str]] = {"patience_s": "timeout_s"}

    timeout_s: float = Field(default=120.0, gt=0)
    """How long to wait for the server, in seconds."""

    run: TrackedRun = Field(default_factory=TrackedRun)


CONFIG = SendConfig


def run(config: SendConfig) -> str:
    """Deliver all entries kept in the store; raise Unfinished with the reason if some remain."""
    tracker = config.run.tracker("")
    if tracker.uri is None:
        msg = "run.tracking: `none` is not a server; give MLflow's URI"
        raise ConfigError(msg)
    runs, undelivered = send(tracker, config.timeout_s)
    if undelivered:
        raise Unfinished(undelivered)
    return f"delivered {runs} runs of {tracker.store / 'tracking'} to MLflow" if runs else "nothing to deliver"
