"""The kinds of reference indexes, the parameters to build and search one, and the kind that `auto` chooses.

    exact   every row is compared
    ivf     rows are in lists around centroids; the lists nearest to a query are compared
    ivfsq   the same, with rows in the lists as float16
    ivfpq   the same, with rows in the lists as 4-bit codes; many more than k candidates are fetched
    hnsw    a graph of near rows

In every kind, the scores of candidates are computed from the stored float32 vectors (`search.score`). Kinds therefore
differ in which rows they find, never in a row's score.
"""

import math
from dataclasses import dataclass
from typing import Literal

from raystp.errors import ModelError
from raystp.index.expression.forms import Form
from raystp.index.search.score import METRICS

Kind = Literal["exact", "ivf", "ivfsq", "ivfpq", "hnsw"]

KINDS: tuple[Kind, ...] = ("exact", "ivf", "ivfsq", "ivfpq", "hnsw")
LISTED: tuple[Kind, ...] = ("ivf", "ivfsq", "ivfpq")
"""Kinds whose shards share one quantizer."""

CODED: tuple[Kind, ...] = ("ivfsq", "ivfpq")
"""Kinds whose lists have rows in fewer bits, so that candidates have approximate scores."""

Prefer = Literal["build", "speed", "bytes"]
"""What `auto` looks for among the kinds that reach the recall."""

EXACT_BELOW = 100_000
"""Rows below which `auto` chooses exact: a query takes 0.3 ms there on two cores, and lists save little."""

EXACT_FROM = 0.9995
"""Target recall from which `auto` chooses exact: to reach it, most of the lists must be probed."""


GRAPH_BELOW = 300_000
"""Rows below which a graph is searched faster than lists: 1.9 times at 10^5 rows, and half as fast at 10^6. The bound
is interpolated between the two."""


@dataclass(frozen=True)
class IndexParams:
    """Parameters to build an index. The field names are stored in the description."""

    kind: Kind | Literal["auto"] = "exact"
    recall: float = 0.99
    """Share of the true k nearest rows that an approximate kind must find."""
    k: int = 50
    """k at which recall is measured."""
    lists: int | None = None
    """Lists of an inverted file. The default is about 4 sqrt(rows)."""
    seed: int = 0
    form: Form = "float32"
    """How expression is stored."""
    prefer: Prefer = "build"
    """What `auto` looks for: the shortest build, the fastest search, or the fewest bytes."""


@dataclass(frozen=True)
class SearchParams:
    """Parameters of an approximate search. The field names are stored in the description."""

    nprobe: int = 1
    """Lists compared per query."""
    ef: int = 64
    """Size of the candidate queue of a graph search."""
    k_factor: int = 1
    """Candidates fetched per neighbour, before they are scored by their stored vectors."""


def choose_kind(rows: int, params: IndexParams) -> tuple[Kind, str]:
    """Return the kind for an index of `rows` rows, and the reason.

    Raises ModelError for an unknown kind, a recall outside (0, 1], or a k below 1.
    """
    if params.kind not in {*KINDS, "auto"} or not 0 < params.recall <= 1 or params.k < 1:
        msg = (
            f"an index of kind '{params.kind}' with recall {params.recall} at k = {params.k} requested; kinds are "
            f"auto, {', '.join(KINDS)}; recall must be above 0 and at most 1, k at least 1"
        )
        raise ModelError(msg)
    if params.kind != "auto":
        return params.kind, f"{params.kind}: as configured"
    if rows < EXACT_BELOW:
        return "exact", f"auto: exact search is fast enough for {rows:,} rows, fewer than {EXACT_BELOW:,}"
    if params.recall >= EXACT_FROM:
        return "exact", f"auto: a recall of {params.recall} needs exact search (from {EXACT_FROM} on)"
    if params.prefer == "speed" and rows < GRAPH_BELOW:
        return "hnsw", f"auto: the fastest search is preferred, a graph for fewer than {GRAPH_BELOW:,} rows"
    if params.prefer == "bytes":
        return "ivfpq", f"auto: the fewest bytes are preferred, lists of 4-bit codes for {rows:,} rows"
    return "ivfsq", (
        f"auto: {rows:,} rows are {EXACT_BELOW:,} or more, where lists of float16 rows reach a recall of "
        f"{params.recall} faster than exact search, in half the bytes of float32 lists, and without building a graph"
    )


def list_count(rows: int, params: IndexParams) -> int:
    """Return the number of lists of an index: a power of two near 4 sqrt(rows), with at least 40 rows per list."""
    if params.lists is not None:
        return max(1, min(params.lists, rows))
    near: int = 1 << round(math.log2(4 * math.sqrt(rows)))
    return max(1, min(near, rows // 40))


def check_metric(metric: str) -> None:
    """Raise ModelError for an unknown metric."""
    if metric not in METRICS:
        msg = f"unknown metric '{metric}'; use {' or '.join(METRICS)}"
        raise ModelError(msg)
