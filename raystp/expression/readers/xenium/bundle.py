"""Find the files of a Xenium bundle (versions 1 to 4), and read what `experiment.xenium` states."""

import json
from dataclasses import dataclass

from raystp.errors import RaystpError, SectionError, some
from raystp.expression.readers.files.folders import find_role, refuse_packed
from raystp.expression.readers.files.values import numbers
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text

EXPERIMENT = "experiment.xenium"
ALIGNMENT = "_he_imagealignment.csv"
TRANSCRIPTS, CELLS, MATRIX = "transcripts.parquet", "cells.parquet", "cell_feature_matrix.h5"
VERSIONS = ("xenium_ranger", "analysis_sw_version")
MAX_JSON = 1 << 24


@dataclass(frozen=True)
class Bundle:
    """The files of a bundle that are read; None: not there."""

    experiment: StoragePath
    alignment: StoragePath
    transcripts: StoragePath | None
    cells: StoragePath | None
    matrix: StoragePath | None


@dataclass(frozen=True)
class Experiment:
    """What `experiment.xenium` states."""

    pixel_um: float
    """um per px of the morphology image."""
    version: str


def find_bundle(source: SectionSource) -> Bundle:
    """Return the files; raises SectionError where one is absent that the section needs."""
    refuse_packed(source.counts, source.origin)
    path = source.counts
    folder = path.parent if path.name.endswith(EXPERIMENT) and not path.is_folder() else path
    names = folder.names()
    found = {role: find_role(folder, names, (role,), source) for role in (EXPERIMENT, TRANSCRIPTS, CELLS, MATRIX)}
    experiment = found[EXPERIMENT]
    if experiment is None:
        there = f"has {some(names, 8)}" if names else "is empty or absent"
        msg = f"{source.origin} is no bundle of Xenium: {folder} has no {EXPERIMENT}; it {there}"
        raise SectionError(msg)
    by_cells = source.options.xenium_from == "cells"
    absent = [role for role in ((CELLS, MATRIX) if by_cells else (TRANSCRIPTS,)) if found[role] is None]
    if absent:
        other = "transcripts" if by_cells else "cells"
        msg = (
            f"{source.origin}: no {' and no '.join(absent)} in {folder}; there are {some(names, 8)}: give the whole "
            f"bundle, or set xenium_from={other}"
        )
        raise SectionError(msg)
    alignment = source.positions or _find_alignment(folder, names, source)
    files = {role: None if one is None else one.path for role, one in found.items()}
    return Bundle(experiment.path, alignment, files[TRANSCRIPTS], files[CELLS], files[MATRIX])


def files_of_bundle(source: SectionSource) -> list[StoragePath]:
    """Return the files that are read; none where they are not found, and the section fails."""
    try:
        bundle = find_bundle(source)
    except RaystpError:
        return []
    counted = None if source.options.xenium_from == "cells" else bundle.transcripts
    files = (bundle.experiment, bundle.alignment, counted, bundle.cells, bundle.matrix)
    return [path for path in files if path is not None]


def read_experiment(path: StoragePath, origin: str) -> Experiment:
    """Return pixel size and version; raises SectionError without a pixel size."""
    size = path.size()
    if size > MAX_JSON:
        msg = f"{origin}: {path} has {size} bytes, and a file {EXPERIMENT} has some thousand"
        raise SectionError(msg)
    try:
        values = json.loads(decode_text(path.read_bytes(), str(path), SectionError))
    except (ValueError, RecursionError) as error:
        msg = f"{origin}: {path} is not a JSON object: {error}"
        raise SectionError(msg) from None
    pixel_um = numbers(values).get("pixel_size")
    if pixel_um is None or not pixel_um > 0:
        msg = f"{origin}: {path} has no pixel_size above 0, the um per px of the morphology image (.2125 as a rule)"
        raise SectionError(msg)
    return Experiment(pixel_um, next((str(values[name]) for name in VERSIONS if name in values), "unknown"))


def _find_alignment(folder: StoragePath, names: list[str], source: SectionSource) -> StoragePath:
    """Return the only alignment in the bundle; raises SectionError without one, and with several."""
    found = [name for name in names if name.endswith(ALIGNMENT)]
    if len(found) == 1:
        return folder / found[0]
    there = f"there are {some(found)}" if found else f"no *{ALIGNMENT} is in {folder}"
    msg = (
        f"{source.origin}: the place of its squares on the H&E is unknown: {there}; give the alignment, 3 x 3 numbers "
        "or points fixedX,fixedY,alignmentX,alignmentY, in the column `positions`"
    )
    raise SectionError(msg)
