"""Log records as JSON, one object per line, for a program that collects the logs of many nodes.

    {"time": "2026-11-30T18:21:52.123456+00:00", "level": "INFO", "logger": "raystp", "step": "embed",
     "message": "embed: 96 of 96 tiles in 1.2 s, 80.0 tiles/s"}

`slide` is there where a record states it, `traceback` where it has an exception. The driver prints such lines on
stderr; Ray's workers write them to their own log files.
"""

import datetime as dt
import json
import logging
import re
import sys
from pathlib import Path

WORKER_HOOK = "raystp.cluster.json_logs.log_as_json"
"""What Ray calls in each new worker."""

_STEP = re.compile(r".*/raystp/(?:steps/(\w+)/)?")
"""The step of a file, whatever folders the package is in, which differ between nodes."""


class JsonFormatter(logging.Formatter):
    """A record as one JSON object; `step` is the command, or the step whose code wrote the record."""

    def __init__(self, command: str = "") -> None:
        super().__init__()
        self._command = command

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        entry: dict[str, str] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "step": self._command,
            "message": record.getMessage().strip(),
            **stated_by(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def stated_by(record: logging.LogRecord) -> dict[str, str]:
    """Return the `step` and the `slide` of a record, each only if it states one; its source file states a step."""
    stated = {name: str(record.__dict__.get(name) or "") for name in ("step", "slide")}
    stated["step"] = stated["step"] or step_of(record.pathname)
    return {name: value for name, value in stated.items() if value}


def step_of(path: str) -> str:
    """Return the step whose package a source file is in, "" for any other file."""
    step = _STEP.match(Path(path).as_posix())
    return (step[1] or "") if step else ""


def are_on(logger: logging.Logger) -> bool:
    """Return whether this process writes the logger's records as JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logger.handlers)


def log_as_json() -> None:
    """Write the messages of raystp in this worker as JSON on its stderr, which is Ray's log file of the worker."""
    logger = logging.getLogger("raystp")
    if not are_on(logger):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
