"""Configuration of `raystp export`."""

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from raystp.config import Choices, Location, RunConfig, StepConfig
from raystp.interop.registry import FEATURES

FORMATS = tuple(one.name for one in FEATURES.values() if one.writes)


class ExportRun(RunConfig):
    """The `run` section of `raystp export`."""

    deadline_s: float = Field(default=1800.0, gt=0)
    """Deadline in seconds for one slide. A worker that exceeds it is stopped; after three such attempts the slide is
    skipped."""


class ExportConfig(StepConfig[ExportRun]):
    """Configuration of `raystp export`: an artifact is written as files of another tool, one slide after the other."""

    command: ClassVar[str | None] = "export"

    positional: ClassVar[str | tuple[str, ...] | None] = ("format", "artifact")

    where: ClassVar[frozenset[str]] = frozenset({"artifact"})

    format: Annotated[str, Choices(FORMATS)]
    """The tool whose files are written."""

    artifact: Annotated[str, Location(prefixes=("embed/", "impute/"))]
    """What is exported: embeddings, `embed/<name>`."""

    out: Annotated[str, Location()]
    """The folder or URI to write. Each file is replaced as a whole; other files there are left as they are."""

    encoder_name: str | None = None
    """Name of the encoder in the files. The default is the name that raystp, or the tool they came from, has for it."""

    run: ExportRun = Field(default_factory=ExportRun)

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str) -> str:
        if name not in FORMATS:
            msg = f"unknown format {name!r}; the formats are {', '.join(FORMATS)}"
            raise ValueError(msg)
        return name
