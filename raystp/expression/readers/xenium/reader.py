"""Parse a Xenium bundle: transcripts (or cells), pooled to squares on the um plane and placed on the H&E.

The slide is the H&E. A square of um is rotated where the alignment rotates; a tile is cut along the axes around its
centre. um/px of the H&E follows from the alignment, and not from the H&E's own file.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float64, Int64

from raystp.errors import SectionError
from raystp.expression.readers.pooled.matrix import pool_matrix, read_features
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.xenium.alignment import Alignment, read_alignment
from raystp.expression.readers.xenium.bundle import Bundle, find_bundle, read_experiment
from raystp.expression.readers.xenium.cells import cells_in_squares, place_cells
from raystp.expression.readers.xenium.features import Features
from raystp.expression.readers.xenium.grid import SquareGrid
from raystp.expression.readers.xenium.transcripts import LEAST_QV, count_transcripts
from raystp.expression.section_checks.lattice import SQUARE
from raystp.expression.section_checks.raw import LibraryFacts, Notes, RawGenes, RawPlaces, RawSection, rows_where, warn
from raystp.expression.section_checks.technology import Technology

DEFAULT_POOL_UM = 100.0
MAX_OUTSIDE = 0.5
"""Share of the squares outside of the H&E from which the alignment is wrong."""


@dataclass(frozen=True)
class _Counted:
    """Counts and cells of all squares of a grid."""

    grid: SquareGrid
    counts: sp.csr_matrix
    genes: RawGenes
    cells: Int64[np.ndarray, "square"]


def parse_xenium(source: SectionSource, notes: Notes) -> RawSection:
    """Parse a section; raises SectionError where a file is not of a bundle, and for an alignment that does not fit."""
    bundle = find_bundle(source)
    experiment = read_experiment(bundle.experiment, source.origin)
    alignment = read_alignment(bundle.alignment, experiment.pixel_um, source.origin)
    pool_um = source.options.pool_um or DEFAULT_POOL_UM
    count = _by_cells if source.options.xenium_from == "cells" else _by_transcripts
    counted = count(bundle, source, pool_um, notes)
    kept = rows_where(_has_enough(counted, source, notes))
    array = counted.grid.array_of(kept)
    xy = alignment.to_image((array + 0.5) * pool_um)
    inside = rows_where(_on_image(xy, source, notes))
    array, xy, kept = array[inside], xy[inside], kept[inside]
    names = [f"{pool_um:g}um_{row:05.0f}_{column:05.0f}" for column, row in array.tolist()]
    notes |= {"pool_um": pool_um, "spot_shape": "square", "xenium_version": experiment.version}
    _note_alignment(alignment, notes)
    return RawSection(
        counts=counted.counts[kept],
        spots=names,
        genes=counted.genes,
        places=RawPlaces(names=list(names), xy=xy, array=array),
        own_places=True,
        technology=Technology(
            f"Xenium, pooled to {pool_um:g} um", SQUARE, pool_um, pool_um, pool_um, mirrors=True, mpp_wins=False
        ),
        facts=LibraryFacts(stored_mpp=("the H&E alignment", alignment.mpp), mirroring=True),
        lattice_pitch_px=pool_um / alignment.mpp,
    )


def _by_transcripts(bundle: Bundle, source: SectionSource, pool_um: float, notes: Notes) -> _Counted:
    assert bundle.transcripts is not None  # `find_bundle` refuses a bundle without
    features = Features() if bundle.matrix is None else Features.of(read_features(bundle.matrix, source.origin))
    if bundle.matrix is None:
        warn(notes, "the bundle has no cell_feature_matrix.h5: a gene without a transcript is not known as measured")
    found = count_transcripts(bundle.transcripts, source.origin, features, pool_um)
    if bundle.cells is None:
        warn(notes, "the bundle has no cells.parquet: squares are kept by square_counts alone")
    cells = np.zeros(len(found.grid), np.int64)
    if bundle.cells is not None:
        cells = cells_in_squares(bundle.cells, source.origin, found.grid)
    notes["counts_from"] = bundle.transcripts.name
    notes["pooled"] = f"{found.counted:,} transcripts to squares of {pool_um:g} um"
    notes |= {"transcripts": found.counted, "least_qv": LEAST_QV, "dropped_low_quality": found.low_quality}
    notes["dropped_control_transcripts"] = found.controls
    return _Counted(found.grid, found.counts, features.genes(with_ids=bundle.matrix is not None), cells)


def _by_cells(bundle: Bundle, source: SectionSource, pool_um: float, notes: Notes) -> _Counted:
    assert bundle.cells is not None  # `find_bundle` refuses a bundle without both
    assert bundle.matrix is not None
    placed = place_cells(bundle.cells, source.origin, pool_um)
    found = pool_matrix(bundle.matrix, source.origin, len(placed.grid), placed.square_of)
    if placed.unknown > source.options.max_lost * found.barcodes:
        msg = (
            f"{source.origin}: {placed.unknown} of {found.barcodes} cells of {bundle.matrix.name} are not in "
            f"{bundle.cells.name}: the two files are of different sections, or set max_lost to accept it"
        )
        raise SectionError(msg)
    notes["counts_from"] = bundle.matrix.name
    notes["pooled"] = f"{len(placed.ids):,} cells to squares of {pool_um:g} um"
    notes |= {"cells": len(placed.ids), "dropped_cells_no_place": placed.unknown}
    features = Features.of(found.genes)
    cells = np.bincount(placed.squares, minlength=len(placed.grid))
    return _Counted(placed.grid, found.counts, features.genes(with_ids=True), cells)


def _has_enough(counted: _Counted, source: SectionSource, notes: Notes) -> Bool[np.ndarray, "square"]:
    """Return which squares have enough counts of genes, or enough cells and a count."""
    options = source.options
    kinds = Features.of(counted.genes)
    gene = np.asarray([kinds.is_gene(column) for column in range(len(kinds.names))], np.float64)
    total = np.asarray(counted.counts @ gene, np.float64)
    kept = (total > 0) & ((total >= options.square_counts) | (counted.cells >= options.square_cells))
    notes["dropped_sparse_squares"] = int(((total > 0) & ~kept).sum())
    if not kept.any():
        msg = (
            f"{source.origin}: none of its {int((total > 0).sum())} squares of {counted.grid.side_um:g} um with counts "
            f"has {options.square_counts} counts or {options.square_cells} cells: lower square_counts or square_cells, "
            "or set a larger pool_um"
        )
        raise SectionError(msg)
    return np.asarray(kept, bool)


def _on_image(xy: Float64[np.ndarray, "square 2"], source: SectionSource, notes: Notes) -> Bool[np.ndarray, "square"]:
    """Return which centres are on the H&E; raises SectionError where most are not."""
    if source.image_px is None:
        warn(notes, "the size of the H&E is unknown here: squares outside of it are left out by `tile` alone")
        return np.ones(len(xy), bool)
    inside = np.asarray(((xy >= 0) & (xy < np.asarray(source.image_px))).all(axis=1), bool)
    outside = int((~inside).sum())
    notes["dropped_outside_image"] = outside
    if outside > MAX_OUTSIDE * len(xy):
        low, high = xy.min(axis=0), xy.max(axis=0)
        msg = (
            f"{source.origin}: {outside} of {len(xy)} squares are outside of the H&E of {source.image_px[0]} x "
            f"{source.image_px[1]} px: by the alignment they are at x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to "
            f"{high[1]:.0f}. The alignment is of another image, or takes morphology px to H&E px and must be inverted"
        )
        raise SectionError(msg)
    return inside


def _note_alignment(alignment: Alignment, notes: Notes) -> None:
    """Note the map, and how well the points fit."""
    notes["alignment"] = [float(value) for value in alignment.matrix.ravel()]
    if alignment.residual_um is not None:
        notes["alignment_points"] = alignment.points
        notes["alignment_residual_um"] = alignment.residual_um
        notes["alignment_largest_um"] = alignment.largest_um
