"""Configuration of `raystp slides`."""

from typing import Annotated, ClassVar

from pydantic import Field

from raystp.config import Location, RunConfig, StepConfig


class SlidesRun(RunConfig):
    """The `run` section of `raystp slides`."""

    threads: int = Field(default=16, ge=1, le=256)
    """Slides whose headers are read at once; a remote one takes some requests, one after the other."""


class SlidesConfig(StepConfig[SlidesRun]):
    """Configuration of `raystp slides`."""

    command: ClassVar[str | None] = "slides"
    positional: ClassVar[str | None] = "slides"

    slides: Annotated[str, Location("demo")]
    """A folder, a glob, a prefix of an object store, a slide table (CSV, .xlsx or parquet), or `demo/<name>`."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that relative paths of a table start from. The default is the table's own folder."""

    run: SlidesRun = Field(default_factory=SlidesRun)
