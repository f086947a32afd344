"""Samples of mclSTExp: pairs of image and expression, with the spots of their sections that are attended to."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from raystp.models.mclstexp.options import MclstexpOptions
from raystp.models.predictor import SpotSections
from raystp.models.training.samples import check_finite, to_device
from raystp.units import tile_centres


def context_rows(boxes: Float64[np.ndarray, "spot 3"], most: int) -> Int64[np.ndarray, "context"]:
    """Return the spots of one section that are attended to, rising: all, or `most`, evenly spaced by y, then x.

    The choice does not depend on the order of the spots, except between spots at one place.
    """
    if len(boxes) <= most:
        return np.arange(len(boxes), dtype=np.int64)
    centres = tile_centres(boxes)
    order = np.lexsort((centres[:, 0], centres[:, 1]))
    return np.sort(order[np.linspace(0, len(boxes) - 1, most).round().astype(np.int64)]).astype(np.int64)


@dataclass(frozen=True)
class SectionSpots:
    """Spots of several sections, stacked. All on the model's device."""

    features: Float[Tensor, "spot image"]
    expression: Float[Tensor, "spot gene"]
    places: Float[Tensor, "spot 2"]
    group: Int64[Tensor, "spot"]
    """Number of each spot's section."""
    context: dict[int, Int64[Tensor, "_"]]
    """Section -> the rows that are attended to; empty where the sequence is a batch."""

    @classmethod
    def of(
        cls,
        pairs: tuple[Float[Tensor, "spot image"], Float[Tensor, "spot gene"]],
        sections: SpotSections,
        places: Float32[np.ndarray, "spot 2"],
        options: MclstexpOptions,
    ) -> "SectionSpots":
        """Return the samples; `pairs` are features and expression. Raises ModelError for nan or infinity."""
        features, expression = pairs
        check_finite(features, expression)
        device, context = features.device, {}
        if options.sequence == "section":
            for number in np.unique(sections.group).tolist():
                own = np.flatnonzero(sections.group == number)
                rows = own[context_rows(sections.boxes[own], options.context_spots)]
                context[number] = torch.from_numpy(rows).to(device)
        group = torch.from_numpy(np.asarray(sections.group, np.int64)).to(device)
        return cls(features, expression, torch.from_numpy(places).to(device), group, context)

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[Tensor, ...]:
        """Return the arguments of `Mclstexp.forward`; the context has rows of its own, not one per sample."""
        chosen = to_device(rows, self.group.device)
        pairs = self.features[chosen], self.expression[chosen], self.places[chosen]
        if not self.context:
            return pairs
        group = self.group[chosen]
        others = torch.cat([self.context[number] for number in torch.unique(group).tolist()])
        return (*pairs, group, self.expression[others], self.places[others], self.group[others])

    def __len__(self) -> int:
        return len(self.expression)
