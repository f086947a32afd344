"""Configuration of `index`: build a reference index from a model and measured spots, or change an existing one."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from raystp.config import Location, RunConfig, StepConfig
from raystp.steps.input_config import OptionalEmbeddingNames
from raystp.steps.train.cases.config import CasesConfig

Vectors = Literal["expression", "image"]


class IndexRun(RunConfig):
    """Where the step runs and on which resources; nothing here changes a row."""

    cpus_per_shard: float = Field(default=1.0, gt=0)
    """Logical CPUs reserved to build a shard."""

    delete_base: bool = False
    """With `without`: delete every older index of this lineage in the store that still has the removed patients."""


class IndexConfig(StepConfig[IndexRun]):
    """The model and the measured spots to index; or `base` and how it changes."""

    command: ClassVar[str | None] = "index"

    RENAMED: ClassVar[Mapping[str, str]] = {
        "bank": "renamed to vectors; `bank: spot` is now `vectors: expression`, `bank: image` is `vectors: image`"
    }

    where: ClassVar[frozenset[str]] = frozenset({"model", "spots", "embeddings", "base"})

    model: Annotated[str | None, Location("train")] = None
    """A contrastive model, `train/<name>`. With `base`, the model of the base is used."""

    spots: Annotated[str | None, Location("spots")] = None
    """The measured spots, `spots/<name>`."""

    embeddings: OptionalEmbeddingNames = None
    """The embeddings of their tiles, `embed/<name>`, or the list that the model was trained on."""

    cases: CasesConfig | None = None
    """For a model of whole cases, instead of `spots`: the table of labels; a row of the index is a case."""

    reference: list[str] | None = None
    """Sections or cases to index. The default is those that the model was trained and validated on. With `base`:
    sections to add."""

    vectors: Vectors | None = None
    """Embeddings in the index, with which queries are compared: of the spots' expression (as in the published code), or
    of their images. The default is the model's own, by which its epoch was chosen (`train`: retrieval.vectors)."""

    metric: Literal["cosine", "l2"] | None = None
    """Similarity by which neighbours are ranked. The default is the model's own (`train`: retrieval.metric)."""

    kind: Literal["auto", "exact", "ivf", "ivfsq", "ivfpq", "hnsw"] = "auto"
    """How neighbours are found. `exact` compares every row; the others compare a part of them. `auto` is exact below
    100,000 rows; the manifest states the reason for its choice."""

    prefer: Literal["build", "speed", "bytes"] = "build"
    """What `kind=auto` looks for from 100,000 rows on: the shortest build (`ivfsq`), the fastest search (`hnsw` below
    300,000 rows, else `ivfsq`), or the fewest bytes (`ivfpq`)."""

    recall: float = Field(default=0.99, gt=0, le=1)
    """Share of the true neighbours that an approximate kind must find, as measured when the index is built."""

    recall_k: int = Field(default=50, ge=1)
    """Number of neighbours at which recall is measured."""

    shards: int | None = Field(default=None, ge=1)
    """Number of shards. The default follows from `shard_bytes`. An exact index gives the same results for any number.
    """

    shard_bytes: int = Field(default=4 << 30, ge=1 << 20)
    """Size limit of a shard's vectors and expression, in bytes, both as float32."""

    expression: Literal["float32", "float16", "csr", "csr16"] = "float32"
    """How expression is stored: dense, or sparse (csr); 16: in half precision (error at most 4e-3)."""

    base: Annotated[str | None, Location("index")] = None
    """An index to change, `index/<name>`: the sections of `reference` are added, or `without` are removed."""

    without: list[str] = Field(default_factory=list)
    """Patients whose rows are removed from `base`, for example because they withdrew their consent."""

    run: IndexRun = Field(default_factory=IndexRun)

    @model_validator(mode="after")
    def _check_action(self) -> "IndexConfig":
        """Raise unless the config describes exactly one of: build, add sections, remove patients."""
        if self.base is None:
            if self.spots is not None and self.cases is not None:
                msg = "set either `spots` (measured spots) or `cases` (labels of whole cases)"
                raise ValueError(msg)
            labels = "spots" if self.cases is None else "cases"
            absent = [name for name in ("model", labels, "embeddings") if getattr(self, name) is None]
            if absent or self.without:
                msg = f"a new index needs {', '.join(absent)}" if absent else "`without` needs a `base` to remove from"
                raise ValueError(msg)
            return self
        adds = self.reference is not None and self.spots is not None and self.embeddings is not None
        if adds == bool(self.without) or self.model is not None or self.cases is not None:
            msg = (
                "a `base` has one change at a time and keeps its model: set `reference` with its `spots` and "
                "`embeddings` to add sections, or `without` to remove patients"
            )
            raise ValueError(msg)
        return self

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; the table of cases counts by its digest."""
        values = super().fingerprint_values()
        if self.prefer == "build":  # absent at its default, so that earlier indexes are found
            del values["prefer"]
        cases = values.pop("cases")  # absent from the fingerprint of an index of spots, as before the field existed
        return values if cases is None or self.cases is None else {**values, "cases": self.cases.fingerprint_values()}
