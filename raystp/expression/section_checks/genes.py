"""Names of genes: only gene expression, symbols instead of Ensembl ids, and each name once."""

import re
from collections import Counter
from dataclasses import replace

from raystp.errors import SectionError, some
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import Notes, RawGenes, RawSection, warn

GENE_EXPRESSION = "Gene Expression"
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "feature_id", "ENSEMBL", "id")
SYMBOL_COLUMNS = (
    "gene_symbols",
    "gene_symbol",
    "feature_name",
    "gene_names",
    "gene_name",
    "symbol",
    "symbols",
    "SYMBOL",
    "Symbol",
    "hgnc_symbol",
    "name",
    "gene_short_name",
)
"""Names of columns with symbols: scanpy, CELLxGENE, biomaRt, Monocle, and others."""

_ENSEMBL = re.compile(r"^(ENS[A-Z]{0,4}G\d{11})(\.\d+)?(_PAR_Y)?$")
_ABSENT = frozenset({"", "nan", "none", "na", "<na>"})


def is_ensembl(name: str) -> bool:
    """Return whether a name is an Ensembl gene id of any species, with or without a version."""
    return _ENSEMBL.match(name) is not None


def without_version(name: str) -> str:
    """Return an Ensembl gene id without its version; any other name unchanged."""
    match = _ENSEMBL.match(name)
    return f"{match[1]}{match[3] or ''}" if match else name


def keep_gene_expression(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Leave out features of other types (antibodies, probes), and count them."""
    kinds = raw.genes.kinds
    notes["dropped_features"] = 0
    if kinds is None:
        return raw
    kept = [column for column, kind in enumerate(kinds) if kind.strip().casefold() == GENE_EXPRESSION.casefold()]
    notes["dropped_features"] = len(kinds) - len(kept)
    if not kept:
        found = some(sorted(set(kinds)))
        msg = f"{source.origin} has no feature of type {GENE_EXPRESSION!r}; its {len(kinds)} features are {found}"
        raise SectionError(msg)
    return (
        raw if len(kept) == len(kinds) else replace(raw, counts=raw.counts[:, kept], genes=take_genes(raw.genes, kept))
    )


def name_genes(raw: RawSection, _source: SectionSource, notes: Notes) -> RawSection:
    """Name genes by symbols where the files have them; keep Ensembl ids, without versions, as `gene_ids`."""
    genes = raw.genes
    by_ids = bool(genes.names) and sum(map(is_ensembl, genes.names)) > len(genes.names) / 2
    if not by_ids:
        ids = None if genes.ids is None else [without_version(name) for name in genes.ids]
        names = [without_version(name) for name in genes.names]  # a few are Ensembl ids in some studies
        names = names if len(set(names)) == len(set(genes.names)) else genes.names
        return replace(raw, genes=replace(genes, names=names, ids=ids))
    ids = [without_version(name) for name in genes.names]
    column = next((name for name in SYMBOL_COLUMNS if _are_symbols(genes.symbols.get(name))), None)
    if column is None:
        names = ids if len(set(ids)) == len(set(genes.names)) else genes.names
        notes["gene_names_from"] = "Ensembl ids; the files have no symbols"
        return replace(raw, genes=replace(genes, names=names, ids=ids))
    pairs = zip(genes.symbols[column], ids, strict=True)
    names = [gene if symbol.strip().casefold() in _ABSENT else symbol.strip() for symbol, gene in pairs]
    notes["gene_names_from"] = column
    return replace(raw, genes=replace(genes, names=names, ids=ids))


def make_names_unique(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Append its id to every symbol that occurs more than once; without ids, refuse."""
    genes = raw.genes
    times = Counter(genes.names)
    repeated = [name for name, count in times.items() if count > 1]
    notes["renamed_genes"] = 0
    if not repeated:
        return raw
    if genes.ids is None:
        msg = (
            f"{source.origin} lists {len(repeated)} genes more than once ({some(repeated)}), and has no gene ids that "
            "tell them apart: sum or rename these columns"
        )
        raise SectionError(msg)
    pairs = zip(genes.names, genes.ids, strict=True)
    names = [f"{name}_{gene}" if times[name] > 1 else name for name, gene in pairs]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        msg = f"{source.origin} lists {len(twice)} genes more than once with the same id ({some(twice)}): remove one"
        raise SectionError(msg)
    notes["renamed_genes"] = sum(times[name] > 1 for name in genes.names)
    return replace(raw, genes=replace(genes, names=names))


def check_gene_names(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Refuse empty names, and names that are numbers, which are places of columns; warn about mixed kinds."""
    empty = sum(not name.strip() or name.casefold() == "nan" for name in raw.genes.names)
    if empty:
        msg = f"{source.origin} has {empty} genes without a name: name each column of the counts"
        raise SectionError(msg)
    numbered = sum(name.isdigit() for name in raw.genes.names)
    if numbered > len(raw.genes.names) / 2:
        shown = some(raw.genes.names, 3)
        warn(notes, f"genes are named {shown}, which are numbers; a panel needs symbols or Ensembl ids as their names")
    return raw


def _are_symbols(values: list[str] | None) -> bool:
    """Return whether a column holds names other than Ensembl ids for at least half of the genes."""
    if not values:
        return False
    named = sum(value.strip().casefold() not in _ABSENT and not is_ensembl(value.strip()) for value in values)
    return named >= len(values) / 2


def take_genes(genes: RawGenes, kept: list[int]) -> RawGenes:
    """Return only these columns, in this order."""
    return RawGenes(
        names=[genes.names[column] for column in kept],
        ids=None if genes.ids is None else [genes.ids[column] for column in kept],
        kinds=None if genes.kinds is None else [genes.kinds[column] for column in kept],
        symbols={name: [values[column] for column in kept] for name, values in genes.symbols.items()},
    )
