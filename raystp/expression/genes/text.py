"""Texts about genes, by symbol: the name of a gene and the processes it takes part in.

Read a table of gene names (tab or comma separated, with columns `symbol` and `description`), a GMT of gene sets, or
written descriptions. Return one text per gene; a text encoder turns it into a vector. A text belongs to a symbol, not
to a line number. No expression is read, so a gene that was never measured can have a text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from raystp.errors import SectionError, some
from raystp.storage import StoragePath
from raystp.storage.text_files import read_text_lines, read_text_table, trimmed

MAX_SETS = 20
"""Most gene sets in one text: a language model reads about 512 tokens."""

_ACCESSION = re.compile(r"\s*\([A-Za-z]+:\d+\)\s*$")
"""The identifier at the end of a gene set's name, `(GO:0051084)`, which is not a word."""
_SEPARATOR = "####"
"""Between gene and text in GeneQuery's own files."""
_MIN_FIELDS = 3
"""Fields of a GMT line: name, remark, and at least one gene."""


def read_gene_names(path: StoragePath, *, symbol: str = "symbol", name: str = "description") -> dict[str, str]:
    """Return symbol -> name of a table, gzipped or not; the first row of a symbol that has a name counts.

    Raises SectionError where a column is missing, where no row has both, and where the file is not text.
    """
    table = read_text_table(path, known=(symbol, name), error=SectionError)
    if symbol not in table.columns or name not in table.columns:
        msg = f"{path} has no columns {symbol!r} and {name!r}; it has {some(table.columns, 10)}"
        raise SectionError(msg)
    names: dict[str, str] = {}
    for row in table.rows:
        if row.cells[symbol] and row.cells[name] not in {"", "NA"}:
            names.setdefault(row.cells[symbol], row.cells[name])
    if not names:
        msg = f"{path} has no row with both {symbol!r} and {name!r}; it has {len(table.rows)} rows"
        raise SectionError(msg)
    return names


def read_gmt(path: StoragePath) -> dict[str, list[str]]:
    """Return gene set -> symbols of a GMT (name, remark, genes; tab separated), without accessions in the names.

    Raises SectionError for a line of another format, and where no set has a gene.
    """
    sets: dict[str, list[str]] = {}
    for number, line in read_text_lines(path, error=SectionError):
        fields = [trimmed(one) for one in line.split("\t")]
        if len(fields) < _MIN_FIELDS or not fields[0]:
            msg = f"{path}, line {number}: a GMT line has a name, a remark and genes, tab separated, got {line[:60]!r}"
            raise SectionError(msg)
        # Enrichr's GMTs may have a weight after the symbol: `TP53,1.0`.
        genes = [trimmed(gene.partition(",")[0]) for gene in fields[2:]]
        sets.setdefault(_ACCESSION.sub("", fields[0]), []).extend(gene for gene in genes if gene)
    if not any(sets.values()):
        msg = f"{path} has no gene set: a GMT line has a name, a remark and genes, tab separated"
        raise SectionError(msg)
    return sets


def read_descriptions(path: StoragePath) -> dict[str, str]:
    """Return symbol -> text of lines `SYMBOL####text` (GeneQuery's files) or `SYMBOL<tab>text`.

    Raises SectionError for a line of another format, for a gene with two texts, and for a file without any.
    """
    texts: dict[str, str] = {}
    for number, line in read_text_lines(path, error=SectionError):
        gene, found, text = line.partition(_SEPARATOR if _SEPARATOR in line else "\t")
        gene, text = trimmed(gene), trimmed(text)
        if not found or not gene or not text or gene in texts:
            fault = f"gene {gene!r} has a text already" if gene in texts else f"no {_SEPARATOR} or tab with a text"
            msg = f"{path}, line {number}: a line is SYMBOL{_SEPARATOR}text or SYMBOL<tab>text; {fault}: {line[:60]!r}"
            raise SectionError(msg)
        texts[gene] = text
    if not texts:
        msg = f"{path} has no text: a line is SYMBOL{_SEPARATOR}text or SYMBOL<tab>text"
        raise SectionError(msg)
    return texts


def gene_texts(
    genes: Sequence[str],
    names: Mapping[str, str],
    sets: Mapping[str, Sequence[str]] | None = None,
    *,
    absent: Literal["refuse", "drop", "symbol"] = "refuse",
    max_sets: int = MAX_SETS,
) -> dict[str, str]:
    """Return gene -> text, in the order of `genes`: its name, then its gene sets, the smallest first, ties by name.

    `names` may also be whole descriptions, without `sets`. Small sets are the most specific, so at most `max_sets` of
    them are listed. A gene with neither name nor set raises SectionError, or has no text (`drop`), or its symbol is
    its text (`symbol`). No other text contains the symbol: a text should describe the gene by its function.
    """
    sets_of = _sets_of_genes(set(genes), sets or {})
    texts: dict[str, str] = {}
    missing = []
    for gene in genes:
        processes = sets_of.get(gene, [])[:max_sets]
        parts = [part for part in (names.get(gene, ""), ", ".join(processes)) if part]
        if parts:
            texts[gene] = ". ".join(parts)
        elif absent == "symbol":
            texts[gene] = gene
        else:
            missing.append(gene)
    if missing and absent == "refuse":
        msg = (
            f"{len(missing)} of {len(genes)} genes have no text: {some(missing)}; they may have another symbol: "
            'add them to the table, set absent="drop" to leave them out, or absent="symbol" to use the symbol as text'
        )
        raise SectionError(msg)
    return texts


def _sets_of_genes(genes: set[str], sets: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return gene -> names of its sets, the smallest first."""
    found: dict[str, list[str]] = {}
    for name in sorted(sets, key=lambda name: (len(set(sets[name])), name)):
        for gene in genes.intersection(sets[name]):
            found.setdefault(gene, []).append(name)
    return found
