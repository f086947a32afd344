"""Open one predicted slide of `impute`: its files there, and what its tiles and embeddings know of it."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pyarrow as pa
import shapely

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.errors import ArtifactError
from raystp.expression.embeddings.read import read_embeddings
from raystp.interop.geojson import read_outlines
from raystp.interop.outputs.slide import Matrix, MeasuredSpots, SlideExpression
from raystp.steps.embedding_source import input_folders
from raystp.storage import StoragePath

PER_TILE = ("distance", "far")
"""Columns of obs that are exported."""

MEASURED = "measured"


@contextlib.contextmanager
def open_expression(predictions: Artifact, slide: str, *, vectors: bool = False) -> Iterator[SlideExpression]:
    """Yield a predicted slide, whose matrices are read from the open file as they are needed.

    With `vectors`, also its embeddings, of the first encoder. Raises ArtifactError where the embeddings or tiles that
    it was predicted from are no longer in the store.
    """
    embed = _input(predictions, input_folders(predictions.manifest.inputs, "embeddings")[0], "embed")
    tiles = _input(predictions, embed.manifest.notes["tiles"], "tile")
    rows = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    row = next(one for one in rows if one["slide"] == slide)
    places = (predictions.path / "predictions" / f"{slide}.parquet").read_table(tables.TILES.names)
    number = np.asarray(places["tile"], np.int64)
    origin = origin_of(tiles, slide)
    stored = (predictions.path / "anndata" / f"{slide}.h5ad").local()
    with stored as path, h5py.File(path, "r") as file:
        obs = ad.io.read_elem(file["obs"])
        library = ad.io.read_elem(file["uns/spatial"]).get(slide, {})
        layers = {name: _matrix(file["layers"][name]) for name in file["layers"]}
        measured = layers.pop(MEASURED, None)
        yield SlideExpression(
            slide=slide,
            boxes=np.stack([np.asarray(places[name], np.float64) for name in ("x", "y", "side")], axis=1),
            genes=tuple(ad.io.read_elem(file["var"]).index.astype(str)),
            values=_matrix(file["X"]),
            mpp=float(row["mpp"]),
            size=(int(row["width"]), int(row["height"])),
            tiles=number,
            model=model_name(predictions),
            tile_px=int(embed.manifest.notes["pixels"]),
            encoder=str(embed.manifest.notes["encoder"]["name"]),
            origin=origin,
            layers=layers,
            per_tile={name: obs[name].to_numpy() for name in PER_TILE if name in obs},
            measured=None if measured is None else _spots(obs.index, file, library, measured),
            tissue=tissue_of(tiles, slide),
            thumbnail=library.get("images", {}).get("hires"),
            embeddings=Matrix(_vectors(embed, slide, number)) if vectors else None,
            provenance=_provenance(predictions, row),
        )


def model_name(predictions: Artifact) -> str:
    """Return the name of the model, as `train` has it: without its step and fingerprint."""
    return predictions.manifest.inputs["model"].rpartition("/")[2].rpartition("-")[0]


def _input(predictions: Artifact, note: str, step: str) -> Artifact:
    """Open an artifact that another one was made from."""
    path = predictions.noted(note)
    if not path.exists():
        msg = (
            f"{path} is not in the store, and it describes the places of {predictions.path}: give the store that "
            f"has it, or run `raystp {step}` and `raystp impute` again"
        )
        raise ArtifactError(msg)
    return open_artifact(path, step)


def _matrix(stored: h5py.Dataset | h5py.Group) -> Matrix:
    return Matrix(ad.io.sparse_dataset(stored) if isinstance(stored, h5py.Group) else stored)


def _spots(names: Any, file: h5py.File, library: Mapping[str, Any], measured: Matrix) -> MeasuredSpots:
    centres = np.asarray(file["obsm/spatial"][:], np.float64)
    diameter = float(library["scalefactors"]["spot_diameter_fullres"])
    return MeasuredSpots(tuple(names.astype(str)), centres, diameter, measured)


def origin_of(tiles: Artifact, slide: str) -> tuple[float, float]:
    """Return the corner of the slide's bounds, 0 without any."""
    bounds = tiles.manifest.notes.get("bounds", {}).get(slide)
    return (0.0, 0.0) if bounds is None else (float(bounds[0]), float(bounds[1]))


def tissue_of(tiles: Artifact, slide: str) -> Any:
    """Return the tissue in the frame of the whole slide; the mask's file starts at the slide's bounds."""
    mask: StoragePath = tiles.path / "masks" / f"{slide}.geojson"
    if not mask.exists():
        return None
    regions, origin = read_outlines(mask), origin_of(tiles, slide)
    return shapely.transform(regions, lambda xy: xy + origin) if any(origin) else regions


def _vectors(embed: Artifact, slide: str, tiles: np.ndarray) -> np.ndarray:
    """Return the stored vectors of these tiles, in their order and precision."""
    table: pa.Table = read_embeddings(embed, slide)
    row_of = {tile: row for row, tile in enumerate(table["tile"].to_pylist())}
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors: np.ndarray = flat.reshape(table.num_rows, -1)
    return vectors[[row_of[tile] for tile in tiles.tolist()]]


def _provenance(predictions: Artifact, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the numbers are from, for the attribute `raystp`."""
    manifest = predictions.manifest
    return {
        "artifact": manifest.folder,
        "inputs": dict(manifest.inputs),
        "raystp": manifest.packages.get("raystp"),
        "protocol": manifest.notes["protocol"],
        "kind": manifest.notes["kind"],
        "panel": manifest.notes["panel"],
        "content": row["content"],
        "patient": row["patient"],
        "mpp": row["mpp"],
        "mpp_from": row["mpp_from"],
    }
