"""HEST-1k (v1.1 to 1.3): its folder as a slide table.

    HEST_v1_*.csv                        one row per sample, with a byte order mark
    wsis/<id>.tif   st/<id>.h5ad         slide and spots; patches/<id>.h5 where the slide was not downloaded
    metadata/<id>.json                   um/px, as `pixel_size_um_estimated` from the distances of spots
    tissue_seg/<id>_contours.geojson     not read

`pixel_size_um_embedded` is often wrong or null, and is not read. A patient is unique within `dataset_title` only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raystp.errors import FormatError, some
from raystp.interop.choice import TableChoice
from raystp.interop.sections.tables import (
    EMPTY,
    Row,
    TableFiles,
    choose,
    covariates,
    read_records,
    slide_table,
    value,
)
from raystp.storage import StoragePath
from raystp.storage.text_files import parse_number, read_object

MPP = "pixel_size_um_estimated"
MAX_SIDECAR = 1 << 20
"""Bytes of a sample's JSON at most; they have about 1 KB."""

DUPLICATES = (frozenset({"TENX128", "TENX155"}),)
"""Samples that are one tissue."""
SEVERAL_PATIENTS = (frozenset({"TENX153", "TENX154", "TENX155", "TENX156"}),)
"""Samples that stand as one patient, and are of several."""


def table_files(root: StoragePath, choice: TableChoice) -> TableFiles:
    """Return the slide table of HEST's folder; raises FormatError where nothing of it can be read."""
    table = find_table(root)
    if table is None:
        msg = f"{root} has no HEST_v1_*.csv; give HEST's folder, with its CSV, st/ and wsis/ or patches/"
        raise FormatError(msg)
    records = choose(_records(table), "id", choice, str(table))
    present = _Present.of(root)
    rows, unread_mpp, damaged = [], [], []
    for record in records:
        name = record["id"]
        image = present.image(name)
        if image is None:
            continue
        try:
            mpp = _mpp(root, record, present)
            unread_mpp += [] if mpp else [name]
        except FormatError as fault:  # of one sample: the others are written
            mpp = ""
            damaged.append(f"{name} has no um/px: {fault}")
        spots = {"layout": "hest", "counts": (root / "st" / f"{name}.h5ad").with_query()} if name in present.st else {}
        known = {"slide": name, "path": image, "patient": patient_of(record), "mpp": mpp, "section": name}
        rows.append({**known, **spots, **covariates(record, ("id",))})
    names = [record["id"] for record in records]
    if not rows:
        msg = (
            f"none of the {len(names)} samples has a file in {root / 'wsis'} or {root / 'patches'}: download them first"
        )
        raise FormatError(msg)
    notes = [*present.notes(names), *_patient_notes(records, [row["slide"] for row in rows])]
    if unread_mpp:
        notes.append(
            f"no um/px in metadata/ or the CSV for {some(unread_mpp)}: add it to the column mpp where the spots need it"
        )
    return TableFiles({"slides.csv": slide_table(rows)}, len(rows), (*notes, *damaged))


def find_table(root: StoragePath) -> StoragePath | None:
    """Return HEST's CSV in a folder, of several versions the last; None where there is none."""
    names = [name for name in root.names() if name.startswith("HEST_v") and name.endswith(".csv")]
    return root / max(names, key=_version) if names else None


def _version(name: str) -> list[int]:
    return [int(part) for part in name.removesuffix(".csv").replace("v", "").split("_") if part.isdigit()]


def _records(table: StoragePath) -> list[dict[str, str]]:
    records = read_records(table)
    for column in ("id", "dataset_title", "patient"):
        if records and column not in records[0]:
            msg = f"{table} has no column {column!r}; it has {some(list(records[0]), 10)}: is it HEST's own CSV?"
            raise FormatError(msg)
    return records


def patients_of(table: StoragePath) -> dict[str, str]:
    """Return sample -> patient of HEST's CSV, as `<dataset_title>/<patient>`."""
    return {record["id"]: patient_of(record) for record in _records(table)}


def patient_of(record: Row) -> str:
    """Return the patient of a sample, unique over data sets; a sample without one counts as a patient of its own."""
    study = value(record, "dataset_title")
    return f"{study}/{value(record, 'patient') or record['id']}".lstrip("/")


@dataclass(frozen=True)
class _Present:
    """The files of a folder, as ids."""

    root: StoragePath
    wsis: frozenset[str]
    patches: frozenset[str]
    st: frozenset[str]
    metadata: frozenset[str]

    @classmethod
    def of(cls, root: StoragePath) -> "_Present":
        kinds = (("wsis", ".tif"), ("patches", ".h5"), ("st", ".h5ad"), ("metadata", ".json"))
        found = [frozenset(n.removesuffix(end) for n in (root / at).names() if n.endswith(end)) for at, end in kinds]
        return cls(root, *found)

    def image(self, name: str) -> str | None:
        if name in self.wsis:
            return (self.root / "wsis" / f"{name}.tif").with_query()
        return (self.root / "patches" / f"{name}.h5").with_query() if name in self.patches else None

    def notes(self, names: Sequence[str]) -> list[str]:
        """Return a sentence for each kind of file that chosen samples lack."""
        absent = [name for name in names if name not in self.wsis | self.patches]
        images = [name for name in names if name in self.patches - self.wsis]
        unmeasured = [name for name in names if name in self.wsis | self.patches and name not in self.st]
        notes = []
        if absent:
            notes.append(f"{len(absent)} of {len(names)} samples have no file in wsis/ or patches/: {some(absent)}")
        if images:
            notes.append(f"the images in patches/ are taken, because wsis/ has no slide of {some(images)}")
        if unmeasured:
            notes.append(f"st/ has no spots of {some(unmeasured)}: they are slides without measured spots")
        return notes


def _patient_notes(records: Sequence[Row], taken: Sequence[str]) -> list[str]:
    """Return sentences on patients that are not known, or known to be wrong."""
    alone = [record["id"] for record in records if record["id"] in taken and not value(record, "patient")]
    notes = []
    if alone:
        notes.append(f"no patient is given for {some(alone)}: each counts as one, so sections of one may be split")
    known = [" and ".join(sorted(names)) for names in DUPLICATES if names <= set(taken)]
    notes += [f"{names} are known to be one tissue: leave one out, or give both one patient" for names in known]
    known = [", ".join(sorted(names & set(taken))) for names in SEVERAL_PATIENTS if len(names & set(taken)) > 1]
    notes += [f"{names} stand as one patient and are known to be of several" for names in known]
    return notes


def _mpp(root: StoragePath, record: Row, present: _Present) -> str:
    """Return the um/px of a sample by its JSON, else by the CSV, as text; empty where neither has it.

    Raises FormatError for a damaged file, and for um/px that is no number above 0.
    """
    path = root / "metadata" / f"{record['id']}.json"
    found = read_object(path, MAX_SIDECAR, FormatError).get(MPP) if record["id"] in present.metadata else None
    found, where = (found, str(path)) if found is not None else (record.get(MPP, ""), f"HEST's CSV, {record['id']}")
    if str(found).lower() in EMPTY:
        return ""
    number = found if isinstance(found, int | float) else parse_number(str(found))
    if number is None or isinstance(found, bool) or not (math.isfinite(number) and number > 0):
        msg = f"{where}: {MPP} is {found!r}; expected um/px, a number above 0 such as 0.5"
        raise FormatError(msg)
    return repr(float(number))
