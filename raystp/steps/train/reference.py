"""A contrastive model that predicts from features alone, through reference rows that are stored beside it.

An ensemble stores the spots that such a member was trained on, so it needs no index. They are searched as an index of
these spots would be: by the member's own metric, neighbours, weights and calibration.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from raystp.expression.training_set import SpotTable
from raystp.impute.calibration import Calibration
from raystp.models import methods
from raystp.models.arrays import Arrays
from raystp.models.ensemble.predictor import EnsemblePredictor
from raystp.models.predictor import ContrastivePredictor, Predictor
from raystp.steps.train.retrieval import EmbeddedReference, Retrieval, reference_vectors


@dataclass(frozen=True)
class RetrievingPredictor:
    """A contrastive model with its reference rows: a direct predictor."""

    model: ContrastivePredictor
    reference: EmbeddedReference
    retrieval: Retrieval
    calibration: Calibration | None = None

    @property
    def kind(self) -> str:
        """Name of the model's method."""
        return self.model.kind

    @property
    def genes(self) -> list[str]:
        """Genes, in the order of the columns."""
        return self.model.genes

    @property
    def d_image(self) -> int:
        """Length of the image features."""
        return self.model.d_image

    def predict(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile gene"]:
        """Return the weighted mean of each tile's reference rows; NaN for a gene that none of them has measured."""
        found = self.reference.retrieve(self.model.embed_images(features), self.retrieval)
        return found if self.calibration is None else self.calibration.expression(found)


def open_model(kind: str, arrays: Arrays, meta: Mapping[str, Any]) -> Predictor:
    """Return a stored model, ready to predict; contrastive members of an ensemble search their reference rows.

    Raises ModelError as `methods.open_predictor` does.
    """
    return methods.open_predictor(kind, arrays, meta, retriever=retriever)


def may_lack_values(model: Predictor) -> bool:
    """Say whether a prediction can be NaN, because none of the reference rows found has measured the gene."""
    if isinstance(model, EnsemblePredictor):
        return all(may_lack_values(one.model) for one in model.members)
    return isinstance(model, RetrievingPredictor) and model.reference.measured is not None


def retriever(model: ContrastivePredictor, reference: Arrays, meta: Mapping[str, Any]) -> RetrievingPredictor:
    """Return a contrastive model with its stored reference rows and its own retrieval."""
    how = Retrieval.of(meta.get("retrieval", {}))
    rows = EmbeddedReference.of(reference["vectors"], reference["expression"], how.metric)
    fitted = Calibration.from_json(meta["calibration"]) if "calibration" in meta else None
    return RetrievingPredictor(model, rows, how, fitted)


def reference_arrays(model: ContrastivePredictor, table: SpotTable, meta: Mapping[str, Any]) -> Arrays:
    """Return the reference rows of a model from measured spots; `table` holds whole sections."""
    vectors = reference_vectors(model, table, Retrieval.of(meta.get("retrieval", {})))
    return {"vectors": vectors, "expression": table.expression}
