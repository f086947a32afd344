"""The tiles of a slide beside its predictions: names, centres, thumbnail, and what was measured there."""

import io

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.expression.schema import read_section
from raystp.expression.sections import ModelLabels, load_counts, sections_of
from raystp.impute.writer import SlideOverview, TileTable
from raystp.units import Level0Pixels


def tile_table(
    slide: str,
    tiles: pa.Table,
    genes: list[str],
    *,
    embeddings: Artifact,
    spots: Artifact | None,
    labels: ModelLabels,
) -> tuple[TileTable, ad.AnnData | None]:
    """Return names and centres of a slide's tiles, and the measured expression of their spots where there is any.

    Measured expression is of the kind of the model's `labels`, whose genes include `genes`. By default, a gene that the
    section has not measured is NaN.
    """
    x, y, side = (tiles[name].to_numpy() for name in ("x", "y", "side"))
    names = tiles["spot"].to_pylist()
    measured, diameter = None, float(side[0]) if len(side) else 1.0
    centres = np.stack([x + side / 2, y + side / 2], axis=1)
    section = _section_on(spots, slide)
    counts = load_counts(spots, section) if spots is not None and section is not None and all(names) else None
    row_of = {} if counts is None else {spot: row for row, spot in enumerate(counts.spots)}
    # Image patches may be tiled without their spots, and then some may have none.
    if spots is not None and counts is not None and all(name in row_of for name in names):
        diameter = counts.diameter_px
        centres = counts.xy[[row_of[name] for name in names]]  # as measured: a tile's corner is rounded to a pixel
        source = read_section(spots.path / "sections" / f"{section}.h5ad")
        values = labels.values(counts)
        if tuple(genes) != labels.genes:
            column_of = {gene: column for column, gene in enumerate(labels.genes)}
            values = np.ascontiguousarray(values[:, [column_of[gene] for gene in genes]])
        measured = ad.AnnData(values, obs=source.obs, var=pd.DataFrame(index=pd.Index(genes)))
    numbered = zip(names, tiles["tile"].to_pylist(), strict=True)
    names = [spot or f"{slide}-{tile:06d}" for spot, tile in numbered]
    return TileTable(slide, names, centres, Level0Pixels(diameter), thumbnail_of(embeddings, slide)), measured


def _section_on(spots: Artifact | None, slide: str) -> str | None:
    """Return the section that was measured on a slide."""
    sections = sections_of(spots) if spots is not None else {}
    return next((name for name, section in sections.items() if section["slide"] == slide), None)


def thumbnail_of(embeddings: Artifact, slide: str) -> SlideOverview:
    """Return a slide's thumbnail, from the tiles that were embedded."""
    tiles = open_artifact(embeddings.noted(embeddings.manifest.notes["tiles"]), "tile")
    content = (tiles.path / "thumbnails" / f"{slide}.png").read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    rows = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    width = next(row["width"] for row in rows if row["slide"] == slide)
    return SlideOverview(pixels, pixels.shape[1] / width)
