"""Predictions as AnnData that scanpy and squidpy plot unchanged.

X holds the prediction, `layers["measured"]` the truth where there is one, `obsm["spatial"]` the centres (x = column,
y = row) in level-0 px, `uns["spatial"][library]` a thumbnail and its scale, `uns["raystp"]` where it all came from.
Without a thumbnail `sc.pl.spatial` wants `img_key=None`; `sc.pl.embedding(basis="spatial")` draws either.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, UInt8

from raystp.errors import ModelError, SectionError, some
from raystp.storage import StoragePath, is_safe_name
from raystp.units import Level0Pixels


@dataclass(frozen=True)
class SlideOverview:
    """A small picture of the whole slide, and how many of its pixels one level-0 pixel makes (below 1)."""

    pixels: UInt8[np.ndarray, "height width 3"]
    scale: float


@dataclass(frozen=True)
class TileTable:
    """Where predictions lie: the library (a section's or slide's name), spots' names and centres in level-0 px."""

    library: str
    names: list[str]
    centres: Float64[np.ndarray, "spot 2"]
    diameter: Level0Pixels
    thumbnail: SlideOverview | None = None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.centres):
            msg = f"library '{self.library}' has {len(self.names)} names for {len(self.centres)} centres: one each"
            raise SectionError(msg)
        if not is_safe_name(self.library):
            msg = f"library '{self.library}' cannot name a group in a file: letters, digits, '.', '_' and '-' would do"
            raise SectionError(msg)
        _check_distinct(self.names, f"spot names of library '{self.library}'")


def prediction_to_anndata(
    expression: Float32[np.ndarray, "spot gene"],
    genes: list[str],
    places: TileTable,
    *,
    measured: ad.AnnData | None = None,
    maps: Mapping[str, Float32[np.ndarray, "spot gene"]] | None = None,
    provenance: Mapping[str, Any],
) -> ad.AnnData:
    """Return one library's prediction as AnnData, spots and genes in the order given.

    `measured` holds the truth in X in the model's own scale (log1p of counts per 10,000), and is matched by name; its
    obs columns come along. `maps` are layers: what else a model says of each spot and gene. `provenance` (model
    fingerprint, protocol, ...) is what `uns["raystp"]` will say: text, numbers, lists of them, and mappings to them,
    which is what an h5ad can hold.

    Raises:
        ModelError: a prediction is not finite, or names and numbers differ in count.
        SectionError: names are not distinct, or a spot or gene was not measured.
    """
    if expression.shape != (len(places.names), len(genes)):
        msg = f"library '{places.library}': predictions of shape {expression.shape} for {len(places.names)} spots and "
        raise ModelError(msg + f"{len(genes)} genes: one row a spot and one column a gene are wanted")
    _check_distinct(genes, "genes of the model")
    bad = [genes[column] for column in np.flatnonzero(~np.isfinite(expression).all(axis=0)).tolist()]
    if bad:
        msg = f"library '{places.library}': predictions are not finite for {len(bad)} genes ({some(bad)})"
        raise ModelError(msg + ": check the model and its embeddings")
    truth = None if measured is None else matched(measured, genes, places)
    return ad.AnnData(
        X=expression,
        obs=pd.DataFrame(index=pd.Index(places.names)) if truth is None else truth.obs.copy(),
        var=pd.DataFrame(index=pd.Index(genes)),
        obsm={"spatial": places.centres},
        layers={**({} if truth is None else {"measured": dense(truth)}), **(maps or {})},
        uns=described(places, provenance),
    )


def write_prediction(place: StoragePath, adata: ad.AnnData) -> None:
    """Write an h5ad, whole or not at all, without compression.

    Means over 50 neighbours hardly compress: on made-up expression (4,000 x 3,467, 12 % dense before, one run)
    lzf wrote 81 MB/s at 1.00 of the size and gzip 21 MB/s at 0.88, against 2,330 MB/s without.
    """
    place.write_file(adata.write_h5ad)


def described(places: TileTable, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prediction's `uns`."""
    return {"spatial": {places.library: _library(places)}, "raystp": dict(provenance)}


def matched(measured: ad.AnnData, genes: list[str], places: TileTable) -> ad.AnnData:
    """Return the truth of the predicted spots and genes, in their order; raises SectionError for one not measured."""
    spots = [name for name in places.names if name not in measured.obs_names]
    unknown = [gene for gene in genes if gene not in measured.var_names]
    if spots or unknown:
        msg = (
            f"library '{places.library}': {len(spots)} predicted spots ({some(spots)}) and {len(unknown)} genes "
            f"({some(unknown)}) were not measured: predict the measured ones, or pass no measurement"
        )
        raise SectionError(msg)
    return measured[places.names, genes]


def dense(truth: ad.AnnData) -> Float32[np.ndarray, "spot gene"]:
    """Return a truth's values as plain rows."""
    values = truth.X if isinstance(truth.X, np.ndarray) else truth.X.toarray()
    return np.ascontiguousarray(values, np.float32)


def _library(places: TileTable) -> dict[str, Any]:
    """Return what readers of Space Ranger's output put under `uns["spatial"][library]`."""
    # Without a picture the scale is 1, as squidpy looks for it all the same.
    scales = {"spot_diameter_fullres": float(places.diameter), "tissue_hires_scalef": 1.0}
    images: dict[str, np.ndarray] = {}
    if places.thumbnail is not None:
        images["hires"] = places.thumbnail.pixels
        scales["tissue_hires_scalef"] = float(places.thumbnail.scale)
    return {"images": images, "scalefactors": scales, "metadata": {}}


def _check_distinct(names: list[str], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        msg = f"the {what} must be distinct, {some(twice)} came more than once"
        raise SectionError(msg)
