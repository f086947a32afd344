"""Find genes in a section: by name, else by Ensembl id, else by another name that other sections give the same gene.

A section names its genes by symbols or by Ensembl ids, and `var["gene_ids"]` may hold ids beside symbols. Versions of
ids (`ENSG00000141510.17`) are ignored. A gene that is not found was not measured: it is missing, never 0.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import anndata as ad
import numpy as np
from jaxtyping import Int64

from raystp.errors import SectionError, some

Aliases = Mapping[str, Sequence[str]]
"""Gene -> its other names: the Ensembl id of a symbol, or the symbols of an id."""

NO_ALIASES: Aliases = {}

FEWEST_SHARED = 0.5
"""With a smaller share of a panel, the section's names are compared with those of the other sections."""

_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d+)(\.\d+)?")


def without_version(name: str) -> str:
    """Return an Ensembl gene id without its version, and any other name as it is."""
    found = _ENSEMBL.fullmatch(name)
    return found.group(1) if found else name


def is_ensembl_id(name: str) -> bool:
    """Say whether a name is an Ensembl gene id, with or without a version."""
    return _ENSEMBL.fullmatch(name) is not None


@dataclass(frozen=True)
class GeneNames:
    """The genes of a section, in the order of its columns."""

    names: tuple[str, ...]
    ids: tuple[str, ...] | None = None
    """Ensembl ids, where the section has them beside the names."""

    @classmethod
    def of(cls, section: ad.AnnData) -> "GeneNames":
        """Return the names of a section, and the ids in its `var["gene_ids"]`."""
        names = tuple(str(name) for name in section.var_names)
        if "gene_ids" not in section.var:
            return cls(names)
        return cls(names, tuple(str(gene) for gene in section.var["gene_ids"]))

    def find(self, genes: Sequence[str], aliases: Aliases = NO_ALIASES) -> Int64[np.ndarray, "gene"]:
        """Return the column of each gene, -1 for a gene that the section has not measured."""
        exact = {name: column for column, name in enumerate(self.names)}
        columns = [exact.get(gene, -1) for gene in genes]
        if -1 in columns:
            keys = self._columns_by_key()
            for position, gene in enumerate(genes):
                if columns[position] < 0:
                    named = (keys.get(without_version(name)) for name in (gene, *aliases.get(gene, ())))
                    columns[position] = next((column for column in named if column is not None), -1)
        return np.asarray(columns, np.int64)

    def keys(self) -> set[str]:
        """Return all names and ids, without versions."""
        return set(self._columns_by_key())

    def examples(self) -> str:
        """Return a few of the names, and a few of the ids, for a message."""
        ids = "" if self.ids is None or self.ids == self.names else f" (gene_ids {some(list(self.ids), 2)})"
        return some(list(self.names), 3) + ids

    def _columns_by_key(self) -> dict[str, int]:
        columns: dict[str, int] = {}
        for side in (self.names, self.ids or ()):
            for column, name in enumerate(side):
                columns.setdefault(without_version(name), column)
        return columns


def gene_aliases(genes: Sequence[str], sections: Iterable[GeneNames]) -> dict[str, list[str]]:
    """Return the other names of those genes that have any, as the sections with symbols and ids give them."""
    ids_of: dict[str, dict[str, None]] = {}
    names_of: dict[str, dict[str, None]] = {}
    for section in sections:
        for name, gene_id in zip(section.names, section.ids or (), strict=bool(section.ids)):
            key = without_version(gene_id)
            if key and key != without_version(name):
                ids_of.setdefault(name, {})[key] = None
                names_of.setdefault(key, {})[name] = None
    aliases: dict[str, list[str]] = {}
    for gene in genes:
        ids = [*ids_of.get(gene, {}), *([without_version(gene)] if is_ensembl_id(gene) else [])]
        others = dict.fromkeys([*ids, *(name for one in ids for name in names_of.get(one, {}))])
        others.pop(gene, None)
        if others:
            aliases[gene] = list(others)
    return aliases


def unify_names(sections: Mapping[str, GeneNames]) -> dict[str, list[str]]:
    """Return one name per gene for all sections, section -> the name of each of its columns.

    Without ids the names stay as they are. Sections with symbols and ids come first, so that a gene is called by its
    symbol where any section gives it.
    """
    called: dict[str, str] = {}
    unified: dict[str, list[str]] = {}
    for section, genes in sorted(sections.items(), key=lambda item: item[1].ids is None):
        own: dict[str, None] = {}
        for column, name in enumerate(genes.names):
            keys = [name, without_version(name)]
            if genes.ids is not None and genes.ids[column]:
                keys.append(without_version(genes.ids[column]))
            found = next((called[key] for key in keys if key in called), name)
            found = name if found in own else found  # two columns of one section stay two genes
            own[found] = None
            for key in keys:
                called.setdefault(key, found)
        unified[section] = list(own)
    return {section: unified[section] for section in sections}


def check_shared(
    section: str,
    names: GeneNames,
    genes: Sequence[str],
    found: Int64[np.ndarray, "gene"],
    *,
    others: Iterable[GeneNames],
) -> None:
    """Raise SectionError where a section shares no gene of a panel, or few because its genes are named otherwise.

    A section of a targeted assay shares few genes too. It is accepted, because the other sections know at least half of
    its own genes. `others` are only read where the section shares less than half of the panel.
    """
    shared = int((found >= 0).sum())
    if shared >= FEWEST_SHARED * len(genes):
        return
    known = {key for other in others for key in other.keys()}  # noqa: SIM118 -- not the keys of a dict
    sides = zip(names.names, names.ids or names.names, strict=True)
    own = sum(not known.isdisjoint((without_version(name), without_version(gene_id))) for name, gene_id in sides)
    if shared and own >= FEWEST_SHARED * len(names.names):
        return
    msg = (
        f"section '{section}' shares {shared} of the {len(genes)} genes of the panel: the panel has {kind_of(genes)} "
        f"such as {some(list(genes), 3)}, the section has {kind_of(names.names)} such as {names.examples()}. Give the "
        "section the panel's names, or var['gene_ids'] with Ensembl ids in this section or in the training sections, "
        "then run `raystp spots` again; or leave the section out"
    )
    raise SectionError(msg)


def kind_of(names: Sequence[str]) -> str:
    """Return `Ensembl ids` where most of the names are such, else `names`."""
    ids = sum(is_ensembl_id(name) for name in names)
    return "Ensembl ids" if 2 * ids > len(names) else "names"
