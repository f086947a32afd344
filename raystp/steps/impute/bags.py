"""Predict whole bags of tiles through an index of cases: a bag is one query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32

from raystp.artifacts import Artifact, open_artifact
from raystp.impute.hashed_names import stored_values
from raystp.impute.imputer import NeighborImputer, SearchableIndex
from raystp.index.open import open_reference_index
from raystp.models.methods import open_predictor
from raystp.models.predictor import BagEmbedder
from raystp.models.store import load_model
from raystp.storage import StoragePath


@dataclass(frozen=True)
class WholeBag:
    """A model of whole cases as an embedder of queries: all tiles that it gets are one query."""

    model: BagEmbedder

    @property
    def d_image(self) -> int:
        """Length of the image features."""
        return self.model.d_image

    def embed_images(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "1 joint"]:
        """Return the embedding of the bag."""
        return self.model.embed_bag(features)[None]


@dataclass(frozen=True)
class BagImputer:
    """A model of whole cases and its index, with the retrieval and the exclusions of a prediction."""

    imputer: NeighborImputer
    k: int | Literal["all"]
    exact: bool
    without: Mapping[str, Sequence[str]]
    """Column -> values whose rows are excluded from every search."""

    @classmethod
    def of(cls, prediction: Artifact, store: StoragePath) -> "BagImputer | None":
        """Return what a prediction was made with; None for a model that embeds no bags."""
        inputs, notes, config = (getattr(prediction.manifest, name) for name in ("inputs", "notes", "config"))
        if "index" not in inputs:
            return None
        kind, arrays, meta = load_model(store / inputs["model"])
        model = open_predictor(kind, arrays, meta)
        if not isinstance(model, BagEmbedder):
            return None
        index = open_artifact(store / inputs["index"], "index")
        opened, how = open_reference_index(index.path, index.manifest.notes["bank"]), notes["retrieval"]
        imputer = NeighborImputer(WholeBag(model), opened, how["weights"], how["temperature"])
        without = stored_values(config["without"], meta.get("names_salt"))
        return cls(imputer, how["k"], config["search"] == "exact", without)

    def predict_bag(
        self, features: Float[np.ndarray, "tile feature"], *, left_out: str | None = None
    ) -> Float32[np.ndarray, " gene"]:
        """Return the prediction for all tiles together; `left_out` is a patient whose rows are not searched."""
        allowed = allowed_rows(self.imputer.index, self.without, left_out)
        row: np.ndarray = self.imputer.impute(features, self.k, allowed=allowed, exact=self.exact).expression[0]
        return row


def whole_bag(imputer: NeighborImputer) -> NeighborImputer:
    """Return the imputer whose query is a whole bag; its model embeds bags."""
    assert isinstance(imputer.model, BagEmbedder)  # called only then
    return replace(imputer, model=WholeBag(imputer.model))


def allowed_rows(
    index: SearchableIndex, without: Mapping[str, Sequence[str]], left_out: str | None
) -> Bool[np.ndarray, " row"] | None:
    """Return the mask of rows to search; None for all. `left_out` is a patient who is excluded too."""
    excluded = {column: list(values) for column, values in without.items()}
    if left_out is not None:
        excluded.setdefault("patient", []).append(left_out)
    allowed = None
    for column, values in excluded.items():
        mask = index.rows_where(column, values, drop=True)
        allowed = mask if allowed is None else allowed & mask
    return allowed
