"""The config of `index`: a bank from a model and measured spots, or a bank that another one becomes."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raystp.config import Location, RunConfig, StepConfig


class IndexRun(RunConfig):
    """Where, and how wide; nothing here changes a row."""

    cpus_per_shard: float = Field(default=1.0, gt=0)
    """Logical CPUs that the building of a shard holds."""

    delete_base: bool = False
    """With `without`: delete every older index of this lineage in the store, which still holds what was removed."""


class IndexConfig(StepConfig[IndexRun]):
    """Which model's space, and which measured spots to put into it; or `base`, and how it changes."""

    where: ClassVar[frozenset[str]] = frozenset({"model", "spots", "embeddings", "base"})

    model: Annotated[str | None, Location("train")] = None
    """A contrastive model, `train/<name>`; with `base`, its own."""

    spots: Annotated[str | None, Location("spots")] = None
    """The measured spots, `spots/<name>`."""

    embeddings: Annotated[str | None, Location("embed")] = None
    """Their tiles' embeddings, `embed/<name>`."""

    reference: list[str] | None = None
    """Sections of the bank; by default those that the model was trained and validated on. With `base`: those to add."""

    bank: Literal["spot", "image"] = "spot"
    """Whether queries are compared with the references' expression (the published code) or with their images."""

    metric: Literal["cosine", "l2"] = "cosine"

    kind: Literal["auto", "exact", "ivf", "ivfsq", "ivfpq", "hnsw"] = "auto"
    """How neighbours are found. `exact` compares every row; the others look at a part of them. `auto` is exact below
    100,000 rows, and says in the manifest why it chose what it chose."""

    recall: float = Field(default=0.99, gt=0, le=1)
    """Share of the true neighbours that an approximate kind is to find, as measured when it is built."""

    recall_k: int = Field(default=50, ge=1)
    """Neighbours at which recall is measured."""

    shards: int | None = Field(default=None, ge=1)
    """Parts that the rows are cut into; an exact bank answers alike with any number. By default by `shard_bytes`."""

    shard_bytes: int = Field(default=4 << 30, ge=1 << 20)
    """The most bytes of a shard's vectors and expression, as float32."""

    expression: Literal["float32", "float16", "csr", "csr16"] = "float32"
    """How the bank keeps expression: every value, or those that are not zero; 16: in half precision (4e-3 at worst)."""

    base: Annotated[str | None, Location("index")] = None
    """An index that is to change, `index/<name>`: the sections of `reference` are added, or `without` removed."""

    without: list[str] = Field(default_factory=list)
    """Patients whose rows are removed from `base`, such as one who withdrew their consent."""

    run: IndexRun = Field(default_factory=IndexRun)

    @model_validator(mode="after")
    def _one_thing(self) -> "IndexConfig":
        """Refuse what is not one of: building, adding, removing."""
        if self.base is None:
            absent = [name for name in ("model", "spots", "embeddings") if getattr(self, name) is None]
            if absent or self.without:
                msg = f"a new index needs {', '.join(absent)}" if absent else "`without` removes patients from a `base`"
                raise ValueError(msg)
            return self
        adds = self.reference is not None and self.spots is not None and self.embeddings is not None
        if adds == bool(self.without) or self.model is not None:
            msg = (
                "a `base` changes in one way at a time, and keeps its model: give `reference` with its `spots` and "
                "`embeddings` to add sections, or `without` to remove patients"
            )
            raise ValueError(msg)
        return self
