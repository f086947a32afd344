"""Configuration of `impute`: the slides, the model and index, the protocol, and the form of the output."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from raystp.config import Location, RunConfig, StepConfig
from raystp.config_fields.values import NeighbourCount
from raystp.impute.matrices import MatrixForm
from raystp.impute.weights import WeightsName
from raystp.models.methods import METHODS
from raystp.steps.input_config import EmbeddingNames


class ImputeRun(RunConfig):
    """Where the step runs and on which resources; nothing here changes a row."""

    processes: int | None = Field(default=None, ge=1)
    """Slides predicted at a time, each in a process. The default is half the cluster's CPUs."""

    cpus_per_process: float = Field(default=1.0, gt=0)
    """Logical CPUs reserved for each process."""

    chunk_tiles: int = Field(default=2048, ge=1)
    """Tiles searched and summed at a time; memory is proportional to it, times the genes."""

    shard_actors: int = Field(default=0, ge=0)
    """Actors among which the index's shards are divided. With 0, every process maps the whole index."""

    replicas: int = Field(default=1, ge=1)
    """With `shard_actors`: actors with the same shards."""

    cpus_per_shard_actor: float = Field(default=0.0, ge=0)
    """Logical CPUs reserved for each of these actors. With 0, they share the CPUs of the processes."""


class ImputeConfig(StepConfig[ImputeRun]):
    """The slides to predict, the model, and the protocol."""

    command: ClassVar[str | None] = "impute"
    where: ClassVar[frozenset[str]] = frozenset({"embeddings", "model", "index", "spots", "neighbours"})

    embeddings: EmbeddingNames
    """The queries, `embed/<name>`, or a list in the order that the model was trained on."""

    model: Annotated[str, Location("train")]
    """`train/<name>`."""

    index: Annotated[str | None, Location("index")] = None
    """The reference index of a contrastive model, `index/<name>`."""

    spots: Annotated[str | None, Location("spots")] = None
    """Measured spots, `spots/<name>`. For a slide that has them, they are stored in a layer beside the prediction."""

    slides: list[str] | None = None
    """Slides to predict. The default is all that the protocol allows, without those that the model was trained on."""

    protocol: str | None = None
    """The default is the model's own."""

    k: NeighbourCount | None = None
    """Neighbours of a contrastive model, or `all` rows of the index. The default is the model's own (`train`:
    retrieval.k), by which its epoch was chosen; so it is for the next two."""

    weights: WeightsName | None = None
    """Weights of the neighbours, see `raystp.impute.weights`; all but `mean` favour near neighbours."""

    temperature: float | None = Field(default=None, gt=0)
    """Of the weights `softmax` and `weighted_average`; a higher one makes weights more equal."""

    calibrate: bool | None = None
    """Apply the model's calibration (`train`: retrieval.calibrate). The default is to apply it where the model has one
    and `k`, `weights` and `temperature` are the model's own, for which it was fitted."""

    search: Literal["index", "exact"] = "index"
    """Search as the index was built, or compare every row whatever its kind. An `exact` index gives equal results."""

    own_rows: Literal["refuse", "leave_out"] = "refuse"
    """Refuse a slide whose patient is in the index, or search only the rows of all other patients for it. A patient
    that the model was trained on is refused in both cases, unless the protocol allows it."""

    without: dict[str, list[str]] = Field(default_factory=dict)
    """Rows of the index to exclude: column (patient, section) -> values."""

    genes: Annotated[list[str], Field(min_length=1)] | None = None
    """Genes to predict. The default is the model's panel."""

    spread: bool = False
    """Add a layer `spread`: each gene's weighted standard deviation among the neighbours. A model without an index
    has none."""

    output: Literal["dense", "neighbours"] = "dense"
    """Store the expression of every gene, or only neighbours and weights: 300 bytes a tile, from which
    `neighbours=impute/<name>` computes the expression of any genes without another search."""

    x: MatrixForm = "float32"
    """How values are stored in each h5ad: dense, or `csr`, which leaves out those that are 0. `float16` halves the file
    and keeps 3 digits. The parquet tables have float32 in any case."""

    neighbours: Annotated[str | None, Location("impute")] = None
    """An artifact of `impute` with `output: neighbours`; its search is reused."""

    run: ImputeRun = Field(default_factory=ImputeRun)

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; `x` is left out at its default, so that earlier artifacts are found."""
        values = super().fingerprint_values()
        if self.x == "float32":
            del values["x"]
        return values

    @field_validator("weights", mode="before")
    @classmethod
    def _check_renamed(cls, weights: object) -> object:
        if weights in METHODS:
            msg = "these weights are now called weighted_average"
            raise ValueError(msg)
        return weights

    @model_validator(mode="after")
    def _check_combination(self) -> "ImputeConfig":
        """Raise for fields that contradict each other."""
        if self.index is None and (self.output == "neighbours" or self.neighbours or self.without):
            msg = "`output=neighbours`, `neighbours` and `without` need a reference index: set `index`"
            raise ValueError(msg)
        if self.k == "all" and (self.output == "neighbours" or self.neighbours):
            msg = "k=all has no list of neighbours to store or read: set k to a number, or output=dense"
            raise ValueError(msg)
        if self.output == "neighbours" and (self.genes or self.spread or self.neighbours or self.x != "float32"):
            msg = (
                "output=neighbours stores no expression: set `genes`, `spread` and `x` in a second run with "
                "`neighbours=impute/<name>`"
            )
            raise ValueError(msg)
        return self
