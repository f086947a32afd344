"""Configuration of `raystp doctor`."""

import warnings
from typing import ClassVar

from pydantic import Field

from raystp.config import StepConfig
from raystp.steps.input_config import EncoderConfig
from raystp.steps.run_config import TrackedRun

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "json"')  # pydantic's old method of this name is not used

    class DoctorConfig(StepConfig[TrackedRun]):
        """Configuration of `raystp doctor`: the store, Ray and MLflow of `run` are those that are checked."""

        command: ClassVar[str | None] = "doctor"

        gated: bool = False
        """Ask the hub whether this user's token opens each gated encoder."""

        encoder: EncoderConfig | None = None
        """An encoder whose weights are checked, as for `raystp embed`: `encoder.name`, `encoder.weights`."""

        json: bool = False  # type: ignore[assignment]  # see above
        """Print JSON."""

        run: TrackedRun = Field(default_factory=TrackedRun)
