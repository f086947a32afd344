"""Configuration of `raystp spots`."""

from typing import Annotated, ClassVar

from pydantic import Field

from raystp.config import Location, RunConfig, StepConfig
from raystp.expression.readers.options import MAX_LOST


class SpotsConfig(StepConfig[RunConfig]):
    """Configuration of `raystp spots`."""

    command: ClassVar[str | None] = "spots"
    where: ClassVar[frozenset[str]] = frozenset({"slides", "root"})

    slides: Annotated[str, Location("demo")]
    """The slide table; rows with `layout` and `counts` are measured sections. `demo/<name>`: that of a demo."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that the table's relative paths start from. The default is the table's own folder."""

    min_counts: float | None = Field(default=None, ge=0)
    """Fewest UMI of a spot; the default is the larger of 10 and 5 % of the section's median. 0 keeps every spot."""

    max_lost: float = Field(default=MAX_LOST, ge=0, le=1)
    """Largest share of the counts without a position, or of the positions in tissue without counts."""

    counts_layer: str | None = None
    """Where an h5ad has its raw counts: a layer, `X` or `raw`; the table's column of this name wins."""

    allow_mirrored: bool = False
    """Accept sections whose positions mirror the array of Visium, as those of a picture that was flipped."""

    run: RunConfig = Field(default_factory=RunConfig)
