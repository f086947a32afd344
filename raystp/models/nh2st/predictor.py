"""A stored NH2ST model, ready to answer: a slide's features in, expression out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64

from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.nh2st.model import Nh2st
from raystp.models.nh2st.options import Nh2stOptions

_NUMBERS = 1 << 25
"""Input numbers looked at in one go, 128 MB: bounds the memory, never the answer."""


@dataclass(frozen=True)
class Nh2stPredictor:
    """The model with its genes' names; it reads images only."""

    kind: str
    genes: list[str]
    d_image: int
    model: Nh2st

    @property
    def needs_neighbours(self) -> bool:
        """Whether `predict` must be told who is near whom."""
        return self.model.options.neighbours_at_inference

    def predict(
        self,
        features: Float[np.ndarray, "tile feature"],
        *,
        neighbours: tuple[Int64[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]] | None = None,
    ) -> Float32[np.ndarray, "tile gene"]:
        """Return the expression of `genes` at all tiles of a slide.

        `neighbours` are rows and mask, `[tile, node]`, of the same tiles, as `expression.neighbours` gives them; they
        are read where `needs_neighbours`. Raises ModelError where those lack or do not fit, and for features of another
        encoder.
        """
        _check_features(features, self.d_image)
        if self.needs_neighbours:
            _check_neighbours(neighbours, len(features))
        # A model that looks at the patch alone gives the same whatever is near it.
        near = neighbours if self.needs_neighbours else None
        out = np.empty((len(features), len(self.genes)), dtype=np.float32)
        nodes = near[0].shape[1] if near is not None else 0
        size = max(1, _NUMBERS // ((1 + nodes) * self.d_image + len(self.genes)))
        with torch.inference_mode():
            for start in range(0, len(features), size):
                part = slice(start, start + size)
                given = [_tensor(features[part])]
                if near is not None:
                    given += [_tensor(features[near[0][part]]), torch.from_numpy(near[1][part])]
                out[part] = self.model.predict(*given).numpy()
        return out


def open_predictor(arrays: Arrays, meta: Mapping[str, Any]) -> Nh2stPredictor:
    """Return the model that `load_model` read; `meta["options"]` are its `Nh2stOptions`.

    Raises ModelError where the arrays are not those of such a model.
    """
    try:
        model = Nh2st(meta["d_image"], len(meta["genes"]), Nh2stOptions(**meta["options"]))
        model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    except (RuntimeError, TypeError, KeyError) as error:
        msg = f"the stored arrays or options are not those of a nh2st model ({error}): a damaged or altered file"
        raise ModelError(msg) from None
    return Nh2stPredictor("nh2st", meta["genes"], meta["d_image"], model.eval())


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _check_features(features: Float[np.ndarray, "tile feature"], width: int) -> None:
    if features.shape[1] != width:
        msg = f"the nh2st model reads {width} image features, got {features.shape[1]}: they are of another encoder"
        raise ModelError(msg)
    bad = int((~np.isfinite(features).all(axis=1)).sum())
    if bad:
        msg = (
            f"the image features for the nh2st model hold nan or infinity in {bad} of {len(features)} rows: "
            "leave those rows out"
        )
        raise ModelError(msg)


def _check_neighbours(neighbours: tuple[Int64[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]] | None, count: int) -> None:
    if neighbours is None:
        msg = "this nh2st model reads the neighbours' patches as well: give predict the tiles' `neighbours`"
        raise ModelError(msg)
    rows, mask = neighbours
    inside = not rows.size or (rows.min() >= 0 and rows.max() < count)
    if len(rows) != count or rows.shape != mask.shape or not inside or not mask[:, :1].all():
        msg = (
            f"neighbours of {count} tiles are {count} rows of row numbers below {count}, the tile itself first, got "
            f"{rows.shape} with mask {mask.shape}, up to {rows.max() if rows.size else '-'}"
        )
        raise ModelError(msg)
