"""Predict a table of tiles with a published folder: a vector per tile in, a row of expression out.

The table is what users have after they encoded tiles, or a file of `embed/<name>/embeddings` as pandas reads it. It
needs no slide, no weights of an encoder and no Ray. Predictions are those of `raystp predict`, which tiles and encodes
slides with the encoder of the card.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64

from raystp.errors import ModelError, some
from raystp.evaluate.protocols import protocol_of
from raystp.impute.calibration import Calibration
from raystp.impute.imputer import NeighborImputer
from raystp.impute.selection import KnownPatients, LeakRules, select_slides
from raystp.models.neighbours import neighbour_means
from raystp.models.predict import predict_slide
from raystp.models.predictor import ContrastivePredictor, DirectPredictor, NeighbourPredictor, Predictor
from raystp.steps.embedding_source import neighbour_means_of
from raystp.steps.publish.card import PublishedCard
from raystp.steps.publish.published import open_published, open_published_index, open_with_record
from raystp.steps.train.retrieval import Retrieval

VECTOR, SLIDE, PATIENT = "vector", "slide", "patient"
PLACE = ("x", "y", "side")
"""A tile's corner and side, in level-0 px."""

CHUNK_TILES = 2048
"""Tiles searched at a time, as by `raystp impute`."""

Features = Float32[np.ndarray, "tile feature"]
Expression = Float32[np.ndarray, "tile gene"]
Rows = Int64[np.ndarray, " tile"]


@dataclass(frozen=True)
class TileTableModel:
    """A published model, opened once."""

    card: PublishedCard
    model: Predictor
    imputer: NeighborImputer | None
    """None for a model without an index."""
    k: Any
    """Neighbours, or `all`: the model's own."""
    neighbour_counts: tuple[int, ...]

    def __call__(self, table: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        """Return the expression of each row, in the card's unit; a gene that no neighbour has measured is NaN.

        `params`: `genes` (empty for all), and `protocol`, which decides whether patients of the training are refused.

        Raises:
            ModelError: a missing column, vectors of another length, or genes that the model lacks.
            LeakError: a slide or patient that the model was trained on.
        """
        genes = [str(gene) for gene in params.get("genes", ())] or list(self.card.genes)
        columns = self._columns(genes)
        _check_columns(table, needs_places=needs_places(self.model, self.neighbour_counts))
        self._check_patients(table, str(params.get("protocol") or self.card.protocol))
        out = np.empty((len(table), len(genes)), np.float32)
        for rows in _slides(table):
            part = table.iloc[rows]
            out[rows] = self._predict(self._features(part), part)[:, columns]
        return pd.DataFrame(out, index=table.index, columns=genes)

    def _columns(self, genes: Sequence[str]) -> Int64[np.ndarray, " gene"]:
        column_of = {gene: column for column, gene in enumerate(self.card.genes)}
        unknown = [gene for gene in genes if gene not in column_of]
        if unknown or len(set(genes)) < len(genes):
            problem = f"{self.card.name} does not predict {some(unknown)}" if unknown else "a gene is named twice"
            msg = f"genes: {problem}; it has {len(column_of)} genes, {some(list(self.card.genes))}"
            raise ModelError(msg)
        return np.asarray([column_of[gene] for gene in genes], np.int64)

    def _features(self, table: pd.DataFrame) -> Features:
        """Return what the model reads: the vectors, and the means of the tiles around, where it reads these."""
        width = self.model.d_image // (1 + len(self.neighbour_counts))
        vectors = [np.asarray(one, np.float32) for one in table[VECTOR]]
        wrong = [number for number, one in enumerate(vectors) if one.shape != (width,)]
        if wrong:
            row, found = table.index[wrong[0]], vectors[wrong[0]].shape
            msg = (
                f"vector: {self.card.name} reads {width} values a tile, and row {row} has the shape {found}: encode "
                f"with {'; '.join(block.sentence for block in self.card.features)}"
            )
            raise ModelError(msg)
        features = np.stack(vectors)
        if not self.neighbour_counts:
            return features
        boxes = _boxes(table)
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        means = [neighbour_means(features, centres, count=count) for count in self.neighbour_counts]
        return np.concatenate([features, *means], axis=1)

    def _predict(self, features: Features, table: pd.DataFrame) -> Expression:
        """Return the expression of all genes at the tiles of one slide."""
        if self.imputer is None:
            assert isinstance(self.model, DirectPredictor)  # any model without an index
            boxes = _boxes(table) if set(PLACE) <= set(table) else np.zeros((len(table), 3))
            return predict_slide(self.model, features, boxes)
        parts = [features[first : first + CHUNK_TILES] for first in range(0, len(features), CHUNK_TILES)]
        return np.concatenate([self.imputer.impute(part, self.k).expression for part in parts])

    def _check_patients(self, table: pd.DataFrame, name: str) -> None:
        """Raise LeakError for slides or patients of the training, as `raystp predict` refuses them."""
        if table.empty or (SLIDE not in table and PATIENT not in table):
            return
        patients = table[PATIENT].fillna("").astype(str) if PATIENT in table else [""] * len(table)
        slides = table[SLIDE].fillna("").astype(str) if SLIDE in table else [f"slides of {one}" for one in patients]
        known, protocol = dict(zip(slides, patients, strict=True)), protocol_of(name)
        training, rules = self.card.training, LeakRules(protocol.name, protocol.same_patient)
        seen = KnownPatients(frozenset(training.patients), frozenset(training.slides)).among(known, training.salt)
        select_slides(known, seen, rules, named=list(known), source="the table")


def open_tile_table(folder: Path) -> TileTableModel:
    """Open a published folder; raises ModelError for a damaged or altered one."""
    published = open_published(str(folder))
    model, meta = open_with_record(published)
    retrieval = Retrieval.of(meta.get("retrieval", {}))
    imputer = None
    if isinstance(model, ContrastivePredictor):
        calibration = Calibration.from_json(meta["calibration"]) if "calibration" in meta else None
        index = open_published_index(published)
        imputer = NeighborImputer(model, index, retrieval.weights, retrieval.temperature, calibration)
    return TileTableModel(published.card, model, imputer, retrieval.k, tuple(neighbour_means_of(meta)))


def needs_places(model: Predictor, neighbour_counts: Sequence[int]) -> bool:
    """Say whether a model reads the tiles around each tile, so that slide and position must be given."""
    return bool(neighbour_counts) or (isinstance(model, NeighbourPredictor) and model.needs_neighbours)


def _check_columns(table: pd.DataFrame, *, needs_places: bool) -> None:
    needed = [VECTOR, *((SLIDE, *PLACE) if needs_places else ())]
    missing = [name for name in needed if name not in table]
    if missing:
        msg = f"the table has no column {some(missing)}; this model reads {some(needed, 9)}, a row per tile"
        raise ModelError(msg)


def _slides(table: pd.DataFrame) -> Iterator[Rows]:
    """Yield the rows of each slide; without slides, all rows as one."""
    if SLIDE not in table:
        yield from [np.arange(len(table))] if len(table) else []
        return
    names = table[SLIDE].fillna("").astype(str).to_numpy()
    for name in dict.fromkeys(names.tolist()):
        yield np.flatnonzero(names == name)


def _boxes(table: pd.DataFrame) -> Float64[np.ndarray, "tile 3"]:
    boxes: np.ndarray = table[list(PLACE)].to_numpy(np.float64)
    return boxes
