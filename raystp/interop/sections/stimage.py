"""STimage-1K4M: its folder as a slide table with the layout `stimage`.

    meta/meta_all_gene*.csv               tab-separated: slide, tech, ...
    <tech>/image/<slide>.png              a PNG, JPEG or TIFF by its content
    <tech>/coord/<slide>_coord.csv        places of spots: yaxis, xaxis, r (px of the image; r is the spot's radius)
    <tech>/gene_exp/<slide>_count.csv     spots x genes, counts

um/px is stated nowhere: the layout `stimage` takes it from the radius. A bin of Visium HD has none, so it needs `mpp`.
Patients are not named: the study of a slide counts as its patient.
"""

from collections.abc import Sequence

from raystp.errors import FormatError, some
from raystp.interop.choice import TableChoice
from raystp.interop.sections.tables import (
    Row,
    TableFiles,
    choose,
    covariates,
    read_records,
    slide_table,
    value,
)
from raystp.storage import StoragePath

ROUND = ("Visium", "ST")
"""Technologies of round spots, whose radius is known."""
STUDY = ("study", "pmid", "title")
"""Columns that name a study, the first that is there."""
FILES = {"image": ".png", "coord": "_coord.csv", "gene_exp": "_count.csv"}
"""Folder below a technology -> what follows the slide's name."""


def table_files(root: StoragePath, choice: TableChoice) -> TableFiles:
    """Return the slide table of STimage-1K4M's folder; raises FormatError where it has no table or no slide."""
    table = _table(root)
    records = read_records(table, "\t")
    lacking = [name for name in ("slide", "tech") if not records or name not in records[0]]
    if lacking:
        found = some(list(records[0]) if records else [], 5)
        msg = f"{table} has no column {lacking[0]!r}; it has {found}: expected STimage's table, separated by tabs"
        raise FormatError(msg)
    taken = choose(records, "slide", choice, str(table))
    present = _present(root, sorted({record["tech"] for record in taken}))
    here = [record for record in taken if all((record["tech"], at, record["slide"]) in present for at in FILES)]
    absent = [record["slide"] for record in taken if record not in here]
    if not here:
        msg = f"{root} has image, coord and gene_exp of none of the {len(taken)} slides; download them first"
        raise FormatError(msg)
    notes = (
        [f"{len(absent)} of {len(taken)} slides lack an image, coord or gene_exp file: {some(absent)}"]
        if absent
        else []
    )
    study = next((name for name in STUDY if name in records[0]), None)
    rows = [_row(root, record, study) for record in here]
    notes += _notes(here, study)
    return TableFiles({"slides.csv": slide_table(rows)}, len(rows), tuple(notes))


def _table(root: StoragePath) -> StoragePath:
    """Return the table of slides; of several releases the largest."""
    folder = root / "meta"
    names = [name for name in folder.names() if name.startswith("meta_all_gene") and name.endswith(".csv")]
    if not names:
        msg = f"{root} has no meta/meta_all_gene*.csv; give the folder of STimage-1K4M, with meta/ and Visium/ or ST/"
        raise FormatError(msg)
    return folder / max(names, key=lambda name: ((folder / name).size(), name))


def _present(root: StoragePath, technologies: Sequence[str]) -> set[tuple[str, str, str]]:
    """Return technology, folder and slide of each file."""
    return {
        (tech, at, name.removesuffix(end))
        for tech in technologies
        for at, end in FILES.items()
        for name in (root / tech / at).names()
        if name.endswith(end)
    }


def _row(root: StoragePath, record: Row, study: str | None) -> dict[str, str]:
    folder, name = root / record["tech"], record["slide"]
    image, places, counts = ((folder / at / f"{name}{end}").with_query() for at, end in FILES.items())
    return {
        "slide": name,
        "path": image,
        "patient": (value(record, study) if study else "") or name,
        "layout": "stimage",
        "counts": counts,
        "positions": places,
        "section": name,
        **covariates(record, ("slide",)),
    }


def _notes(records: Sequence[Row], study: str | None) -> list[str]:
    notes = []
    if unknown := [record["slide"] for record in records if record["tech"] not in ROUND]:
        notes.append(f"no um/px is known of {some(unknown)}, which have no round spots: add a column mpp")
    if study is None:
        notes.append(f"the table names no study ({', '.join(STUDY)}): each slide counts as a patient of its own")
    else:
        notes.append(f"patients are not named: slides of one {study} count as one patient")
    return notes
