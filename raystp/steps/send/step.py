"""send: bring MLflow what it did not take while the runs went on.

A training whose server is down goes on, and leaves what it would have logged in `<store>/tracking`.
"""

from pydantic import Field

from raystp.cluster.tracking.outbox import send
from raystp.config import StepConfig
from raystp.errors import ConfigError, Unfinished
from raystp.steps.run_config import TrackedRun

STEP = "send"


class SendConfig(StepConfig[TrackedRun]):
    """Which store's runs, and to which server."""

    patience_s: float = Field(default=120.0, gt=0)
    """Seconds to wait for the server."""

    run: TrackedRun = Field(default_factory=TrackedRun)


CONFIG = SendConfig


def run(config: SendConfig) -> str:
    """Send all that waits in the store; raises Unfinished, saying why, where some of it still waits."""
    tracker = config.run.tracker("")
    if tracker.uri is None:
        msg = "run.tracking: `none` is no server; name MLflow's URI"
        raise ConfigError(msg)
    runs, left = send(tracker, config.patience_s)
    if left:
        raise Unfinished(left)
    return f"{runs} runs of {tracker.store / 'tracking'} are in MLflow" if runs else "nothing waits to be sent"
