"""Read Space Ranger's output (Visium: 55 um spots, 100 um apart): counts, tissue positions, scale factors.

Counts: `*filtered_feature_bc_matrix.h5`, the folder of the three text files, or the `outs` folder that holds either and
`spatial/`. Positions: `tissue_positions.csv` (with a header) or `tissue_positions_list.csv` (without); the pixel ROW
comes before the pixel COLUMN. Only spots in tissue are kept.

um/px comes from the pitch of all spots of the array. `spot_diameter_fullres` is no measure of it: by that pitch it is
64.9 um in a real output (Vis5A of GSE161318), where the printed spot is 55 um. It is used as a cross-check only.
"""

import json
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd

from raystp.errors import SectionError, some
from raystp.expression.readers.matrices import CountMatrix, read_matrix
from raystp.expression.readers.pitch import HEXAGONAL, SpotLattice, fit_lattice
from raystp.expression.readers.source import Notes, SectionSource, match_barcodes, note_dropped, resolve_mpp
from raystp.expression.schema import SectionInfo, SpotPositions, make_section
from raystp.storage import StoragePath

PITCH_UM = 100.0
SPOT_DIAMETER_UM = 55.0
DRAWN_DIAMETER_UM = (50.0, 72.0)
"""Range of `spot_diameter_fullres` in um: 65 in Space Ranger's files, 55 in those of some converters."""

COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
POSITION_FILES = ("tissue_positions.csv", "tissue_positions_list.csv")


@dataclass(frozen=True)
class _Spatial:
    """The `spatial/` folder: a row per spot of the array, and Space Ranger's scale factors."""

    positions: pd.DataFrame
    scalefactors: dict[str, float]


def read_space_ranger(source: SectionSource) -> tuple[ad.AnnData, Notes]:
    """Read a section's spots in tissue and what was dropped or renamed.

    Every gene symbol that occurs more than once gets its id appended (`symbol_id`), because the symbol alone is
    ambiguous. Raises SectionError where a file is not of this layout.
    """
    matrix = read_matrix(source.counts, source.origin)
    spatial = _read_spatial(source)
    lattice = fit_lattice(
        spatial.positions[["array_col", "array_row"]].to_numpy(np.float64),
        spatial.positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64),
        HEXAGONAL,
        source.origin,
    )
    section, notes = _join(source, matrix, spatial, lattice)
    renamed = int(sum(np.asarray(section.var_names != matrix.symbols)))
    return section, {**notes, "dropped_features": matrix.other_features, "renamed_genes": renamed}


def _join(
    source: SectionSource, matrix: CountMatrix, spatial: _Spatial, lattice: SpotLattice | None
) -> tuple[ad.AnnData, Notes]:
    table = spatial.positions
    in_tissue = (table["in_tissue"] != 0).to_numpy()
    outside = set(table["barcode"][~in_tissue])
    off_tissue = [name for name in matrix.barcodes if name in outside]
    kept = [row for row, name in enumerate(matrix.barcodes) if name not in outside]
    inside = table["barcode"][in_tissue].tolist()
    match = match_barcodes([matrix.barcodes[row] for row in kept], inside, source.origin)
    notes = match.notes
    note_dropped(notes, "off_tissue", off_tissue)
    mpp = resolve_mpp(source, PITCH_UM / lattice.pitch_px if lattice else None, notes)
    notes["mirrored"] = bool(lattice and lattice.mirrored)
    _cross_check(source, spatial.scalefactors, mpp, notes)

    rows = np.asarray(kept, dtype=np.int64)[match.counts]
    counts = matrix.counts[rows]
    nonzero = np.asarray(counts.sum(axis=1)).ravel() != 0
    note_dropped(notes, "empty", [matrix.barcodes[row] for row in rows[~nonzero]])
    positions = table[in_tissue].iloc[match.positions[nonzero]]
    spots = SpotPositions(
        names=positions["barcode"].tolist(),
        xy=positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64),
        array_row=positions["array_row"].to_numpy(np.float64),
        array_col=positions["array_col"].to_numpy(np.float64),
    )
    info = SectionInfo(
        section=source.section,
        patient=source.patient,
        slide=source.slide,
        mpp=mpp,
        spot_diameter_um=SPOT_DIAMETER_UM,
        pitch_um=PITCH_UM,
        layout="space_ranger",
    )
    names = unique_symbols(matrix.symbols, matrix.ids)
    factors = spatial.scalefactors
    return make_section(counts[nonzero], names, spots, info, gene_ids=matrix.ids, scalefactors=factors), notes


def unique_symbols(symbols: list[str], ids: list[str]) -> list[str]:
    """Return the symbols, with `_id` appended to every one that occurs more than once."""
    repeated = pd.Index(symbols).duplicated(keep=False)
    return [f"{symbol}_{gene}" if again else symbol for symbol, gene, again in zip(symbols, ids, repeated, strict=True)]


def _cross_check(source: SectionSource, scalefactors: dict[str, float], mpp: float, notes: Notes) -> None:
    if "spot_diameter_fullres" not in scalefactors:
        return
    drawn = scalefactors["spot_diameter_fullres"] * mpp
    notes["scalefactors_spot_diameter_um"] = drawn
    least, most = DRAWN_DIAMETER_UM
    if not least <= drawn <= most:
        msg = (
            f"{source.origin}: a spot of the scale factors is {drawn:.1f} um across at {mpp:.4g} um/px "
            f"({notes['mpp_from']}), not {least:g} to {most:g}: positions and scale factors belong to different images"
        )
        raise SectionError(msg)


def _read_spatial(source: SectionSource) -> _Spatial:
    path = source.positions
    if path is None and not source.counts.name.endswith(".h5") and "spatial" in source.counts.names():
        path = source.counts / "spatial"
    if path is None:
        msg = (
            f"{source.origin} has no positions: give its spatial folder, or the file {' or '.join(POSITION_FILES)} "
            "in it"
        )
        raise SectionError(msg)
    folder = path
    if path.name.endswith((".csv", ".parquet")):
        head, question_mark, query = path.uri.partition("?")
        folder = StoragePath(f"{head.rpartition('/')[0]}{question_mark}{query}")
    else:
        found = [name for name in POSITION_FILES if name in path.names()]
        if not found:
            msg = f"{source.origin}: no {' or '.join(POSITION_FILES)} in {path}; there are {some(path.names(), 8)}"
            raise SectionError(msg)
        path = folder / found[0]
    return _Spatial(_read_positions(path, source.origin), _read_scalefactors(folder / "scalefactors_json.json"))


def _read_positions(path: StoragePath, origin: str) -> pd.DataFrame:
    if path.name.endswith(".parquet"):
        msg = (
            f"{origin}: {path} is of Visium HD, whose bins are not spots: convert it to h5ad, and use the layout "
            "`scverse`"
        )
        raise SectionError(msg)
    path.size()
    try:
        with path.local() as local:
            frame = pd.read_csv(local, header=None, dtype=str, keep_default_na=False)
        if frame.iloc[0, 0] == "barcode":
            frame = frame.iloc[1:].set_axis(frame.iloc[0].tolist(), axis="columns")
        elif frame.shape[1] == len(COLUMNS):
            frame = frame.set_axis(COLUMNS, axis="columns")
        return frame[COLUMNS].astype(dict.fromkeys(COLUMNS[1:], np.float64))
    except (ValueError, OSError, KeyError) as error:
        msg = f"{origin}: {path} is not a table of tissue positions ({', '.join(COLUMNS)}): {error}"
        raise SectionError(msg) from None


def _read_scalefactors(path: StoragePath) -> dict[str, float]:
    """Return Space Ranger's scale factors; none without the file."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes())
        return {str(name): float(value) for name, value in values.items()}
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"{path} is not a JSON object of scale factors: {error}"
        raise SectionError(msg) from None
