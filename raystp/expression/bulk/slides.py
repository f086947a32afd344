"""Which slides belong to which case: from a table, or from TCGA barcodes."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from raystp.errors import SectionError, some
from raystp.expression.bulk.kinds import Samples
from raystp.storage import StoragePath
from raystp.storage.text_files import read_text_table

SAMPLES = {range(1, 10): "tumour", range(10, 20): "normal", range(20, 30): "control"}
"""Sample codes of a TCGA barcode -> kind of sample."""

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


@dataclass(frozen=True)
class SlideCases:
    """Which slides belong to which case, and why others belong to none."""

    case_of: dict[str, str]
    """Slide -> case."""
    left_out: dict[str, str]
    """Slide -> the reason."""
    summary: str = ""
    """How many slides of which samples there are, for TCGA barcodes."""


def tcga_cases(slides: Collection[str], samples: Samples) -> SlideCases:
    """Return the cases of slides with TCGA barcodes, of one kind of sample.

    A barcode without a sample (`TCGA-AA-3488`) is kept. Raises SectionError where a name is no barcode, and where no
    slide is of this kind.
    """
    kinds = {slide: tcga_sample(slide) for slide in slides}
    kept = {slide: tcga_case(slide) for slide, kind in kinds.items() if samples == "all" or kind in {samples, None}}
    counts = Counter(kind or "unknown" for kind in kinds.values())
    found = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    if not kept:
        msg = f"no slide is of a {samples} sample by its TCGA barcode ({found}): set cases.samples to another kind"
        raise SectionError(msg)
    left = {slide: f"it is of a {kind} sample, and cases.samples is {samples}" for slide, kind in kinds.items()}
    return SlideCases(kept, {slide: reason for slide, reason in left.items() if slide not in kept}, found)


def tcga_sample(slide: str) -> str | None:
    """Return the kind of sample of a TCGA barcode by its code; None for a barcode without one.

    Codes: https://gdc.cancer.gov/resources-tcga-users/tcga-code-tables/sample-type-codes. Raises SectionError for
    another name.
    """
    tcga_case(slide)
    code = re.match(r"-(\d\d)(?!\d)", slide[CASE_LETTERS:])
    if code is None:
        return None
    return next((kind for codes, kind in SAMPLES.items() if int(code[1]) in codes), "other")


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
