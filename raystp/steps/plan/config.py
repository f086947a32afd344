"""Configuration of `raystp plan`: a pipeline, and what is known of rates and prices."""

import warnings
from typing import Annotated, ClassVar

from pydantic import Field

from raystp.config import Config, Location
from raystp.steps.run.config import RunCommandConfig

Rate = Annotated[float, Field(gt=0)]


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "json"')  # pydantic's old method of this name is not used

    class PlanConfig(RunCommandConfig):
        """Configuration of `raystp plan`: that of a pipeline, or the flags of `raystp run`.

        A sample of the slides is tiled as `tile` does it, from headers and coarse levels, and nothing is kept.
        """

        command: ClassVar[str | None] = "plan"

        sample: int = Field(default=64, ge=2)
        """Slides that are opened. A larger cohort is sampled by kind of file, and its totals have 95 % intervals."""

        seed: int = 0
        """Chooses the sample."""

        threads: int = Field(default=4, ge=1, le=64)
        """Slides that are opened at once."""

        rate: dict[str, Rate] = Field(default_factory=dict)
        """Known rates: `tile` in slides per CPU-second, and an encoder's name in tiles per CPU- or GPU-second. Others
        are measured on this machine; an encoder without weights here has none."""

        gpu: bool = False
        """Whether the rates of encoders that are given are those of a GPU."""

        prices: Annotated[str | None, Location()] = None
        """A YAML file of prices in dollars: `get_per_1000`, `put_per_1000`, `read_per_gb`, `stored_per_gb_month`,
        `cpu_hour`, `gpu_hour`."""

        json: bool = False  # type: ignore[assignment]  # see above
        """Print JSON."""


class Prices(Config):
    """Prices in dollars; what is not given is free."""

    get_per_1000: float = Field(default=0.0, ge=0)
    put_per_1000: float = Field(default=0.0, ge=0)
    read_per_gb: float = Field(default=0.0, ge=0)
    """Of the slides' bytes, where the store charges for leaving it."""
    stored_per_gb_month: float = Field(default=0.0, ge=0)
    """Of the results, for one month."""
    cpu_hour: float = Field(default=0.0, ge=0)
    gpu_hour: float = Field(default=0.0, ge=0)
