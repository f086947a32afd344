"""STAMP's two tables: files of each patient (`slide.csv`), and what is known of each patient (`clini.csv`)."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raystp.errors import FormatError
from raystp.interop.features.encoders import name_in
from raystp.storage import StoragePath

SLIDES, PATIENTS = "slide.csv", "clini.csv"
PATIENT, FILE = "PATIENT", "FILENAME"


@dataclass(frozen=True)
class ExportedSlide:
    """One slide of an export."""

    slide: str
    patient: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Columns of the clinical table -> value of the patient; none leaves a table of patients to be filled in."""


def write_tables(slides: Iterable[ExportedSlide], encoder: str, folder: StoragePath) -> list[str]:
    """Write both tables beside the folder of features; files are named relative to that folder, and end in `.h5`.

    Rows are in the order of patients: STAMP takes only the last run of rows of a patient.
    Raises FormatError for a patient with two values of one label.
    """
    slides = sorted(slides, key=lambda one: (one.patient, one.slide))
    patients: dict[str, dict[str, str]] = {}
    for one in slides:
        known = patients.setdefault(one.patient, {})
        for label, value in one.labels.items():
            if known.setdefault(label, value) != value:
                msg = f"patient {one.patient!r} has {label} {known[label]!r} and {value!r}, the latter at {one.slide!r}"
                raise FormatError(f"{msg}: STAMP's clinical table has one value a patient")
    labels = sorted({label for known in patients.values() for label in known})
    rows = [{PATIENT: one.patient, FILE: f"{one.slide}.h5"} for one in slides]
    _write(folder / SLIDES, [PATIENT, FILE], rows)
    known_rows = [{PATIENT: patient, **patients[patient]} for patient in sorted(patients)]
    _write(folder / PATIENTS, [PATIENT, *labels], known_rows)
    note = f"{SLIDES} names files of {name_in('stamp', encoder)}/: give that as feature_dir"
    return [note] if labels else [note, f"{PATIENTS} has no label: add a column"]


def _write(path: StoragePath, columns: list[str], rows: Iterable[Mapping[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode())
