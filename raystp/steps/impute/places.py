"""Where a slide's tiles lie, what was measured there, and the slide's small picture: what an AnnData says of itself."""

import io

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.expression.schema import read_section
from raystp.expression.sections import load_counts, sections_of
from raystp.impute.writer import SlideOverview, TileTable
from raystp.storage import StoragePath
from raystp.units import Level0Pixels


def places_of(
    slide: str, table: pa.Table, genes: list[str], *, embed: Artifact, spots: Artifact | None
) -> tuple[TileTable, ad.AnnData | None]:
    """Return where a slide's tiles lie, and what was measured there, if it was."""
    x, y, side = (table[name].to_numpy() for name in ("x", "y", "side"))
    names = table["spot"].to_pylist()
    measured, diameter = None, float(side[0]) if len(side) else 1.0
    centres = np.stack([x + side / 2, y + side / 2], axis=1)
    section = _section(spots, slide)
    if spots is not None and section is not None and all(names):
        counts = load_counts(spots, section)
        diameter = counts.diameter_px
        at = {spot: row for row, spot in enumerate(counts.spots)}
        centres = counts.xy[[at[name] for name in names]]  # as measured; a tile's corner is rounded to a whole pixel
        source = read_section(spots.path / "sections" / f"{section}.h5ad")
        measured = ad.AnnData(counts.expression(genes), obs=source.obs, var=pd.DataFrame(index=pd.Index(genes)))
    numbered = zip(names, table["tile"].to_pylist(), strict=True)
    names = [spot or f"{slide}-{tile:06d}" for spot, tile in numbered]
    return TileTable(slide, names, centres, Level0Pixels(diameter), thumbnail_of(embed, slide)), measured


def _section(spots: Artifact | None, slide: str) -> str | None:
    """Return the section that was measured on a slide."""
    known = sections_of(spots) if spots is not None else {}
    return next((name for name, one in known.items() if one["slide"] == slide), None)


def thumbnail_of(embed: Artifact, slide: str) -> SlideOverview:
    """Return the slide's small picture, from the tiles that the embeddings were made of."""
    tile = open_artifact(StoragePath(embed.manifest.notes["tiles"]), "tile")
    content = (tile.path / "thumbnails" / f"{slide}.png").read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    rows = tile.table("slides.parquet", tables.SLIDES).to_pylist()
    width = next(row["width"] for row in rows if row["slide"] == slide)
    return SlideOverview(pixels, pixels.shape[1] / width)
