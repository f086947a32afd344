"""HER2-positive breast cancer of legacy ST (Andersson et al. 2021): its folder as a slide table.

    [data/]ST-imgs/<patient>/<section>/<any name>.jpg
    [data/]ST-cnts/<section>.tsv.gz                    spots x genes, counts
    [data/]ST-spotfiles/<section>_selection.tsv        px of each spot

A section is a letter, its patient, and a number: A1 to H3, 36 sections of 8 patients. Source: almaan/her2st. um/px is
stated nowhere; the layout `legacy_st` takes it from the distance of the spots.
"""

from collections.abc import Mapping, Sequence

from raystp.errors import FormatError, some
from raystp.interop.choice import TableChoice
from raystp.interop.sections.tables import TableFiles, choose, slide_table
from raystp.storage import StoragePath

IMAGES, COUNTS, SPOTS = "ST-imgs", "ST-cnts", "ST-spotfiles"
COUNT_ENDS = (".tsv.gz", ".tsv")
IMAGE_ENDS = (".jpg", ".jpeg", ".tif", ".tiff", ".png")
SELECTION = "_selection.tsv"
PUBLISHED = 36
"""Sections of the whole data set."""


def table_files(root: StoragePath, choice: TableChoice) -> TableFiles:
    """Return the slide table; raises FormatError for a folder without sections that have image, counts and spots."""
    folder = _folder(root)
    counts, spots = _counts(folder), {name for name in (folder / SPOTS).names() if name.endswith(SELECTION)}
    taken = [one["section"] for one in choose([{"section": name} for name in counts], "section", choice, str(folder))]
    rows: list[dict[str, str]] = []
    lacking: list[str] = []
    for name in taken:
        image = _image(folder / IMAGES / name[:1] / name)
        if image is None or f"{name}{SELECTION}" not in spots:
            lacking.append(name)
            continue
        places = folder / SPOTS / f"{name}{SELECTION}"
        files = {"path": image, "counts": counts[name], "positions": places}
        cells = {key: path.with_query() for key, path in files.items()}
        rows.append({"slide": name, "patient": name[:1], "layout": "legacy_st", "section": name, **cells})
    if not rows:
        msg = f"{folder} has image and {SELECTION[1:]} of none of the sections {some(taken)}; download them first"
        raise FormatError(msg)
    return TableFiles({"slides.csv": slide_table(rows)}, len(rows), tuple(_notes(taken, lacking)))


def _folder(root: StoragePath) -> StoragePath:
    """Return the folder with the three parts: the root, or its `data`, as in a clone of the repository."""
    for folder in (root, root / "data"):
        if {IMAGES, COUNTS, SPOTS} <= {*folder.names()}:
            return folder
    msg = f"{root} has no {IMAGES}, {COUNTS} and {SPOTS}; give the folder of almaan/her2st, or its `data`"
    raise FormatError(msg)


def _counts(folder: StoragePath) -> Mapping[str, StoragePath]:
    """Return section -> its counts, by name; of a packed and an unpacked file the packed one."""
    found: dict[str, StoragePath] = {}
    for name in sorted((folder / COUNTS).names()):
        end = next((end for end in COUNT_ENDS if name.endswith(end)), None)
        if end is None:
            continue
        section = name.removesuffix(end)
        if end == COUNT_ENDS[0] or section not in found:
            found[section] = folder / COUNTS / name
    if not found:
        msg = f"{folder / COUNTS} has no <section>{COUNT_ENDS[0]}; download the counts first"
        raise FormatError(msg)
    return found


def _image(folder: StoragePath) -> StoragePath | None:
    """Return the only image of a section; None where there is none. Raises FormatError for several."""
    names = [name for name in folder.names() if name.lower().endswith(IMAGE_ENDS)]
    if len(names) > 1:
        msg = f"{folder} has several images, {some(sorted(names))}: leave one"
        raise FormatError(msg)
    return folder / names[0] if names else None


def _notes(taken: Sequence[str], lacking: Sequence[str]) -> list[str]:
    notes = ["a section's letter is its patient; um/px is found from the spots, 200 um apart"]
    if lacking:
        notes.append(f"{len(lacking)} of {len(taken)} sections lack an image or a selection file: {some([*lacking])}")
    if len(taken) - len(lacking) != PUBLISHED:
        notes.append(f"the published data set has {PUBLISHED} sections, this table {len(taken) - len(lacking)}")
    return notes
