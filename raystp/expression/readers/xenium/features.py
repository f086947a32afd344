"""Names of what Xenium detects: genes, and probes that measure none."""

from dataclasses import dataclass, field

from raystp.expression.readers.files.controls import is_control
from raystp.expression.section_checks.genes import GENE_EXPRESSION
from raystp.expression.section_checks.raw import RawGenes

MAX_FEATURES = 1 << 16

CONTROL = "control, by its name"


@dataclass
class Features:
    """Features in order of their columns: those of the bundle's matrix, then others as they are seen."""

    names: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    column_of: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, genes: RawGenes) -> "Features":
        """Return those of a matrix; the name of a control counts more than its type."""
        found = cls()
        ids, kinds = genes.ids or genes.names, genes.kinds or [GENE_EXPRESSION] * len(genes.names)
        for name, one, kind in zip(genes.names, ids, kinds, strict=True):
            found.column_of.setdefault(name, found._append(name, one, CONTROL if is_control(name) else kind))
        return found

    def column(self, name: str) -> int:
        """Return the column of a feature; a new one gets the next column. Raises ValueError beyond the limit."""
        column = self.column_of.get(name)
        if column is None and len(self.names) >= MAX_FEATURES:
            msg = f"it has over {MAX_FEATURES} different features; a panel of Xenium has up to about 10,000"
            raise ValueError(msg)
        if column is None:
            column = self._append(name, name, CONTROL if is_control(name) else GENE_EXPRESSION)
            self.column_of[name] = column
        return column

    def is_gene(self, column: int) -> bool:
        """Return whether the feature of a column is a gene."""
        return self.kinds[column].strip().casefold() == GENE_EXPRESSION.casefold()

    def genes(self, *, with_ids: bool) -> RawGenes:
        """Return the columns for the checks, which leave out what is no gene, and count it."""
        return RawGenes(names=list(self.names), ids=list(self.ids) if with_ids else None, kinds=list(self.kinds))

    def _append(self, name: str, one: str, kind: str) -> int:
        self.names.append(name)
        self.ids.append(one)
        self.kinds.append(kind)
        return len(self.names) - 1
