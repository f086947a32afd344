"""The config of `impute`: which slides, by which model and bank, under which protocol, and what is left of it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raystp.config import Location, RunConfig, StepConfig


class ImputeRun(RunConfig):
    """Where, and how wide; nothing here changes a row."""

    processes: int | None = Field(default=None, ge=1)
    """Slides predicted at a time, each by a process; by default half the cluster's CPUs."""

    cpus_per_process: float = Field(default=1.0, gt=0)
    """Logical CPUs that each of them holds."""

    chunk_tiles: int = Field(default=2048, ge=1)
    """Tiles answered from a bank at a time: memory grows with it, times the genes."""

    shard_actors: int = Field(default=0, ge=0)
    """Actors that hold the bank's shards between them; with 0 every process that predicts maps all of the bank."""

    replicas: int = Field(default=1, ge=1)
    """With `shard_actors`: how many actors hold the same shards."""

    cpus_per_shard_actor: float = Field(default=0.0, ge=0)
    """Logical CPUs that each of those holds; with 0 they share the CPUs that the predicting processes hold."""


class ImputeConfig(StepConfig[ImputeRun]):
    """Which slides to predict, by which model, under which protocol."""

    where: ClassVar[frozenset[str]] = frozenset({"embeddings", "model", "index", "spots", "neighbours"})

    embeddings: Annotated[str, Location("embed")]
    """The queries, `embed/<name>`."""

    model: Annotated[str, Location("train")]
    """`train/<name>`."""

    index: Annotated[str | None, Location("index")] = None
    """The bank of a contrastive model, `index/<name>`."""

    spots: Annotated[str | None, Location("spots")] = None
    """Measured spots, `spots/<name>`: where a slide has them, they stand beside the prediction in a layer."""

    slides: list[str] | None = None
    """Slides to predict; by default all that the protocol allows, which leaves out what the model was trained on."""

    protocol: str | None = None
    """By default the model's own."""

    k: int = Field(default=50, ge=1)
    """Neighbours of a contrastive model."""

    weights: Literal["mean", "top1", "softmax", "bleep"] = "mean"
    """How neighbours are weighed: mean, top1, softmax or bleep."""

    search: Literal["index", "exact"] = "index"
    """As the index was built, or over all rows whatever its kind. An `exact` index answers alike either way."""

    own_rows: Literal["refuse", "leave_out"] = "refuse"
    """A slide whose patient is in the bank is refused, or is answered from the rows of all other patients. A patient
    that the model itself was trained on is refused either way, unless the protocol allows it."""

    without: dict[str, list[str]] = Field(default_factory=dict)
    """Rows of the bank that do not count: column (patient, section) -> values."""

    genes: list[str] | None = None
    """Genes to predict; by default all of the model's panel."""

    spread: bool = False
    """A layer `spread`, each gene's weighted standard deviation among the neighbours; without a bank there is none."""

    output: Literal["dense", "neighbours"] = "dense"
    """Expression of every gene, or the neighbours and their weights alone: 300 bytes a tile, from which
    `neighbours=impute/<name>` gives the genes that are asked for without another search."""

    neighbours: Annotated[str | None, Location("impute")] = None
    """What an `impute` with `output: neighbours` left; its search is not repeated."""

    run: ImputeRun = Field(default_factory=ImputeRun)

    @model_validator(mode="after")
    def _fits(self) -> "ImputeConfig":
        """Refuse what contradicts itself."""
        if self.index is None and (self.output == "neighbours" or self.neighbours or self.without):
            msg = "output=neighbours, neighbours and without are said of a bank's answer: give `index`"
            raise ValueError(msg)
        if self.output == "neighbours" and (self.genes or self.spread or self.neighbours):
            msg = "output=neighbours has no genes yet: ask for genes and spread when they are made of it"
            raise ValueError(msg)
        return self
