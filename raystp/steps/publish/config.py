"""Configuration of `raystp publish`."""

from typing import Annotated, ClassVar

from pydantic import Field

from raystp.config import Location, RunConfig, StepConfig

NOT_STATED = "not stated"


class PublishConfig(StepConfig[RunConfig]):
    """The model to publish, where to, and what its card says beside what is known of it."""

    command: ClassVar[str | None] = "publish"
    positional: ClassVar[str | None] = "model"

    name: str = Field(default="default", pattern=r"^[A-Za-z0-9._-]{1,48}$")
    """Name of the published model. The default is the model's own."""

    model: Annotated[str, Location("train")]
    """The model, `train/<name>`."""

    index: Annotated[str | None, Location("index")] = None
    """The reference index of a contrastive model, `index/<name>`. It is published with measured expression of its
    spots; approximate search is left out, so that every row is compared."""

    out: Annotated[str, Location()]
    """The folder or URI to write. It must be new, empty, or hold the same published model."""

    scores: Annotated[str | None, Location("evaluate")] = None
    """An evaluation of this model, `evaluate/<name>`, whose mean scores the card states."""

    licence: str = Field(default=NOT_STATED, min_length=1, max_length=200)
    """Licence of the model, for example `CC-BY-4.0`. The encoder's own licence is stated beside it."""

    description: str = Field(default="", max_length=10_000)
    """Free text: training data, intended use and limits."""

    run: RunConfig = Field(default_factory=RunConfig)
