"""Which slides belong to which case: from a CSV, or from TCGA barcodes."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping

from raystp.errors import SectionError, some
from raystp.storage import StoragePath

CASE_LETTERS = 12
"""Letters at the start of a TCGA barcode that name the case: TCGA-AA-3488."""


def read_slide_cases(path: StoragePath) -> dict[str, str]:
    """Return slide -> case of a CSV with the columns `slide` and `case`; other columns are ignored.

    Raises SectionError for a missing column, an empty cell, and a slide that occurs more than once.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig")))
        rows = [((row.get("slide") or "").strip(), (row.get("case") or "").strip()) for row in reader]
        columns = list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} is not a CSV in UTF-8 ({error}): save it as one"
        raise SectionError(msg) from None
    if not {"slide", "case"} <= set(columns):
        msg = f"{path} has the columns {some(columns)}: expected `slide` and `case`, one row per slide"
        raise SectionError(msg)
    duplicates = sorted(slide for slide, count in Counter(slide for slide, _ in rows).items() if count > 1)
    empty = [number for number, row in enumerate(rows, start=2) if not all(row)]
    if duplicates or empty:
        fault = (
            f"lists slide {some(duplicates)} more than once" if duplicates else f"has an empty cell in row {empty[0]}"
        )
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
