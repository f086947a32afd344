"""send: deliver to MLflow what was not delivered during the runs.

A run continues while its MLflow server is down, and keeps its undelivered entries in `<store>/tracking`.
"""

from collections.abc import Iterator

from raystp.artifacts import without_secrets
from raystp.cluster.tracking.outbox import send
from raystp.errors import ConfigError, Unfinished
from raystp.steps.send.config import SendConfig

STEP = "send"
CONFIG = SendConfig


def plan(config: SendConfig) -> Iterator[str]:
    """Yield where undelivered entries are kept, and where they would go."""
    tracker = config.run.tracker("")
    yield f"reads {tracker.store / 'tracking'}"
    yield f"sends to {without_secrets(tracker.uri or 'none')}"


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
