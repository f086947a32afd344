"""STAMP's two tables: files of each patient (`slide.csv`), and what is known of each patient (`clini.csv`)."""

import csv
import io
from collections.abc import Iterable, Mapping

from raystp.storage import StoragePath

SLIDES, PATIENTS = "slide.csv", "clini.csv"
PATIENT, FILE = "PATIENT", "FILENAME"


def write_tables(
    patients: Mapping[str, str],
    encoder: str,
    folder: StoragePath,
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> list[str]:
    """Write both tables beside the folder of the extractor; return what is left to do.

    `patients` has the patient of each slide, and `labels` the columns of the clinical table for each patient. A slide
    without a patient is a patient of its own. Files are relative to the extractor's folder, and end in `.h5`. The rows
    of a patient are kept together: STAMP takes the last run of rows of a patient alone.
    """
    named = sorted((patient or slide, slide) for slide, patient in patients.items())
    _write(folder / SLIDES, [PATIENT, FILE], [{PATIENT: patient, FILE: f"{slide}.h5"} for patient, slide in named])
    known = labels or {}
    columns = sorted({label for values in known.values() for label in values})
    rows = [{PATIENT: patient, **known.get(patient, {})} for patient in sorted({patient for patient, _ in named})]
    _write(folder / PATIENTS, [PATIENT, *columns], rows)
    note = f"{SLIDES} names files of {encoder}/: give that folder as feature_dir"
    return [note] if columns else [note, f"{PATIENTS} has no label: add a column"]


def _write(path: StoragePath, columns: list[str], rows: Iterable[Mapping[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode())
