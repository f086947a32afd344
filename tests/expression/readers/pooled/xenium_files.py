"""Make a Xenium bundle and its H&E alignment: transcripts at known px of the H&E."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath

PIXEL_UM = 0.2125
HE_MPP = 0.275
GENES = ["EPCAM", "VIM", "KRT8", "NEVER"]
"""The last one has no transcript."""
CONTROLS = {
    "BLANK_0001": "Blank Codeword",
    "NegControlProbe_0002": "Negative Control Probe",
    "NegControlCodeword_0503": "Negative Control Codeword",
    "antisense_VIM": "Negative Control Probe",
    "UnassignedCodeword_0004": "Unassigned Codeword",
    "DeprecatedCodeword_0007": "Deprecated Codeword",
}


def he_to_morphology(degrees: float = 0.0, *, mirror: bool = False) -> Float64[np.ndarray, "3 3"]:
    """Return A, which takes H&E px to morphology px."""
    angle, scale = np.deg2rad(degrees), HE_MPP / PIXEL_UM
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = np.diag([-1.0 if mirror else 1.0, 1.0])
    matrix = np.eye(3)
    matrix[:2, :2] = scale * turn @ flip
    matrix[:2, 2] = [9000.0, 4000.0]
    return matrix


@dataclass(frozen=True)
class Transcripts:
    """Transcripts and cells of one section."""

    xy: Float64[np.ndarray, "transcript 2"]
    """(x, y) in um."""
    names: Sequence[str]
    qv: Float64[np.ndarray, "transcript"]
    matrix: Float64[np.ndarray, "3 3"]
    cells: Float64[np.ndarray, "cell 2"] = field(default_factory=lambda: np.zeros((0, 2)))


def um_of(px: Float64[np.ndarray, "place 2"], matrix: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "place 2"]:
    """Return places in px of the H&E as um: by A to morphology px, times its pixel size."""
    return np.asarray((px @ matrix[:2, :2].T + matrix[:2, 2]) * PIXEL_UM, np.float64)


def random_section(matrix: Float64[np.ndarray, "3 3"], size: tuple[int, int] = (4000, 3000)) -> Transcripts:
    """Return 6,000 transcripts of genes and controls, good and bad, on an H&E of this size in px."""
    random, count = np.random.default_rng(0), 6000
    px = random.uniform([0, 0], size, (count, 2))
    known = [*GENES[:3], *CONTROLS]
    names = [known[number] for number in random.integers(0, len(known), count).tolist()]
    cells = um_of(random.uniform([0, 0], size, (500, 2)), matrix)
    return Transcripts(um_of(px, matrix), names, random.uniform(5, 40, count), matrix, cells)


def write_bundle(folder: Path, section: Transcripts, *, as_bytes: bool = False, **changed: object) -> Path:
    """Write a bundle with its alignment as 3 x 3 numbers; a column that is changed to None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment = {"pixel_size": PIXEL_UM, "analysis_sw_version": "xenium-3.0.0.15", "run_name": "toy"}
    (folder / "experiment.xenium").write_text(json.dumps(experiment))
    names = [name.encode() for name in section.names] if as_bytes else list(section.names)
    table: dict[str, object] = {
        "transcript_id": np.arange(len(names)),
        "cell_id": ["UNASSIGNED"] * len(names),
        "overlaps_nucleus": np.zeros(len(names), np.uint8),
        "feature_name": names,
        "x_location": section.xy[:, 0].astype(np.float32),
        "y_location": section.xy[:, 1].astype(np.float32),
        "qv": section.qv.astype(np.float32),
    } | changed
    stored = pa.table({name: values for name, values in table.items() if values is not None})
    pq.write_table(stored, folder / "transcripts.parquet", row_group_size=1000)
    np.savetxt(folder / "toy_he_imagealignment.csv", section.matrix, delimiter=",", fmt="%.12g")
    write_cells(folder, section.cells, [f"aaaa{number:04d}-1" for number in range(len(section.cells))])
    return folder


def write_cells(folder: Path, cells: Float64[np.ndarray, "cell 2"], ids: Sequence[object]) -> None:
    """Write the table of cells, and their matrix: cell n has n % 7 + 1 of gene 0, and one of each control."""
    stored = pa.table({"cell_id": ids, "x_centroid": cells[:, 0], "y_centroid": cells[:, 1]})
    pq.write_table(stored, folder / "cells.parquet")
    names = [*GENES, *CONTROLS]
    counts = np.zeros((len(ids), len(names)), np.int64)
    counts[:, 0] = np.arange(len(ids)) % 7 + 1
    counts[:, len(GENES) :] = 1
    matrix = sp.csr_matrix(counts)
    barcodes = [one if isinstance(one, bytes) else str(one).encode() for one in ids]
    kinds = ["Gene Expression"] * len(GENES) + list(CONTROLS.values())
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        for name in ("data", "indices", "indptr"):
            file[f"matrix/{name}"] = getattr(matrix, name)
        file["matrix/shape"] = np.array(counts.shape[::-1])
        file["matrix/barcodes"] = np.array(barcodes, dtype="S16")
        file["matrix/features/id"] = np.array([f"ENSG{n:011d}.{n}".encode() for n in range(len(names))])
        file["matrix/features/name"] = np.array([name.encode() for name in names])
        file["matrix/features/feature_type"] = np.array([kind.encode() for kind in kinds])


def write_points(
    path: Path, matrix: Float64[np.ndarray, "3 3"], px: Float64[np.ndarray, "point 2"], off_um: float = 0.0
) -> None:
    """Write pairs of points; the first fixed one is off by so many um."""
    fixed = um_of(px, matrix) / PIXEL_UM
    fixed[0, 0] += off_um / PIXEL_UM
    rows = [",".join(f"{value:.9g}" for value in (*one, *other)) for one, other in zip(fixed, px, strict=True)]
    path.write_text("\n".join(["fixedX,fixedY,alignmentX,alignmentY", *rows]) + "\n")


def source_of(
    bundle: Path, alignment: Path | None = None, image_px: tuple[int, int] | None = (4000, 3000), **options: object
) -> SectionSource:
    """Return a section of this bundle; every square with a count is kept, unless the options say otherwise."""
    every = {"min_counts": 0.0, "square_counts": 1} | options
    return SectionSource(
        "S1",
        "S1",
        "P1",
        "xenium",
        StoragePath.of(bundle),
        None if alignment is None else StoragePath.of(alignment),
        image_px=image_px,
        options=SectionOptions(**every),  # type: ignore[arg-type]  # options of one type each
    )
