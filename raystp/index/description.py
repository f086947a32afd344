"""The description of an index as its manifest stores it: plain JSON values. Keys are a stored format, version 2.

Version 3 is written where a section has not measured a gene (`unmeasured`): a reader of version 2 would take its 0 for
a measurement.

Nothing is read, mapped or passed to FAISS unless its sha256 is the described one. Version 1 has only `version`,
`metric`, `joint`, `genes`, `shards`, `rows`, `patients` and `sections`; its shards' vectors are in flat FAISS indexes,
and their expression is a single file.
"""

from collections.abc import Mapping
from typing import NotRequired, TypedDict, final

from raystp.index.expression.forms import Form
from raystp.index.search.kinds import Kind
from raystp.index.search.score import Metric

VERSION = 2
"""Version that is written where every section has measured every gene. Versions 1 to 3 are read."""

VERSION_WITH_UNMEASURED = 3
"""Version that is written where a section has not measured a gene."""


class FileRecord(TypedDict):
    """A file in the index's folder."""

    file: str
    sha256: str


class CandidateIndexRecord(FileRecord):
    """A FAISS index that finds candidates among a shard's rows."""

    lists: bool
    """Whether it is an inverted file."""


class TrainedOn(TypedDict):
    """The rows on which a quantizer was trained."""

    rows: int
    patients: list[str]


class QuantizerRecord(FileRecord):
    """The trained centroids and codes that all shards share."""

    saw: TrainedOn


@final
class ExpressionRecord(TypedDict):
    """The expression of a shard."""

    form: Form
    shape: list[int]
    files: dict[str, FileRecord]
    """Role (`values`; for csr also `columns` and `starts`) -> file."""


@final
class Version1Expression(TypedDict):
    """The expression of a shard of version 1: dense float32 values."""

    file: str
    sha256: str


class ShardRecord(TypedDict):
    """A shard: a range of the index's rows."""

    rows: int
    vectors: FileRecord
    expression: ExpressionRecord | Version1Expression
    index: NotRequired[CandidateIndexRecord | None]
    """None for an exact index."""


class RecallRecord(TypedDict):
    """Recall as measured when the index was built."""

    k: int
    target: float
    measured: float
    queries: int
    of: str
    seed: int


class BuildParams(TypedDict):
    """The fields of `IndexParams`."""

    kind: str
    recall: float
    k: int
    lists: int | None
    seed: int
    form: Form
    prefer: NotRequired[str]
    """Absent for `build`."""


class Change(TypedDict):
    """An entry of the lineage."""

    change: str
    rows: int
    shards: NotRequired[int]
    patients: NotRequired[int]
    of: NotRequired[str]
    """Digest of the description before."""


class Measured(TypedDict):
    """Search parameters and recall of an approximate index."""

    effort: dict[str, int]
    """Fields of `SearchParams`."""
    recall: RecallRecord | None
    below_target: bool
    sentence: NotRequired[str]


class IndexDescription(Measured):
    """A whole index."""

    version: int
    metric: Metric
    kind: Kind
    why: str
    joint: int
    """Dimensions of the vectors."""
    genes: list[str]
    want: BuildParams
    lists: int
    quantizer: QuantizerRecord | None
    shards: list[ShardRecord]
    rows: FileRecord
    patients: list[str]
    sections: list[str]
    lineage: list[Change]
    unmeasured: NotRequired[dict[str, list[int]]]
    """Section -> the genes (columns) that it has not measured; sections that measured all are left out."""


def with_unmeasured(description: IndexDescription, unmeasured: Mapping[str, list[int]]) -> IndexDescription:
    """Return the description with the genes that its sections have not measured."""
    own = {section: unmeasured[section] for section in description["sections"] if unmeasured.get(section)}
    if not own:
        return description
    return {**description, "version": VERSION_WITH_UNMEASURED, "unmeasured": own}
