"""A stored NH2ST model, ready to predict a slide's expression from its features."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32

from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.method import ModelMeta
from raystp.models.nh2st.model import Nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.predictor import NeighbourArrays, check_rows

_VALUES_AT_ONCE = 1 << 25
"""Input values computed at a time, 128 MB: limits the memory and does not change the prediction."""


@dataclass(frozen=True)
class Nh2stPredictor:
    """The model with its gene names. It predicts from images only."""

    kind: str
    genes: list[str]
    d_image: int
    model: Nh2st

    @property
    def needs_neighbours(self) -> bool:
        """Whether `predict` needs `neighbours`."""
        return self.model.options.neighbours_at_inference

    def predict(
        self, features: Float[np.ndarray, "tile feature"], *, neighbours: NeighbourArrays | None = None
    ) -> Float32[np.ndarray, "tile gene"]:
        """Return the expression of `genes` at all tiles of a slide.

        `neighbours` are rows and mask, `[tile, node]`, of the same tiles, as `models.neighbours` returns them. They are
        used only if `needs_neighbours`. Raises ModelError if they are then missing or do not fit, and for features of
        another encoder.
        """
        check_rows(features, self.d_image, self.kind)
        near = _checked_neighbours(neighbours, len(features)) if self.needs_neighbours else None
        out = np.empty((len(features), len(self.genes)), dtype=np.float32)
        nodes = near[0].shape[1] if near is not None else 0
        size = max(1, _VALUES_AT_ONCE // ((1 + nodes) * self.d_image + len(self.genes)))
        with torch.inference_mode():
            for start in range(0, len(features), size):
                part = slice(start, start + size)
                given = [_tensor(features[part])]
                if near is not None:
                    given += [_tensor(features[near[0][part]]), torch.from_numpy(near[1][part])]
                out[part] = self.model.predict(*given).numpy()
        return out


def open_predictor(arrays: Arrays, meta: ModelMeta) -> Nh2stPredictor:
    """Return a stored model; `meta["options"]` are its `Nh2stOptions`.

    Raises ModelError for a model of a version whose labels were not centred.
    """
    if "label_mean" not in arrays:
        msg = (
            "this nh2st model is of an earlier raystp, which recorded no `label_mean`: run `raystp train` again (with "
            "nh2st.feature_scaling=published and nh2st.labels=published for that version's training)"
        )
        raise ModelError(msg)
    model = Nh2st(meta["d_image"], len(meta["genes"]), Nh2stOptions(**meta["options"]))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return Nh2stPredictor("nh2st", meta["genes"], meta["d_image"], model.eval())


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _checked_neighbours(neighbours: NeighbourArrays | None, count: int) -> NeighbourArrays:
    if neighbours is None:
        msg = "this nh2st model uses the neighbours' patches too: pass the tiles' `neighbours` to predict"
        raise ModelError(msg)
    rows, mask = neighbours
    inside = not rows.size or (rows.min() >= 0 and rows.max() < count)
    if len(rows) != count or rows.shape != mask.shape or not inside or not mask[:, :1].all():
        msg = (
            f"neighbours of {count} tiles must be {count} rows of row numbers below {count}, the tile itself first, "
            f"with a mask of the same shape; got {rows.shape} with mask {mask.shape}, up to "
            f"{rows.max() if rows.size else '-'}"
        )
        raise ModelError(msg)
    return neighbours
