"""What is known of a gene, in words: its name and the processes it takes part in, by symbol.

In come a table of gene names (tab or comma separated, with columns `symbol` and `description`), a GMT of gene sets, or
descriptions that somebody wrote; out comes one text per gene, which an encoder turns into numbers. Texts belong to
symbols, never to the order of lines. No expression is read, so a text may be made of a gene that nobody measured.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Literal

from raystp.errors import SectionError, some
from raystp.storage import StoragePath

PROCESSES = 20
"""The most gene sets that a text names: a language model reads some 512 tokens."""

_ACCESSION = re.compile(r"\s*\([A-Za-z]+:\d+\)\s*$")
"""`(GO:0051084)` at the end of a gene set's name says nothing in words."""
_SEPARATOR = "####"
"""Between gene and text in GeneQuery's own files."""
_LEAST = 3
"""Fields of a GMT's line: name, remark, and a gene at least."""


def read_gene_names(place: StoragePath, *, symbol: str = "symbol", name: str = "description") -> dict[str, str]:
    """Return symbol -> name, of a `.tsv` or `.csv`, gzipped or not; the first row that has both counts.

    Raises SectionError where the columns lack, and where the file is no text.
    """
    lines = _text(place).splitlines()
    stem = place.name.removesuffix(".gz")
    rows = csv.DictReader(lines, delimiter="," if stem.endswith(".csv") else "\t")
    columns = list(rows.fieldnames or [])
    if symbol not in columns or name not in columns:
        msg = f"{place} has no columns {symbol!r} and {name!r}; it has {some(columns, 10)}"
        raise SectionError(msg)
    names: dict[str, str] = {}
    for row in rows:
        if row[symbol] and row[name] and row[name] != "NA":
            names.setdefault(row[symbol], row[name])
    return names


def read_gmt(place: StoragePath) -> dict[str, list[str]]:
    """Return gene set -> symbols of a GMT (name, remark, genes, by tabs), accessions cut off the names.

    Raises SectionError for a line that is not of that form.
    """
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(_text(place).splitlines(), 1):
        fields = line.split("\t")
        if not line.strip():
            continue
        if len(fields) < _LEAST:
            msg = f"{place}, line {number}: a GMT has a name, a remark and genes, by tabs, got {line[:60]!r}"
            raise SectionError(msg)
        # Enrichr's GMTs may carry a weight behind the symbol: `TP53,1.0`.
        genes = [gene.partition(",")[0].strip() for gene in fields[2:]]
        sets.setdefault(_ACCESSION.sub("", fields[0]), []).extend(gene for gene in genes if gene)
    return sets


def read_descriptions(place: StoragePath) -> dict[str, str]:
    """Return symbol -> text of lines `SYMBOL####text` (GeneQuery's files) or `SYMBOL<tab>text`.

    Raises SectionError for a line of neither form, and for a gene that has two.
    """
    texts: dict[str, str] = {}
    for number, line in enumerate(_text(place).splitlines(), 1):
        if not line.strip():
            continue
        gene, found, text = line.partition(_SEPARATOR if _SEPARATOR in line else "\t")
        gene, text = gene.strip(), text.strip()
        if not found or not gene or not text or gene in texts:
            reason = f"gene {gene!r} has a text already" if gene in texts else f"no {_SEPARATOR} or tab with a text"
            msg = (
                f"{place}, line {number}: a line is SYMBOL{_SEPARATOR}text or SYMBOL<tab>text; {reason}: {line[:60]!r}"
            )
            raise SectionError(msg)
        texts[gene] = text
    return texts


def gene_texts(
    genes: Sequence[str],
    names: Mapping[str, str],
    sets: Mapping[str, Sequence[str]] | None = None,
    *,
    absent: Literal["refuse", "drop", "symbol"] = "refuse",
    most: int = PROCESSES,
) -> dict[str, str]:
    """Return gene -> text, in the order of `genes`: its name, then the sets it is in, the smallest first.

    `names` may also be whole descriptions, with `sets` left out. The smallest sets say most of a gene; no more than
    `most` are named, ties by name. A gene with neither is a SectionError, or has no text (`drop`), or its symbol alone
    (`symbol`). The symbol is in no other text: a gene's name should be told by what it means.
    """
    member_of = _member_of(set(genes), sets or {})
    texts: dict[str, str] = {}
    missing = []
    for gene in genes:
        processes = member_of.get(gene, [])[:most]
        parts = [part for part in (names.get(gene, ""), ", ".join(processes)) if part]
        if parts:
            texts[gene] = ". ".join(parts)
        elif absent == "symbol":
            texts[gene] = gene
        else:
            missing.append(gene)
    if missing and absent == "refuse":
        msg = (
            f"{len(missing)} of {len(genes)} genes have no text: {some(missing)}; they may be known by another symbol: "
            'add them to the table, or let absent="drop" leave them out or absent="symbol" take the symbol for a text'
        )
        raise SectionError(msg)
    return texts


def _member_of(genes: set[str], sets: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(sets, key=lambda name: (len(set(sets[name])), name)):
        for gene in genes.intersection(sets[name]):
            found.setdefault(gene, []).append(name)
    return found


def _text(place: StoragePath) -> str:
    content = place.read_bytes()
    try:
        if place.name.endswith(".gz"):
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read()
        return content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        msg = (
            f"{place} cannot be read as text ({type(error).__name__}: {error}): a damaged file, or one of another kind"
        )
        raise SectionError(msg) from None
