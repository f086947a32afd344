"""Why a retrieval model predicted what it did: the reference tiles nearest to each tile, and the spread among them.

Both are computed again from the model, the index and the embeddings of the prediction, by comparing every row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.expression.sections import embeddings_of
from raystp.impute.calibration import Calibration
from raystp.impute.hashed_names import stored_names, stored_values
from raystp.impute.imputer import NeighborImputer
from raystp.index.open import ReferenceIndex, open_reference_index
from raystp.models.methods import open_predictor
from raystp.models.predictor import BagEmbedder, ContrastivePredictor
from raystp.models.store import load_model
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.impute.bags import allowed_rows
from raystp.storage import StoragePath

SHOWN = 6
"""Nearest reference tiles that are shown for a tile."""

TILES_AT_ONCE = 2048


@dataclass(frozen=True)
class Neighbours:
    """Of some tiles: the nearest rows of the index, nearest first, and their distances."""

    rows: Int64[np.ndarray, "tile k"]
    distance: Float32[np.ndarray, "tile k"]
    spread: Float32[np.ndarray, "tile gene"]
    """Standard deviation among all rows that the prediction was made from."""


@dataclass(frozen=True)
class Reference:
    """The model and the index that a prediction was made with."""

    prediction: Artifact
    embed: Artifact
    """What was predicted from."""
    index: Artifact
    opened: ReferenceIndex
    imputer: NeighborImputer
    k: int | Literal["all"]
    names_salt: str | None

    @classmethod
    def of(cls, one: Prediction, store: StoragePath) -> "Reference | None":
        """Open the reference of a prediction; None for a model without one, or one that embeds whole bags."""
        inputs, how = one.prediction.manifest.inputs, one.prediction.manifest.notes.get("retrieval")
        if "index" not in inputs or how is None:
            return None
        kind, arrays, meta = load_model(one.model.path)
        model = open_predictor(kind, arrays, meta)
        if not isinstance(model, ContrastivePredictor) or isinstance(model, BagEmbedder):
            return None
        index = open_artifact(store / inputs["index"], "index")
        opened = open_reference_index(index.path, index.manifest.notes["bank"])
        fitted = Calibration.from_json(meta["calibration"]) if how.get("calibrated") else None
        imputer = NeighborImputer(model, opened, how["weights"], how["temperature"], fitted)
        embed = one.embeddings(store.uri)
        return cls(one.prediction, embed, index, opened, imputer, how["k"], meta.get("names_salt"))

    def neighbours(self, slide: str, rows: Int64[np.ndarray, "tile"]) -> Neighbours:
        """Return the neighbours of these tiles of a slide, given by their row in its embeddings."""
        features = tables.matrix(embeddings_of(self.embed, slide)["vector"])[rows]
        parts = list(self._parts(slide, features))
        return Neighbours(*(np.concatenate(one) for one in zip(*parts, strict=True)))

    def expression(self, rows: Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "row gene"]:
        """Return the expression of rows of the index; NaN where one has not measured a gene."""
        return self.opened.weighted_mean(np.ones((len(rows), 1), np.float32), rows[:, None])

    def _parts(self, slide: str, features: Float32[np.ndarray, "tile feature"]) -> Iterator[Sequence[np.ndarray]]:
        manifest = self.prediction.manifest
        without = stored_values(manifest.config.get("without", {}), self.names_salt)
        left_out = stored_names(manifest.notes.get("left_out", {}), self.names_salt).get(slide)
        allowed = allowed_rows(self.opened, without, left_out)
        count = self.opened.rows.num_rows if allowed is None else int(allowed.sum())
        exact = manifest.config.get("search") == "exact"
        for first in range(0, len(features), TILES_AT_ONCE):
            part = features[first : first + TILES_AT_ONCE]
            queries = self.imputer.model.embed_images(part)
            scores, found = self.opened.search_exactly(queries, min(SHOWN, count), allowed=allowed)
            distance = np.stack([self.opened.nearest_distance(column) for column in scores.T], axis=1)
            imputed = self.imputer.impute(part, self.k, spread=True, allowed=allowed, exact=exact)
            assert imputed.spread is not None  # asked for
            yield found, distance, imputed.spread
