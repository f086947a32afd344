"""Configuration of `raystp inspect`."""

import warnings
from typing import Annotated, ClassVar

from pydantic import Field

from raystp.config import Location, RunConfig, StepConfig

ARTIFACTS = (
    "demo",
    "spots",
    "tile",
    "embed",
    "complete",
    "train",
    "tune",
    "index",
    "impute",
    "evaluate",
    "predict",
    "pipeline",
)
"""Steps whose artifacts `<step>/<name>` are found in the store."""


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "json"')  # pydantic's old method of this name is not used

    class InspectConfig(StepConfig[RunConfig]):
        """Configuration of `raystp inspect`. Nothing is unpickled, and only headers of large files are read."""

        command: ClassVar[str | None] = "inspect"
        positional: ClassVar[str | None] = "item"

        item: Annotated[str, Location(prefixes=tuple(f"{step}/" for step in ARTIFACTS))]
        """`<step>/<name>` of an artifact in the store, or the path or URI of a file or folder."""

        json: bool = False  # type: ignore[assignment]  # see above
        """Print JSON."""

        run: RunConfig = Field(default_factory=RunConfig)
