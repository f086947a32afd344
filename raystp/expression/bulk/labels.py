"""Labels of whole cases: expression from a table of cases x genes. Attention regression learns from them.

A file is parquet, CSV/TSV (one column names the cases, each other column is a gene) or h5ad (obs are cases, var are
genes). `bulk.slides` says which slides belong to which case.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from raystp.errors import PanelError, SectionError, some
from raystp.expression.bulk.kinds import Scale
from raystp.expression.bulk.tables import BulkTable, read_table
from raystp.expression.genes.panel import close_names
from raystp.expression.normalise import log1p_cp10k
from raystp.storage import StoragePath


@dataclass(frozen=True)
class BulkLabels:
    """Expression of cases."""

    cases: list[str]
    genes: list[str]
    values: Float32[np.ndarray, "case gene"]

    def of(self, cases: Sequence[str], genes: Sequence[str] | None = None) -> Float32[np.ndarray, "row column"]:
        """Return the rows of some cases and the columns of some genes, in the given orders.

        Raises SectionError for a case without a label, PanelError for a gene that is not in the table.
        """
        row_of = {case: row for row, case in enumerate(self.cases)}
        unlabelled = [case for case in dict.fromkeys(cases) if case not in row_of]
        if unlabelled:
            msg = f"{len(unlabelled)} cases have no label ({some(unlabelled)}); labelled cases are {some(self.cases)}"
            raise SectionError(msg)
        column_of = {gene: column for column, gene in enumerate(self.genes)}
        selected = self.genes if genes is None else genes
        missing = [gene for gene in selected if gene not in column_of]
        if missing:
            raise PanelError(_missing_genes_message(missing, len(selected), sorted(column_of)))
        return self.values[np.ix_([row_of[case] for case in cases], [column_of[gene] for gene in selected])]


def read_bulk(
    path: StoragePath,
    *,
    scale: Scale = "expression",
    case: str = "case",
    cases: Collection[str] | None = None,
) -> BulkLabels:
    """Read a table of cases x genes; `case` is the column with the names of the cases (not used for h5ad).

    With `cases`, only those are kept, in the table's order, and only their values are checked. Raises SectionError for
    a duplicate case or gene, a missing case, and a value that is not a finite number. Raises it for negative values
    where `scale` does not allow them.
    """
    return labels_of(read_table(path, case), path, scale=scale, cases=cases)


def labels_of(
    table: BulkTable, path: StoragePath, *, scale: Scale = "expression", cases: Collection[str] | None = None
) -> BulkLabels:
    """Return the labels of a table that was read from `path`; raises as `read_bulk` does."""
    for names, kind in ((table.cases, "case"), (table.genes, "gene")):
        duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
        if duplicates:
            msg = f"{path} lists {len(duplicates)} {kind}s more than once ({some(duplicates)}): each may occur once"
            raise SectionError(msg)
    if cases is not None:
        _check_cases(path, table, cases)
        rows = [row for row, name in enumerate(table.cases) if name in set(cases)]
        table = replace(table, cases=[table.cases[row] for row in rows], values=table.values[rows])
    if not table.cases or not table.genes:
        msg = f"{path} has {len(table.cases)} cases and {len(table.genes)} genes: expected at least one of each"
        raise SectionError(msg)
    _check_values(table, str(path), scale)
    if scale != "counts":
        return BulkLabels(table.cases, table.genes, table.values.astype(np.float32))
    empty = [name for name, total in zip(table.cases, table.values.sum(axis=1).tolist(), strict=True) if total == 0]
    if empty:
        msg = f"{path} has {len(empty)} cases whose counts are all 0 ({some(empty)}): remove them from the table"
        raise SectionError(msg)
    return BulkLabels(table.cases, table.genes, log1p_cp10k(table.values))


def variable_genes(labels: BulkLabels, n: int) -> list[str]:
    """Return the `n` genes with the highest variance between cases, highest first, ties by name.

    Pass training cases alone. Raises PanelError where fewer than `n` genes vary at all.
    """
    variance = labels.values.var(axis=0, dtype=np.float64)
    varying = int((variance > 0).sum())
    if not 1 <= n <= varying:
        msg = (
            f"panel.variable: {n} genes were requested; {varying} of {len(labels.genes)} vary between the "
            f"{len(labels.cases)} training cases of the table: request 1 to {varying}"
        )
        raise PanelError(msg)
    order = np.lexsort((np.asarray(labels.genes), -variance))[:n]
    return [labels.genes[column] for column in order.tolist()]


def _missing_genes_message(missing: list[str], total: int, known: list[str]) -> str:
    message = f"{len(missing)} of {total} genes of the panel are not in the table of cases: {some(missing)}"
    hint = close_names(missing, known)
    return f"{message}; it has {some(known, 3)}" + (f"; {hint.rstrip()}" if hint else "")


def _check_cases(path: StoragePath, table: BulkTable, cases: Collection[str]) -> None:
    missing = sorted(set(cases) - set(table.cases))
    if not missing:
        return
    hint = " (they are columns of the table: transpose it, a row is a case)" if set(missing) & set(table.genes) else ""
    msg = f"{path} has no label for {len(missing)} of {len(set(cases))} cases: {some(missing)}{hint}; it has "
    raise SectionError(msg + some(table.cases))


def _check_values(table: BulkTable, origin: str, scale: Scale) -> None:
    values = table.values
    faults = {"values that are absent or not finite": ~np.isfinite(values)}
    if scale != "signed":
        faults["negative values"] = values < 0
    if scale == "counts":
        faults["counts that are not whole numbers"] = values != np.rint(values)
    for fault, found in faults.items():
        if not found.any():
            continue
        first = [f"{table.cases[r]}/{table.genes[c]} = {values[r, c]:g}" for r, c in np.argwhere(found)[:5].tolist()]
        more = f" and {int(found.sum()) - len(first)} more" if found.sum() > len(first) else ""
        msg = f"{origin} has {int(found.sum())} {fault} for scale={scale!r}: {', '.join(first)}{more}"
        raise SectionError(msg + "; use scale='signed' for z-scores" if fault == "negative values" else msg)
