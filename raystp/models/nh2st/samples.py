"""Samples of NH2ST: spots with their neighbourhoods, as rows of stacked arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from raystp.errors import ModelError
from raystp.models.training.samples import check_finite, to_device

_ROWS = 4096
"""Rows whose neighbourhoods are averaged at a time: limits the memory."""


@dataclass(frozen=True)
class NeighbourSamples:
    """Spots of all training sections, stacked; a neighbour is a row of the same arrays. All on the model's device."""

    features: Float[Tensor, "spot image"]
    expression: Float[Tensor, "spot gene"]
    """nan where the spot's section has not measured the gene."""
    encoded: Float[Tensor, "spot gene"]
    """The same with the gene's training mean where it is missing: the input of the expression encoder."""
    rows: Int64[Tensor, "spot node"]
    """Rows of the nodes of a spot's neighbourhood; the first is the spot itself."""
    mask: Bool[Tensor, "spot node"]
    """Which nodes are present; the row of an absent node is arbitrary."""

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "spot image"],
        expression: Float[Tensor, "spot gene"],
        rows: Int64[np.ndarray, "_ _"],
        mask: Bool[np.ndarray, "_ _"],
        *,
        smooth_labels: bool = False,
        encoded: Float[Tensor, "spot gene"] | None = None,
    ) -> "NeighbourSamples":
        """Return the samples; raises ModelError for nan or infinity, and for neighbours that do not fit the spots.

        With `encoded`, the expression whose missing values are filled, nan in the expression is a missing gene.

        `rows` and `mask` are `[spot, node]`, as `models.neighbours` returns them. `smooth_labels` replaces the
        expression of each spot by the mean over its neighbourhood, as the published code does (there for test spots
        too). For training only: never for spots that are scored.
        """
        check_finite(features, expression, missing=encoded is not None)
        encoded = expression if encoded is None else encoded
        _check_neighbourhoods((len(features), len(expression)), rows, mask)
        near, present = torch.from_numpy(rows).to(features.device), torch.from_numpy(mask).to(features.device)
        if smooth_labels:
            expression, encoded = (_smooth(values, near, present) for values in (expression, encoded))
        return cls(features, expression, encoded, near, present)

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[Tensor, ...]:
        """Return the arguments of `Nh2st.forward`: features and expression of spot and nodes, and the mask."""
        chosen = to_device(rows, self.rows.device)
        near = self.rows[chosen]
        return (
            self.features[chosen],
            self.features[near],
            self.expression[chosen],
            self.encoded[near],
            self.mask[chosen],
        )

    def __len__(self) -> int:
        return len(self.expression)


def _smooth(
    expression: Float[Tensor, "spot gene"], rows: Int64[Tensor, "spot node"], mask: Bool[Tensor, "spot node"]
) -> Float[Tensor, "spot gene"]:
    out = torch.empty_like(expression)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        weight = mask[part].to(expression.dtype)[..., None]
        out[part] = (expression[rows[part]] * weight).sum(dim=1) / weight.sum(dim=1)
    return out


def _check_neighbourhoods(
    counts: tuple[int, int], rows: Int64[np.ndarray, "_ _"], mask: Bool[np.ndarray, "_ _"]
) -> None:
    if len({*counts, len(rows), len(mask)}) > 1 or rows.shape != mask.shape:
        msg = (
            "features, expression, neighbours and mask need one row for each of the same spots, got "
            f"{counts[0]}, {counts[1]}, {rows.shape} and {mask.shape}"
        )
        raise ModelError(msg)
    if rows.size and not (rows.min() >= 0 and rows.max() < len(rows)):
        msg = (
            f"neighbours must be rows 0 to {len(rows) - 1} of the stacked spots, got {rows.min()} to {rows.max()}: "
            "compute them from the same spots, after spots were removed"
        )
        raise ModelError(msg)
    if not (mask[:, :1].all() and (rows[:, 0] == np.arange(len(rows))).all()):
        msg = (
            "the first node of a neighbourhood must be the spot itself, and in some rows it is not: compute the "
            "neighbours after the spots are in their final order"
        )
        raise ModelError(msg)
