"""What NH2ST is trained on: spots with their neighbourhoods, looked up in stacked arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from raystp.errors import ModelError

_ROWS = 4096
"""Rows whose neighbourhoods are averaged at a time: bounds the memory."""


@dataclass(frozen=True)
class NeighbourSamples:
    """Spots of all training sections, stacked; a neighbour is a row of the same stack. All on the model's device."""

    features: Float[Tensor, "spot image"]
    expression: Float[Tensor, "spot gene"]
    rows: Int64[Tensor, "spot node"]
    """Whose patches and expression make a spot's neighbourhood: itself first."""
    mask: Bool[Tensor, "spot node"]
    """Which of them are there; the others' places hold any row."""

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "spot image"],
        expression: Float[Tensor, "spot gene"],
        rows: Int64[np.ndarray, "_ _"],
        mask: Bool[np.ndarray, "_ _"],
        *,
        smooth_labels: bool = False,
    ) -> "NeighbourSamples":
        """Return the samples; raises ModelError for values that are no numbers, and rows that do not fit the stack.

        `rows` and `mask` are `[spot, node]`, as `expression.neighbours` gives them.
        `smooth_labels` puts the mean over its neighbourhood in the place of each spot's expression, as the published
        code does (there also on what it is scored by). For training only: never for spots that a score is taken on.
        """
        for name, values in {"image features": features, "expression": expression}.items():
            bad = int((~torch.isfinite(values).all(dim=1)).sum())
            if bad:
                msg = f"the {name} of {bad} of {len(values)} spots hold nan or infinity: leave those spots out"
                raise ModelError(msg)
        _check_neighbourhoods((len(features), len(expression)), rows, mask)
        near, there = torch.from_numpy(rows).to(features.device), torch.from_numpy(mask).to(features.device)
        return cls(features, _smooth(expression, near, there) if smooth_labels else expression, near, there)

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[Tensor, ...]:
        """Return what `Nh2st.forward` takes: features and expression, of the spot and of its nodes, and the mask."""
        chosen = torch.from_numpy(rows).to(self.rows.device)
        near = self.rows[chosen]
        return (
            self.features[chosen],
            self.features[near],
            self.expression[chosen],
            self.expression[near],
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
            "features, expression, neighbours and mask are row by row of the same spots, got "
            f"{counts[0]}, {counts[1]}, {rows.shape} and {mask.shape}"
        )
        raise ModelError(msg)
    if rows.size and not (rows.min() >= 0 and rows.max() < len(rows)):
        msg = (
            f"neighbours are rows 0 to {len(rows) - 1} of the stacked spots, got {rows.min()} to {rows.max()}: "
            "look them up in the same stack, after spots were left out"
        )
        raise ModelError(msg)
    if not (mask[:, :1].all() and (rows[:, 0] == np.arange(len(rows))).all()):
        msg = "the first node of a neighbourhood is the spot itself, and in some rows it is not: were rows moved since?"
        raise ModelError(msg)
