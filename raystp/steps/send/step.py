"""send: deliver to MLflow what was not delivered during the runs.

A run continues while its MLflow server is down, and keeps its undelivered entries in `<store>/tracking`.
"""

from raystp.cluster.tracking.outbox import send
from raystp.errors import ConfigError, Unfinished
from raystp.steps.send.config import SendConfig

STEP = "send"
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
