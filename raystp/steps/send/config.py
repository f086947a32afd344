"""Configuration of `raystp send`."""

from typing import ClassVar

from pydantic import Field

from raystp.config import StepConfig
from raystp.steps.run_config import TrackedRun


class SendConfig(StepConfig[TrackedRun]):
    """Configuration of `raystp send`."""

    command: ClassVar[str | None] = "send"

    RENAMED: ClassVar[dict[str, str]] = {"patience_s": "timeout_s"}

    timeout_s: float = Field(default=120.0, gt=0)
    """How long to wait for the server, in seconds."""

    run: TrackedRun = Field(default_factory=TrackedRun)
