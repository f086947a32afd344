"""Sections that may be one tissue under two patients: by the content of their slides, and by their counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raystp.expression.leaks.pseudo_bulk import PseudoBulk
from raystp.expression.leaks.same_tissue import SameTissue, find_same_tissue
from raystp.slides.inputs.copies import find_copies
from raystp.slides.table import SlideRow


@dataclass
class SectionContents:
    """What each section that was read consists of."""

    rows: dict[str, SlideRow] = field(default_factory=dict)
    slides: dict[str, str] = field(default_factory=dict)
    """Slide -> id of its content."""
    bulks: dict[str, PseudoBulk] = field(default_factory=dict)
    _genes: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, row: SlideRow, content: str, bulk: PseudoBulk) -> None:
        """Add a section; lists of genes that are equal are kept once."""
        self.rows[row.section] = row
        self.slides[row.slide] = content
        genes = self._genes.setdefault(bulk.genes, bulk.genes)
        self.bulks[row.section] = PseudoBulk(bulk.spots, genes, bulk.levels, bulk.counts)


@dataclass(frozen=True)
class Duplicates:
    """Sentences on what is there twice."""

    leaks: Mapping[str, list[str]]
    """The first section of each pair under two patients -> warnings."""
    within: list[str]
    """Exact copies under one patient: they are only noted, since no split by patient divides them."""


def find_duplicates(contents: SectionContents) -> Duplicates:
    """Return what is there twice: slides of one content, and sections that look like one tissue."""
    rows = contents.rows
    section_of = {row.slide: section for section, row in rows.items()}
    leaks: dict[str, list[str]] = {}
    within = []
    for slides in find_copies(contents.slides, {row.slide: row.patient for row in rows.values()}):
        if slides.is_leak:
            leaks.setdefault(section_of[slides.slides[0]], []).append(slides.sentence())
        else:
            within.append(slides.sentence())
    for pair in find_same_tissue(contents.bulks):
        first, second = rows[pair.first].patient, rows[pair.second].patient
        if first != second:
            leaks.setdefault(pair.first, []).append(_sentence(pair, first, second))
        elif pair.is_copy:
            within.append(f"sections '{pair.first}' and '{pair.second}' of patient '{first}' have equal counts")
    return Duplicates(leaks, within)


def _sentence(pair: SameTissue, first: str, second: str) -> str:
    alike = "equal counts" if pair.is_copy else f"pseudo-bulks that correlate by {pair.correlation:.5f}"
    return (
        f"sections '{pair.first}' (patient '{first}') and '{pair.second}' (patient '{second}') have {pair.spots:,} "
        f"spots each, and {alike} over {pair.genes:,} shared genes: they may be one tissue, a possible leak, since a "
        "split by patient may train on one and test on the other; give them one patient, or leave one out"
    )
