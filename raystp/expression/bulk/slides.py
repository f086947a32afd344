"""Which slides belong to which case: from a table, or from TCGA barcodes."""

from collections import Counter
from collections.abc import Collection, Mapping

from raystp.errors import SectionError, some
from raystp.storage import StoragePath
from raystp.storage.text_files import read_text_table

CASE_LETTERS = 12
"""Letters at the start of a TCGA barcode that name the case: TCGA-AA-3488."""


def read_slide_cases(path: StoragePath) -> dict[str, str]:
    """Return slide -> case of a table with the columns `slide` and `case`; other columns are ignored.

    Raises SectionError for a missing column, an empty cell, and a slide that occurs more than once.
    """
    table = read_text_table(path, known=("slide", "case"), error=SectionError)
    if not {"slide", "case"} <= set(table.columns):
        msg = f"{path} has the columns {some(table.columns)}: expected `slide` and `case`, one row per slide"
        raise SectionError(msg)
    rows = [(row.cells["slide"], row.cells["case"]) for row in table.rows]
    duplicates = sorted(slide for slide, count in Counter(slide for slide, _ in rows).items() if count > 1)
    empty = [row.line for row, cells in zip(table.rows, rows, strict=True) if not all(cells)]
    if empty:
        msg = f"{path}, line {empty[0]}: `slide` or `case` is empty: expected one case for each slide"
        raise SectionError(msg)
    if duplicates or not rows:
        fault = f"lists slide {some(duplicates)} more than once" if duplicates else "has no row"
        msg = f"{path} {fault}: expected one case for each slide"
        raise SectionError(msg)
    return dict(rows)


def slides_of_cases(case_of: Mapping[str, str], cases: Collection[str]) -> dict[str, list[str]]:
    """Return the slides of each case that has any, both in the order of `case_of` (slide -> case).

    A case with several slides is one bag of all their tiles. Raises SectionError for a slide whose case is not among
    `cases` (the labelled ones), and without any slide. The caller counts cases without a slide.
    """
    known = set(cases)
    unlabelled = [f"{slide} of {case}" for slide, case in case_of.items() if case not in known]
    if unlabelled or not case_of:
        msg = (
            f"{len(unlabelled)} slides belong to cases without a label ({some(unlabelled)}); labelled cases are "
            f"{some(sorted(known))}: leave those slides out, or add their cases to the table"
        )
        raise SectionError(msg if unlabelled else "no slide belongs to a case: give the case of each slide")
    grouped: dict[str, list[str]] = {}
    for slide, case in case_of.items():
        grouped.setdefault(case, []).append(slide)
    return grouped


def tcga_case(slide: str) -> str:
    """Return the case of a slide whose name is a TCGA barcode; raises SectionError for any other name."""
    case = slide[:CASE_LETTERS].upper()
    parts = case.split("-")
    if (
        [len(part) for part in parts] != [4, 2, 4]
        or parts[0] != "TCGA"
        or slide[CASE_LETTERS : CASE_LETTERS + 1].isalnum()
    ):
        msg = f"slide {slide!r} has no TCGA barcode for a name (TCGA-AA-3488-...): give a table of slides and cases"
        raise SectionError(msg)
    return case
