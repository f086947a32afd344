"""Labels of whole cases: a case x gene table from a file, or the pooled counts of measured sections (pseudo-bulk).

What attention regression learns from. A file is parquet, CSV/TSV (a column names the cases, each other one is a gene)
or h5ad (obs are cases, var are genes). Which slides are of which case is the other half: `bulk_slides`.
"""

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float32

from raystp.errors import PanelError, SectionError, some
from raystp.expression.bulk.tables import BulkTable, read_table
from raystp.expression.normalise import log1p_cp10k
from raystp.expression.panel import absent_sentence
from raystp.storage import StoragePath

Scale = Literal["counts", "expression", "signed"]
"""What a table holds. `counts`: raw counts, of which log1p of counts per ten thousand is taken, over all its genes;
`expression`: values that cannot be negative (log1p of TPM, say), taken as they are; `signed`: any (z-scores)."""


@dataclass(frozen=True)
class BulkLabels:
    """Expression of cases."""

    cases: list[str]
    genes: list[str]
    values: Float32[np.ndarray, "case gene"]

    def of(self, cases: Sequence[str], genes: Sequence[str] | None = None) -> Float32[np.ndarray, "row column"]:
        """Return the rows of some cases, and of some genes, in those orders.

        Raises SectionError for a case without a label, PanelError for a gene that the table lacks.
        """
        row = {case: number for number, case in enumerate(self.cases)}
        lost = [case for case in dict.fromkeys(cases) if case not in row]
        if lost:
            msg = f"{len(lost)} cases have no label ({some(lost)}); there are labels of {some(self.cases)}"
            raise SectionError(msg)
        column = {gene: number for number, gene in enumerate(self.genes)}
        wanted = self.genes if genes is None else genes
        missing = [gene for gene in wanted if gene not in column]
        if missing:
            raise PanelError(_absent_sentence(missing, len(wanted), sorted(column)))
        return self.values[np.ix_([row[case] for case in cases], [column[gene] for gene in wanted])]


def read_bulk(
    place: StoragePath,
    *,
    scale: Scale = "expression",
    case: str = "case",
    cases: Collection[str] | None = None,
) -> BulkLabels:
    """Read a case x gene table; `case` is the column that names the cases, where the file is no h5ad.

    With `cases`, only those are kept, in the table's order, and what is not theirs is not checked. Raises SectionError
    for a case or gene that occurs twice, a case that is missing, and a value that is absent, not a number, infinite, or
    negative where it cannot be.
    """
    return labels_of(read_table(place, case), place, scale=scale, cases=cases)


def labels_of(
    table: BulkTable, place: StoragePath, *, scale: Scale = "expression", cases: Collection[str] | None = None
) -> BulkLabels:
    """Return a table that was read from `place` as labels; raises as `read_bulk` does."""
    for names, what in ((table.cases, "case"), (table.genes, "gene")):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        if twice:
            msg = (
                f"{place} names {len(twice)} {what}s more than once ({some(twice)}): each needs a row or column of one"
            )
            raise SectionError(msg)
    if cases is not None:
        _refuse_lost(place, table, cases)
        rows = [number for number, name in enumerate(table.cases) if name in set(cases)]
        table = replace(table, cases=[table.cases[row] for row in rows], values=table.values[rows])
    if not table.cases or not table.genes:
        msg = f"{place} holds {len(table.cases)} cases and {len(table.genes)} genes: a table of both was wanted"
        raise SectionError(msg)
    _check_values(table, str(place), scale)
    if scale != "counts":
        return BulkLabels(table.cases, table.genes, table.values.astype(np.float32))
    empty = [name for name, total in zip(table.cases, table.values.sum(axis=1).tolist(), strict=True) if total == 0]
    if empty:
        msg = f"{place} has {len(empty)} cases without a count ({some(empty)}), so they have no expression: drop them"
        raise SectionError(msg)
    return BulkLabels(table.cases, table.genes, log1p_cp10k(table.values))


def pseudo_bulk(sections: Mapping[str, Sequence[ad.AnnData]], genes: Sequence[str]) -> BulkLabels:
    """Return each case's counts, pooled over all spots of its sections, as log1p of counts per ten thousand.

    The total is over all genes of the case's sections, the panel `genes` is picked afterwards; a gene that a case's
    sections lack is 0 there. Raises SectionError for a case without a section or a count, PanelError for a gene that
    no section has.
    """
    bare = [case for case, parts in sections.items() if not parts]
    if bare or not sections:
        msg = f"a pseudo-bulk is pooled from sections, and there are none for {some(bare) if bare else 'any case'}"
        raise SectionError(msg)
    known = list(dict.fromkeys(str(gene) for parts in sections.values() for part in parts for gene in part.var_names))
    at = pd.Index(known)
    missing = [gene for gene in genes if gene not in at]
    if missing:
        raise PanelError(absent_sentence(missing, len(genes), sorted(known)))
    pooled = np.zeros((len(sections), len(known)), dtype=np.float64)
    for row, parts in enumerate(sections.values()):
        for part in parts:
            pooled[row, at.get_indexer(part.var_names)] += np.asarray(part.X.sum(axis=0, dtype=np.float64)).ravel()
    empty = [case for case, total in zip(sections, pooled.sum(axis=1).tolist(), strict=True) if total == 0]
    if empty:
        msg = f"{len(empty)} cases have no counts in any of their sections: {some(empty)}; drop them"
        raise SectionError(msg)
    values = log1p_cp10k(sp.csr_matrix(pooled), columns=at.get_indexer(pd.Index(list(genes))).astype(np.int64))
    return BulkLabels(list(sections), list(genes), values)


def variable_genes(labels: BulkLabels, n: int) -> list[str]:
    """Return the `n` genes that differ most between cases (by variance), highest first, ties by name.

    The caller passes training cases alone. Raises PanelError where fewer than `n` genes differ at all.
    """
    variance = labels.values.var(axis=0, dtype=np.float64)
    differing = int((variance > 0).sum())
    if not 1 <= n <= differing:
        msg = (
            f"panel.variable: {n} genes were asked for; {differing} of {len(labels.genes)} differ between the "
            f"{len(labels.cases)} training cases of the table: ask for 1 to {differing}"
        )
        raise PanelError(msg)
    order = np.lexsort((np.asarray(labels.genes), -variance))[:n]
    return [labels.genes[column] for column in order.tolist()]


def _absent_sentence(missing: list[str], total: int, known: list[str]) -> str:
    sentence = f"{len(missing)} of {total} genes of the panel are not in the table of cases: {some(missing)}"
    near = {gene: difflib.get_close_matches(gene, known, n=1) for gene in missing[:5]}
    hints = ", ".join(f"{found[0]!r} for {gene!r}" for gene, found in near.items() if found)
    return f"{sentence}; it has {some(known, 3)}" + (f"; did you mean {hints}?" if hints else "")


def _refuse_lost(place: StoragePath, table: BulkTable, cases: Collection[str]) -> None:
    lost = sorted(set(cases) - set(table.cases))
    if not lost:
        return
    turned = " (they are among its columns: turn the table, a row is a case)" if set(lost) & set(table.genes) else ""
    msg = f"{place} has no label for {len(lost)} of {len(set(cases))} cases: {some(lost)}{turned}; it has "
    raise SectionError(msg + some(table.cases))


def _check_values(table: BulkTable, where: str, scale: Scale) -> None:
    values = table.values
    wrong = {"values that are absent or not finite": ~np.isfinite(values)}
    if scale != "signed":
        wrong["negative values"] = values < 0
    if scale == "counts":
        wrong["counts that are not whole numbers"] = values != np.rint(values)
    for what, found in wrong.items():
        if not found.any():
            continue
        first = [f"{table.cases[r]}/{table.genes[c]} = {values[r, c]:g}" for r, c in np.argwhere(found)[:5].tolist()]
        more = f" and {int(found.sum()) - len(first)} more" if found.sum() > len(first) else ""
        msg = f"{where} has {int(found.sum())} {what} for scale={scale!r}: {', '.join(first)}{more}"
        raise SectionError(msg + "; z-scores are scale='signed'" if what == "negative values" else msg)
