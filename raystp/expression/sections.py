"""Join the measured spots of a section with their tiles or embeddings. Training reads sections through this module."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import anndata as ad
import h5py
import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float32, Float64, Int64

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import SectionError
from raystp.expression.embeddings.join import JoinedEmbeddings
from raystp.expression.embeddings.read import read_embeddings
from raystp.expression.genes.names import NO_ALIASES, Aliases, GeneNames, check_shared
from raystp.expression.label_values import SpotArray, label_values
from raystp.expression.labels import DEFAULT_LABELS, Labels
from raystp.expression.schema import SectionInfo, read_section, section_info
from raystp.hdf5 import checked_hdf5
from raystp.storage import StoragePath


class SectionEntry(TypedDict):
    """The entry of one section in the manifest of the spots."""

    patient: str
    slide: str
    mpp: float
    spots: int
    genes: int
    notes: dict[str, object]
    """What the reader dropped or assumed."""


@dataclass(frozen=True)
class SectionCounts:
    """The measured spots of a section, all genes."""

    section: str
    slide: str
    patient: str
    spots: list[str]
    xy: Float64[np.ndarray, "spot 2"]
    """Centres, in level-0 px."""
    matrix: sp.csr_matrix
    """Raw counts, spots x genes."""
    genes: list[str]
    diameter_px: float
    """Diameter of a spot, in level-0 px."""
    gene_ids: tuple[str, ...] | None = None
    """Ensembl ids of the genes, where the section has them."""
    array: SpotArray | None = None
    """Where the spots are on the array: read by smoothed labels."""
    selected_from: "tuple[SectionCounts, Int64[np.ndarray, 'spot']] | None" = None
    """All measured spots of the section and the rows of these: a spot that is left out is still a neighbour."""

    @property
    def gene_names(self) -> GeneNames:
        """Names and ids of the genes."""
        return GeneNames(tuple(self.genes), self.gene_ids)

    def expression(
        self, genes: Sequence[str], aliases: Aliases = NO_ALIASES, labels: Labels = DEFAULT_LABELS
    ) -> Float32[np.ndarray, "spot gene"]:
        """Return the labels of the spots over `genes`, which are the whole panel where `labels` divide by its total.

        By default log1p CP10k over all genes of the section, and an unmeasured gene is NaN.
        """
        if labels.smooth != "none" and self.selected_from is not None:
            whole, rows = self.selected_from
            own: Float32[np.ndarray, "spot gene"] = whole.expression(genes, aliases, labels)[rows]
            return own
        return label_values(self.matrix, self.gene_names.find(genes, aliases), labels, self.array)

    @property
    def totals(self) -> Float64[np.ndarray, "spot"]:
        """Total counts of each spot."""
        return np.asarray(self.matrix.sum(axis=1), np.float64).ravel()

    def select(self, rows: Sequence[int]) -> "SectionCounts":
        """Return only these rows, in this order."""
        at = np.asarray(rows, np.int64)
        whole, earlier = (self, at) if self.selected_from is None else self.selected_from
        return replace(
            self,
            spots=[self.spots[row] for row in rows],
            xy=self.xy[rows],
            matrix=self.matrix[rows],
            array=None,
            selected_from=(whole, at if whole is self else earlier[at]),
        )


@dataclass(frozen=True)
class ModelLabels:
    """The genes of a model, and what its labels are: all that its predictions are compared with."""

    genes: tuple[str, ...]
    aliases: Aliases = field(default_factory=dict)
    """Other names of the genes."""
    labels: Labels = DEFAULT_LABELS

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> "ModelLabels":
        """Return those of a model's record; raises ModelError for labels that this version does not know."""
        return cls(tuple(meta["genes"]), meta.get("gene_aliases", {}), Labels.of(meta))

    def values(self, counts: SectionCounts) -> Float32[np.ndarray, "spot gene"]:
        """Return the measured labels of a section's spots."""
        return counts.expression(self.genes, self.aliases, self.labels)


@dataclass(frozen=True)
class JoinedSection:
    """The measured spots of a section with their tiles, in the order of the counts."""

    counts: SectionCounts
    boxes: Float64[np.ndarray, "spot 3"]
    """Tile boxes (x, y, side), in level-0 px."""
    features: Float32[np.ndarray, "spot feature"]
    """Embeddings of the tiles; no columns without embeddings."""


def sections_of(spots: Artifact) -> dict[str, SectionEntry]:
    """Return the entry of each section in the spots' manifest."""
    return dict(spots.manifest.notes["sections"])


def load_counts(spots: Artifact, section: str) -> SectionCounts:
    """Read a section of the spots artifact; raises SectionError, with the known sections, for an unknown one."""
    known = sections_of(spots)
    if section not in known:
        msg = f"no section '{section}' in the spots {spots.path}; there are {', '.join(known)}"
        raise SectionError(msg)
    adata = read_section(spots.path / "sections" / f"{section}.h5ad")
    info = section_info(adata)
    return SectionCounts(
        section=section,
        slide=info.slide,
        patient=info.patient,
        spots=[str(name) for name in adata.obs_names],
        xy=np.asarray(adata.obsm["spatial"], np.float64),
        matrix=sp.csr_matrix(adata.X),
        genes=[str(name) for name in adata.var_names],
        diameter_px=info.spot_diameter_um / info.mpp,
        gene_ids=GeneNames.of(adata).ids,
        array=_array_of(adata, info),
    )


def _array_of(adata: ad.AnnData, info: SectionInfo) -> SpotArray:
    """Return the spots' array coordinates; positions in pitches where the section was read without any."""
    places = np.stack([np.asarray(adata.obs[name], np.float64) for name in ("array_col", "array_row")], axis=1)
    xy = np.asarray(adata.obsm["spatial"], np.float64)
    stand_in = np.array_equal(places, xy)  # as the readers fill them in
    return SpotArray(xy * (info.mpp / info.pitch_um) if stand_in else places, has_coordinates=not stand_in)


def gene_names_of(spots: Artifact, sections: Iterable[str]) -> dict[str, GeneNames]:
    """Return the gene names of some sections; their counts are not read."""
    return {section: _read_gene_names(spots.path / "sections" / f"{section}.h5ad") for section in sections}


def check_panel(
    counts: SectionCounts, genes: Sequence[str], aliases: Aliases, *, spots: Artifact, others: Iterable[str]
) -> None:
    """Raise SectionError where a section's genes have other names than the panel's; see `check_shared`.

    `others` are the sections whose names the panel has.
    """
    found = counts.gene_names.find(genes, aliases)
    known = (gene_names_of(spots, [one])[one] for one in others if one != counts.section)
    check_shared(counts.section, counts.gene_names, genes, found, others=known)


@functools.lru_cache(maxsize=1024)
def _read_gene_names(file: StoragePath) -> GeneNames:
    with checked_hdf5(file, SectionError) as local, h5py.File(local, "r") as h5ad:
        return GeneNames.of(ad.AnnData(var=ad.io.read_elem(h5ad["var"])))


def embeddings_of(embed: Artifact, slide: str) -> pa.Table:
    """Return the committed embeddings of a slide, joined where `embed` is; raises ArtifactError where it has none."""
    return embed.read(slide) if isinstance(embed, JoinedEmbeddings) else read_embeddings(embed, slide)


def join_embeddings(counts: SectionCounts, embed: Artifact) -> JoinedSection:
    """Join a section with the embeddings of its tiles by spot id; spots without a tile are left out."""
    table = embeddings_of(embed, counts.slide)
    rows, matched = _match_spots(counts, table)
    return JoinedSection(matched, _boxes(table, rows), tables.matrix(table["vector"])[rows])


def join_tiles(counts: SectionCounts, tile: Artifact) -> JoinedSection:
    """Join a section with its tile boxes by spot id; spots without a tile are left out."""
    table = tile.table(f"tiles/{counts.slide}.parquet", tables.TILES)
    rows, matched = _match_spots(counts, table)
    return JoinedSection(matched, _boxes(table, rows), np.empty((len(rows), 0), np.float32))


def _match_spots(counts: SectionCounts, table: pa.Table) -> tuple[list[int], SectionCounts]:
    """Return the table's rows of the spots that have a tile, and the counts of those spots."""
    row_of = {spot: row for row, spot in enumerate(table["spot"].to_pylist()) if spot is not None}
    kept = [row for row, spot in enumerate(counts.spots) if spot in row_of]
    if not kept:
        msg = (
            f"none of the {len(counts.spots)} spots of section '{counts.section}' has a tile on slide "
            f"'{counts.slide}': tile around these spots (`raystp tile --set spots=spots/<name>`), then embed"
        )
        raise SectionError(msg)
    return [row_of[counts.spots[row]] for row in kept], counts.select(kept)


def _boxes(table: pa.Table, rows: list[int]) -> Float64[np.ndarray, "spot 3"]:
    return np.stack([table[name].to_numpy()[rows] for name in ("x", "y", "side")], axis=1)
