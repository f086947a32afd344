"""Pairs: measured spots joined with what their tiles show, section by section. What `train` learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float32, Float64

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import ArtifactError, SectionError
from raystp.expression.normalise import log1p_cp10k
from raystp.expression.schema import read_section


@dataclass(frozen=True)
class SectionCounts:
    """A section's measured spots, all genes."""

    section: str
    slide: str
    patient: str
    spots: list[str]
    xy: Float64[np.ndarray, "spot 2"]
    """Centres, in level-0 px."""
    matrix: sp.csr_matrix
    genes: list[str]
    diameter_px: float
    """Diameter of a spot, in level-0 px."""

    def expression(self, genes: Sequence[str]) -> Float32[np.ndarray, "spot gene"]:
        """Return log1p CP10k over all genes of the section, then the columns of `genes`; an unmeasured gene is 0."""
        at = {gene: column for column, gene in enumerate(self.genes)}
        chosen = np.zeros((len(self.spots), len(genes)), np.float32)
        known = [column for column, gene in enumerate(genes) if gene in at]
        measured = np.asarray([at[genes[column]] for column in known], np.int64)
        chosen[:, known] = log1p_cp10k(self.matrix, columns=measured)
        return chosen

    @property
    def totals(self) -> Float64[np.ndarray, "spot"]:
        """Total counts of each spot."""
        return np.asarray(self.matrix.sum(axis=1), np.float64).ravel()

    def select(self, rows: Sequence[int]) -> "SectionCounts":
        """Return these rows alone."""
        spots = [self.spots[row] for row in rows]
        return SectionCounts(
            self.section,
            self.slide,
            self.patient,
            spots,
            self.xy[rows],
            self.matrix[rows],
            self.genes,
            self.diameter_px,
        )


@dataclass(frozen=True)
class JoinedSection:
    """A section's measured spots with their tiles, in the order of the counts."""

    counts: SectionCounts
    boxes: Float64[np.ndarray, "spot 3"]
    """Tile boxes (x, y, side), in level-0 px."""
    features: Float32[np.ndarray, "spot feature"]
    """The tiles' embeddings; without embeddings, no columns."""


def sections_of(spots: Artifact) -> dict[str, dict[str, Any]]:
    """Return what the spots' manifest says of each section: patient, slide, numbers."""
    return dict(spots.manifest.notes["sections"])


def load_counts(spots: Artifact, section: str) -> SectionCounts:
    """Read a section of the spots artifact; raises SectionError, listing the sections, where it is not in there."""
    known = sections_of(spots)
    if section not in known:
        msg = f"no section '{section}' among the spots {spots.path}; there are {', '.join(known)}"
        raise SectionError(msg)
    adata = read_section(spots.path / "sections" / f"{section}.h5ad")
    mark = adata.uns["raystp"]
    return SectionCounts(
        section,
        str(mark["slide"]),
        str(mark["patient"]),
        [str(name) for name in adata.obs_names],
        np.asarray(adata.obsm["spatial"], np.float64),
        sp.csr_matrix(adata.X),
        [str(name) for name in adata.var_names],
        float(mark["spot_diameter_um"]) / float(mark["mpp"]),
    )


def embeddings_of(embed: Artifact, slide: str) -> pa.Table:
    """Return a slide's committed embeddings, its units in order; raises ArtifactError where it has none."""
    notes = embed.manifest.notes
    units = notes["units"].get(slide)
    if units is None:
        failed = {row["slide"]: row["reason"] for row in embed.failures().to_pylist()}
        why = f"it failed there: {failed[slide]}" if slide in failed else f"there are {', '.join(notes['units'])}"
        msg = f"slide '{slide}' has no embeddings in {embed.path}; {why}"
        raise ArtifactError(msg)
    folder = embed.path / "embeddings" / slide
    if not units:
        return tables.embeddings(1, precision=notes["precision"]).empty_table()
    parts = [(folder / f"{unit}.parquet").read_table() for unit in units]
    dim = parts[0].schema.field("vector").type.list_size
    for unit, part in zip(units, parts, strict=True):
        tables.check(part.schema, tables.embeddings(dim, precision=notes["precision"]), str(folder / f"{unit}.parquet"))
    return pa.concat_tables(parts)


def join_embeddings(measured: SectionCounts, embed: Artifact) -> JoinedSection:
    """Join a section with its tiles' embeddings on the spots' ids; spots without a tile are left out."""
    table = embeddings_of(embed, measured.slide)
    rows, kept = _matched(measured, table)
    return JoinedSection(kept, _boxes(table, rows), tables.matrix(table["vector"])[rows])


def join_tiles(measured: SectionCounts, tile: Artifact) -> JoinedSection:
    """Join a section with its tiles' places on the spots' ids; spots without a tile are left out."""
    table = tile.table(f"tiles/{measured.slide}.parquet", tables.TILES)
    rows, kept = _matched(measured, table)
    return JoinedSection(kept, _boxes(table, rows), np.empty((len(rows), 0), np.float32))


def _matched(measured: SectionCounts, table: pa.Table) -> tuple[list[int], SectionCounts]:
    at = {spot: row for row, spot in enumerate(table["spot"].to_pylist()) if spot is not None}
    kept = [row for row, spot in enumerate(measured.spots) if spot in at]
    if not kept:
        msg = (
            f"none of the {len(measured.spots)} spots of section '{measured.section}' has a tile on slide "
            f"'{measured.slide}': tile around these spots (`raystp tile --set spots=spots/<name>`), then embed"
        )
        raise SectionError(msg)
    return [at[measured.spots[row]] for row in kept], measured.select(kept)


def _boxes(table: pa.Table, rows: list[int]) -> Float64[np.ndarray, "spot 3"]:
    return np.stack([table[name].to_numpy()[rows] for name in ("x", "y", "side")], axis=1)
