"""The kinds of banks, what is asked of one, and which kind `auto` takes.

    exact   every row is compared: products in blocks, then each pair's own score
    ivf     rows in lists around centroids; the lists nearest to a query are compared
    ivfsq   the same, rows in the lists as float16
    ivfpq   the same, rows in the lists as 4-bit codes, whose candidates are many more than k
    hnsw    a graph of near rows

Whatever finds candidates, the stored float32 vectors score them (`search.score`), so kinds differ in which rows they
find and never in a row's score.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from raystp.errors import ModelError
from raystp.index.expression.forms import Form
from raystp.index.search.score import METRICS, Metric

Kind = Literal["exact", "ivf", "ivfsq", "ivfpq", "hnsw"]

KINDS: tuple[Kind, ...] = ("exact", "ivf", "ivfsq", "ivfpq", "hnsw")
LISTED: tuple[Kind, ...] = ("ivf", "ivfsq", "ivfpq")
"""Kinds whose shards share one quantizer."""

EXACT_BELOW = 100_000
"""Rows below which `auto` stays exact: on two cores a query costs 0.3 ms there, and lists hardly less."""

EXACT_FROM = 0.9995
"""Recall from which `auto` stays exact: lists that reach it are most of the lists."""


@dataclass(frozen=True)
class IndexParams:
    """What is asked of a bank."""

    kind: Kind | Literal["auto"] = "exact"
    recall: float = 0.99
    """Share of the true k nearest rows that an approximate kind is to find."""
    k: int = 50
    """At which k recall is measured."""
    lists: int | None = None
    """Lists of an inverted file; by default about 4 sqrt(rows)."""
    seed: int = 0
    form: Form = "float32"
    """How expression is kept."""


@dataclass(frozen=True)
class SearchParams:
    """How hard an approximate search looks."""

    nprobe: int = 1
    """Lists that a query looks into."""
    ef: int = 64
    """Rows that a walk through the graph keeps in view."""
    k_factor: int = 1
    """Candidates for each neighbour wanted, scored by their stored vectors."""


@dataclass(frozen=True)
class IndexPlan:
    """What all shards of a bank have in common; plain values, the same for every process that writes a shard."""

    metric: Metric
    kind: Kind
    joint: int
    want: IndexParams
    why: str
    lists: int = 0
    quantizer: dict[str, Any] | None = field(default=None)
    """Its file, and whom it was trained on."""


def choose(rows: int, want: IndexParams) -> tuple[Kind, str]:
    """Return the kind for a bank of so many rows, and why.

    Raises ModelError for a kind that is not there, or a recall that is no share.
    """
    if want.kind not in {*KINDS, "auto"} or not 0 < want.recall <= 1 or want.k < 1:
        msg = f"a bank of kind '{want.kind}' with recall {want.recall} at k = {want.k} was asked for: kinds are "
        raise ModelError(msg + f"auto, {', '.join(KINDS)}, recall is above 0 and at most 1, k is 1 or more")
    if want.kind != "auto":
        return want.kind, f"{want.kind} was asked for"
    if rows < EXACT_BELOW:
        return "exact", f"auto: {rows:,} rows are fewer than {EXACT_BELOW:,}, where exact search is fast enough"
    if want.recall >= EXACT_FROM:
        return (
            "exact",
            f"auto: a recall of {want.recall} is asked for, and from {EXACT_FROM} on exact search is the way",
        )
    return "ivfsq", (
        f"auto: {rows:,} rows are {EXACT_BELOW:,} or more, where lists of float16 rows reach a recall of {want.recall} "
        "faster than exact search, the more the more rows, in half the bytes of float32 lists, with no graph to build"
    )


def lists_for(rows: int, want: IndexParams) -> int:
    """Return into how many lists a bank is cut: a power of two near 4 sqrt(rows), of 40 rows or more each."""
    if want.lists is not None:
        return max(1, min(want.lists, rows))
    near: int = 1 << round(math.log2(4 * math.sqrt(rows)))
    return max(1, min(near, rows // 40))


def check_metric(metric: str) -> None:
    """Raise ModelError for a metric that is not there."""
    if metric not in METRICS:
        msg = f"there is no metric '{metric}': {' and '.join(METRICS)} are there"
        raise ModelError(msg)
