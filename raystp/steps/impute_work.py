"""What one task of `impute` does: predict a slide, and write it as parquet and as AnnData."""

import functools
import io
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float32
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, open_place
from raystp.errors import RaystpError
from raystp.expression.schema import read_section
from raystp.impute.weights import WEIGHTS
from raystp.impute.writer import Places, Thumbnail, prediction_to_anndata, write_prediction
from raystp.index.bank import Bank, open_bank
from raystp.models.attention_predictor import AttentionPredictor
from raystp.models.predictor import Contrastive, Predictor, predictor
from raystp.models.store import load_model
from raystp.steps.pairs import embeddings_of, load_counts
from raystp.steps.train_direct import predict_slide
from raystp.storage import Place
from raystp.units import Level0Pixels


@dataclass(frozen=True)
class ImputeWork:
    """One slide to predict, and all that is needed for it."""

    slide: str
    section: str | None
    model: Artifact
    embed: Artifact
    index: Artifact | None
    spots: Artifact | None
    k: int
    weights: str
    exactly: bool
    protocol: str
    target: Place


def impute_slide(work: ImputeWork) -> int | str:
    """Predict one slide and write it; return its rows, or the sentence of a failure."""
    try:
        table = embeddings_of(work.embed, work.slide)
        ready, bank = _ready(work.model.place, work.index.place if work.index else None)
        expression = answer(ready, bank, table, k=work.k, weights=work.weights, exactly=work.exactly)
        spots = expression.shape[0]
        columns = [*(table[name].combine_chunks() for name in tables.TILES.names), tables.vectors(expression)]
        cohort = pa.Table.from_arrays(columns, schema=tables.predictions(len(ready.genes)))
        (work.target / "predictions" / f"{work.slide}.parquet").write_table(cohort)
        adata = _anndata(work, table, expression, ready)
        if isinstance(ready, AttentionPredictor):
            adata.var["slide"] = ready.predict_bag(tables.matrix(table["vector"]))
        write_prediction(work.target / "anndata" / f"{work.slide}.h5ad", adata)
    except RaystpError as error:
        return str(error)
    return int(spots)


@functools.lru_cache(maxsize=2)
def _ready(model: Place, index: Place | None) -> tuple[Predictor, Bank | None]:
    """Open a model and its bank once per process."""
    kind, arrays, meta = load_model(model)
    bank = open_bank(index, open_place(index, "index").manifest.notes["bank"]) if index else None
    return predictor(kind, arrays, meta), bank


def answer(
    ready: Predictor,
    bank: Bank | None,
    table: pa.Table,
    *,
    k: int,
    weights: str,
    exactly: bool,
) -> Float32[np.ndarray, "query gene"]:
    """Predict the tiles of a slide: directly, or through the k nearest rows of the bank."""
    features = tables.matrix(table["vector"])
    if not isinstance(ready, Contrastive):
        squares = np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)
        return predict_slide(ready, features, squares)
    assert bank is not None  # checked before any slide was begun
    queries = ready.embed_images(features)
    scores, rows = bank.search_exactly(queries, k) if exactly else bank.search(queries, k)
    way = WEIGHTS[weights]
    read = scores if way.reads == "scores" else bank.squared_distances(queries, rows)
    return bank.weighted_sum(way.weigh(read), rows)


def _anndata(
    work: ImputeWork, table: pa.Table, expression: Float32[np.ndarray, "tile gene"], ready: Predictor
) -> ad.AnnData:
    """Return a slide's prediction; of attention regression, with the maps of where it looked and what that gave."""
    genes = ready.genes
    x, y, side = (table[name].to_numpy() for name in ("x", "y", "side"))
    spots = table["spot"].to_pylist()
    names = [spot or f"{work.slide}-{tile:06d}" for spot, tile in zip(spots, table["tile"].to_pylist(), strict=True)]
    centres = np.stack([x + side / 2, y + side / 2], axis=1)
    measured, diameter = None, float(side[0]) if len(side) else 1.0
    if work.spots is not None and work.section is not None and all(spots):
        counts = load_counts(work.spots, work.section)
        diameter = counts.diameter_px
        at = {spot: row for row, spot in enumerate(counts.spots)}
        centres = counts.xy[[at[name] for name in names]]  # as measured; a tile's corner is rounded to a whole pixel
        source = read_section(work.spots.place / "sections" / f"{work.section}.h5ad")
        measured = ad.AnnData(counts.expression(genes), obs=source.obs, var=pd.DataFrame(index=pd.Index(genes)))
    places = Places(
        library=work.slide,
        names=names,
        centres=centres,
        diameter=Level0Pixels(diameter),
        thumbnail=thumbnail_of(work.embed, work.slide),
    )
    provenance = {"model": work.model.manifest.folder, "protocol": work.protocol, "schema_version": 1}
    maps: dict[str, Float32[np.ndarray, "tile gene"]] = {}
    if isinstance(ready, AttentionPredictor):
        found = ready.maps(tables.matrix(table["vector"]))
        maps = {name: np.ascontiguousarray(found[name]) for name in ("attention", "contribution")}
    return prediction_to_anndata(expression, genes, places, measured=measured, maps=maps, provenance=provenance)


def thumbnail_of(embed: Artifact, slide: str) -> Thumbnail:
    """Return the slide's small picture, from the tiles that the embeddings were made of."""
    tile = open_place(Place(embed.manifest.notes["tiles"]), "tile")
    content = (tile.place / "thumbnails" / f"{slide}.png").read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    rows = tile.table("slides.parquet", tables.SLIDES).to_pylist()
    width = next(row["width"] for row in rows if row["slide"] == slide)
    return Thumbnail(pixels, pixels.shape[1] / width)
