"""Which slides are of which case: from a CSV, from TCGA barcodes, or as the caller knows it."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping

from raystp.errors import SectionError, some
from raystp.storage import StoragePath

BARCODE = 12
"""Letters of a TCGA barcode that name the case: TCGA-AA-3488."""


def read_slide_cases(place: StoragePath) -> dict[str, str]:
    """Return slide -> case of a CSV with the columns `slide` and `case`; others are let be.

    Raises SectionError where a column is missing, a cell empty, or a slide named twice.
    """
    try:
        reader = csv.DictReader(io.StringIO(place.read_bytes().decode("utf-8-sig")))
        rows = [((row.get("slide") or "").strip(), (row.get("case") or "").strip()) for row in reader]
        columns = list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{place} is not a CSV in UTF-8 ({error}): save it as one"
        raise SectionError(msg) from None
    if not {"slide", "case"} <= set(columns):
        msg = f"{place} has the columns {some(columns)}: `slide` and `case` are wanted, a row for each slide"
        raise SectionError(msg)
    twice = sorted(slide for slide, times in Counter(slide for slide, _ in rows).items() if times > 1)
    empty = [number for number, row in enumerate(rows, start=2) if not all(row)]
    if twice or empty:
        said = f"names slide {some(twice)} more than once" if twice else f"has an empty cell in row {empty[0]}"
        msg = f"{place} {said}: one case for each slide is wanted"
        raise SectionError(msg)
    return dict(rows)


def slides_of_cases(case_of: Mapping[str, str], cases: Collection[str]) -> dict[str, list[str]]:
    """Return the slides of each case that has any, both in the order of `case_of` (slide -> case).

    A case with several slides is one bag of all their tiles. Raises SectionError for a slide whose case is not among
    `cases` (those with a label), and where there is no slide at all. Cases without a slide are the caller's to count.
    """
    known = set(cases)
    lost = [f"{slide} of {case}" for slide, case in case_of.items() if case not in known]
    if lost or not case_of:
        msg = (
            f"{len(lost)} slides are of cases that have no label ({some(lost)}); there are labels of "
            f"{some(sorted(known))}: leave those slides out, or add their cases"
        )
        raise SectionError(msg if lost else "no slide is said to belong to a case: name each slide's case")
    grouped: dict[str, list[str]] = {}
    for slide, case in case_of.items():
        grouped.setdefault(case, []).append(slide)
    return grouped


def tcga_case(slide: str) -> str:
    """Return the case of a slide that is named by a TCGA barcode; raises SectionError for any other name."""
    case = slide[:BARCODE].upper()
    parts = case.split("-")
    if [len(part) for part in parts] != [4, 2, 4] or parts[0] != "TCGA" or slide[BARCODE : BARCODE + 1].isalnum():
        msg = f"slide {slide!r} is not named by a TCGA barcode (TCGA-AA-3488-...): give a table of slides and cases"
        raise SectionError(msg)
    return case
