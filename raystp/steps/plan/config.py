"""Configuration of `raystp plan`: a pipeline, and what is known of rates and prices."""

import warnings
from typing import Annotated, Any, ClassVar

from pydantic import Field

from raystp.config import Config, Location
from raystp.steps.run.config import RunCommandConfig

Rate = Annotated[float, Field(gt=0)]


class ClusterConfig(Config):
    """A cluster that does not exist yet: `nodes` gives a section of the plan, all else is assumed."""

    nodes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Numbers of nodes, as `[4,64,1000]`; empty for no such section."""

    gpus: int = Field(default=4, ge=0)
    """GPUs of a node. With 0 an encoder has two CPUs."""

    cpus: int = Field(default=32, ge=1)
    """Logical CPUs of a node."""

    tiles_per_gpu_s: Rate = 125.0
    """Where `rate` has none for an encoder and this machine no GPU. The most that users report of `uni_v2`."""

    request_ms: float = Field(default=30.0, ge=0)
    """Latency of a request to the object store."""

    network_gbit: float = Field(default=10.0, gt=0)
    """Of a node."""

    genes: int = Field(default=19_000, ge=1)
    k: int = Field(default=50, ge=1)
    """Genes of the maps, and neighbours of a tile."""

    index_rows: int = Field(default=1_000_000, ge=1)
    index_dim: int = Field(default=256, ge=1)
    """Of the reference index, which each node of `impute` reads."""

    @property
    def encoders_per_node(self) -> int:
        """Actors of the encoder on a node."""
        return self.gpus or max(1, self.cpus // 2)

    def assumptions(self) -> dict[str, Any]:
        """Return all fields but `nodes`, as plain values."""
        return self.model_dump(mode="json", exclude={"nodes"})


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

        cluster: ClusterConfig = Field(default_factory=ClusterConfig)
        """Numbers of nodes for which `embed` is planned, and what is assumed of a node."""

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
