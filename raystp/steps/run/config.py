"""Configuration of `raystp run`: short names for what is usually chosen, over the config of the pipeline."""

from typing import Annotated, ClassVar

from pydantic import Field

from raystp.config import Location
from raystp.models.methods import REFERENCE
from raystp.steps.pipeline.config import PipelineConfig


class RunCommandConfig(PipelineConfig):
    """Configuration of `raystp run`; a field of the pipeline takes precedence over the short ones.

    Slides without measured sections are tiled and embedded. A table with measured sections goes on to a report.
    """

    command: ClassVar[str | None] = "run"
    positional: ClassVar[str | None] = "slides"

    has_default_methods: ClassVar[bool] = True

    root: Annotated[str | None, Location()] = None
    """Folder or URI that relative paths of a table start from. The default is the table's own folder."""

    encoder: str | None = None
    """The image encoder (uni_v2, virchow2, resnet50 ...); tiles have the size in um and px that it was trained on."""

    weights: Annotated[str | None, Location()] = None
    """A local file (or URI) with the encoder's weights."""

    model: list[str] = Field(default=[REFERENCE], min_length=1)
    """Methods to train on measured sections, such as [bleep, ridge]; the report is about the first."""

    test: list[str] = Field(default_factory=list)
    """Patients, or sections, that are held out for the scores. The default is the last patient of the table."""
