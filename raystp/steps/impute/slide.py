"""A slide's prediction: its tiles a chunk at a time, directly or from a bank, written as they come."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from raystp import tables
from raystp.artifacts import Artifact
from raystp.expression.sections import embeddings_of
from raystp.impute.distance import far_from
from raystp.impute.neighbour_form import neighbours_table, rows_and_weights
from raystp.impute.stream import PredictionPart, SlidePrediction, write_in_parts
from raystp.index.opened import open_reference_index
from raystp.models.methods import open_predictor
from raystp.models.predict import predict_slide
from raystp.models.predictor import ContrastivePredictor, DirectPredictor, MapPredictor
from raystp.models.store import load_model
from raystp.steps.impute.imputer import FoundNeighbours, NeighborImputer, RemoteIndex
from raystp.steps.impute.places import places_of
from raystp.storage import StoragePath

MAPS = ("attention", "contribution")
"""Layers that attention regression leaves: where it looked, and what that gave."""

Distance = Float32[np.ndarray, " tile"]


@dataclass(frozen=True)
class PredictOptions:
    """What is asked of each slide."""

    k: int
    weights: str
    exactly: bool
    genes: list[str] | None
    spread: bool
    output: str
    without: dict[str, list[str]]
    protocol: str
    chunk: int


@dataclass(frozen=True)
class SlideTask:
    """Which artifacts predict, and what is asked of them."""

    model: Artifact
    embed: Artifact
    index: Artifact | None
    spots: Artifact | None
    found: Artifact | None
    """Neighbours that were found before."""
    asked: PredictOptions
    left_out: dict[str, str]
    """Slide -> its patient, whose rows of the bank do not answer it."""
    target: StoragePath
    apart: RemoteIndex | None = None


class SlidePredictor:
    """A model, and a bank where it has one, opened once; it predicts and writes slides."""

    def __init__(self, work: SlideTask) -> None:
        self._work, self._asked = work, work.asked
        self._ready = open_predictor(*load_model(work.model.path))
        self._genes = work.asked.genes or list(self._ready.genes)
        self._far: dict[str, float] | None = None
        if isinstance(self._ready, ContrastivePredictor):
            assert work.index is not None  # checked before any slide was begun
            notes = work.index.manifest.notes
            bank = work.apart or open_reference_index(work.index.path, notes["bank"])
            self._imputer = NeighborImputer(self._ready, bank, notes["bank"]["metric"], work.asked.weights)
            self._columns = self._imputer.columns(work.asked.genes)
            self._far = notes.get("distance")
        else:
            at = {gene: column for column, gene in enumerate(self._ready.genes)}
            self._columns = None if work.asked.genes is None else np.asarray([at[gene] for gene in self._genes])

    def __call__(self, slide: str) -> int:
        """Predict a slide, write it, and return its tiles."""
        table = embeddings_of(self._work.embed, slide)
        if self._asked.output == "neighbours":
            self._write_neighbours(slide, table)
        else:
            self._write_dense(slide, table)
        return int(table.num_rows)

    def _write_neighbours(self, slide: str, table: pa.Table) -> None:
        """Leave the neighbours of a slide's tiles, and their weights where these differ."""
        alike = self._asked.weights == "mean"
        parts = [tables.neighbours(self._asked.k, weights=None if alike else "float16").empty_table()]
        for chunk, (found, distance) in self._searched(slide, table):
            parts.append(neighbours_table(chunk, found.rows, distance, None if alike else found.weights))
        (self._work.target / "neighbours" / f"{slide}.parquet").write_table(pa.concat_tables(parts))

    def _write_dense(self, slide: str, table: pa.Table) -> None:
        """Leave a slide's expression as a row group a chunk, and as AnnData."""
        places, measured = places_of(slide, table, self._genes, embed=self._work.embed, spots=self._work.spots)
        layers: tuple[str, ...] = MAPS if isinstance(self._ready, MapPredictor) else ()
        if isinstance(self._ready, ContrastivePredictor) and self._asked.spread:
            layers = ("spread",)
        about = SlidePrediction(self._genes, places, self._provenance(), measured, layers, self._of_genes(table))
        parts = (
            self._from_bank(slide, table) if isinstance(self._ready, ContrastivePredictor) else self._directly(table)
        )
        schema = tables.predictions(len(self._genes))
        target = self._work.target
        cohort, opened = target / "predictions" / f"{slide}.parquet", target / "anndata" / f"{slide}.h5ad"
        write_in_parts(about, parts, parquet=(cohort, schema), h5ad=opened)

    def _chunks(self, table: pa.Table) -> Iterator[pa.Table]:
        return (table.slice(first, self._asked.chunk) for first in range(0, table.num_rows, self._asked.chunk))

    def _searched(self, slide: str, table: pa.Table) -> Iterator[tuple[pa.Table, tuple[FoundNeighbours, Distance]]]:
        """Yield chunks with their neighbours."""
        asked, allowed = self._asked, self._rows(slide)
        for chunk in self._chunks(table):
            features = tables.matrix(chunk["vector"])
            found = self._imputer.find(features, asked.k, allowed=allowed, exactly=asked.exactly)
            yield chunk, (found, self._imputer.distance(found))

    def _read(self, slide: str) -> Iterator[tuple[pa.Table, tuple[FoundNeighbours, Distance]]]:
        """Yield chunks with the neighbours that an earlier run has left."""
        assert self._work.found is not None  # only then it is asked
        file = self._work.found.path / "neighbours" / f"{slide}.parquet"
        for chunk in self._chunks(file.read_table()):
            rows, weights = rows_and_weights(chunk)
            yield (
                chunk,
                (FoundNeighbours(np.empty((len(rows), 0), np.float32), rows, weights), chunk["distance"].to_numpy()),
            )

    def _rows(self, slide: str) -> Bool[np.ndarray, " row"] | None:
        """Return the rows of the bank that may answer a slide; None for all."""
        without = {column: list(values) for column, values in self._asked.without.items()}
        if slide in self._work.left_out:
            without.setdefault("patient", []).append(self._work.left_out[slide])
        allowed = None
        for column, values in without.items():
            mask = self._imputer.bank.rows_where(column, values, drop=True)
            allowed = mask if allowed is None else allowed & mask
        return allowed

    def _from_bank(self, slide: str, table: pa.Table) -> Iterator[PredictionPart]:
        chunks = self._searched(slide, table) if self._work.found is None else self._read(slide)
        for chunk, (found, distance) in chunks:
            mean = self._imputer.expression(found, self._columns)
            obs: dict[str, np.ndarray] = {"distance": distance}
            if self._far is not None:
                obs["far"] = far_from(distance, self._far)
            layers = {"spread": self._imputer.spread(found, mean, self._columns)} if self._asked.spread else {}
            yield PredictionPart(mean, _columns(chunk), obs, layers)

    def _directly(self, table: pa.Table) -> Iterator[PredictionPart]:
        if not table.num_rows:
            return
        features = tables.matrix(table["vector"])
        squares = np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)
        assert isinstance(self._ready, DirectPredictor)  # any model that is not contrastive
        expression = predict_slide(self._ready, features, squares)
        maps = self._ready.maps(features) if isinstance(self._ready, MapPredictor) else {}
        layers = {name: np.ascontiguousarray(self._picked(maps[name])) for name in MAPS if name in maps}
        yield PredictionPart(self._picked(expression), _columns(table), {}, layers)

    def _picked(self, values: Float32[np.ndarray, "tile gene"]) -> Float32[np.ndarray, "tile gene"]:
        return values if self._columns is None else np.ascontiguousarray(values[:, self._columns])

    def _of_genes(self, table: pa.Table) -> dict[str, np.ndarray]:
        """Return what a model says of a whole slide, gene by gene."""
        if not isinstance(self._ready, MapPredictor) or not table.num_rows:
            return {}
        whole = self._ready.predict_bag(tables.matrix(table["vector"]))
        return {"slide": whole if self._columns is None else whole[self._columns]}

    def _provenance(self) -> dict[str, Any]:
        work = self._work
        said = {"model": work.model.manifest.folder, "protocol": work.asked.protocol, "schema_version": 1}
        return said if work.index is None else {**said, "index": work.index.manifest.folder}


def _columns(chunk: pa.Table) -> dict[str, pa.Array]:
    return {name: chunk[name].combine_chunks() for name in tables.TILES.names}
