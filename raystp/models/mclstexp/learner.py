"""mclSTExp's training from arrays, and its embeddings from a stored model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from raystp.errors import ModelError
from raystp.missing import filled
from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.mclstexp.model import Mclstexp, seeded_mclstexp
from raystp.models.mclstexp.options import MclstexpOptions
from raystp.models.mclstexp.places import section_places
from raystp.models.mclstexp.samples import SectionSpots, context_rows
from raystp.models.method import ModelMeta
from raystp.models.predictor import SpotSections, checked_rows
from raystp.models.training.setup import SpotInputs, TrainSetup, training_mean

INDEX_BATCH = 32
"""Consecutive spots of a section that are one sequence in an index, with `sequence: batch` (published)."""


def setup(options: MclstexpOptions, inputs: SpotInputs) -> TrainSetup:
    """Return the model and its samples; the context of a spot is on its own side, training or validation.

    A gene that a spot's section has not measured enters the spot encoder with its training mean.
    """
    inputs = inputs.with_filled_expression()
    model = seeded_mclstexp(inputs.d_image, inputs.train.expression.shape[1], options, seed=inputs.seed)
    model.standardize(inputs.train.features)
    validation = _samples(options, inputs, inputs.validation) if inputs.validation is not None else None
    return TrainSetup(model.to(inputs.device), _samples(options, inputs, inputs.train), validation)


def _samples(options: MclstexpOptions, inputs: SpotInputs, spots: SpotArrays) -> SectionSpots:
    sections = SpotSections(spots.group, spots.boxes)
    return SectionSpots.of(
        inputs.tensors(spots), sections, section_places(options, sections, _tile_um(inputs.meta)), options
    )


def _tile_um(meta: Mapping[str, Any]) -> float | None:
    """Return the side of the tiles in um, from a model's record."""
    side = meta.get("tile", {}).get("side")
    return None if side is None else float(side)


@dataclass(frozen=True)
class MclstexpPredictor:
    """Embeds features with one head, and whole sections of measured spots with the transformer and the other head."""

    kind: str
    genes: list[str]
    d_image: int
    model: Mclstexp
    tile_um: float | None = None
    training_mean: Float32[np.ndarray, "gene"] | None = None
    """Input for a gene that a spot's section has not measured."""

    @property
    def needs_sections(self) -> bool:
        """Whether `embed_spots` needs `sections`."""
        return self.model.own.reads_sections

    def embed_images(self, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query joint"]:
        """Return the embeddings of tiles; raises ModelError for features of another encoder."""
        rows = checked_rows(features, self.d_image, self.kind)
        with torch.inference_mode():
            out: np.ndarray = self.model.embed_images(torch.from_numpy(rows)).numpy()
        return out

    def embed_spots(
        self, expression: Float[np.ndarray, "spot gene"], *, sections: SpotSections | None = None
    ) -> Float32[np.ndarray, "spot joint"]:
        """Return the embeddings of measured spots, columns in the order of `genes`; sections do not mix.

        A missing value (NaN) is replaced by the gene's training mean. Raises ModelError for other genes, and without
        `sections` where a spot's embedding depends on its section.
        """
        if self.training_mean is not None and expression.shape[1] == len(self.genes):
            expression = filled(expression, self.training_mean)
        rows = torch.from_numpy(checked_rows(expression, len(self.genes), self.kind, "genes"))
        with torch.inference_mode():
            if not self.needs_sections:
                return self.model.embed_spots(rows).numpy()
            if sections is None:
                msg = f"the {self.kind} model embeds spots in their section: pass the `sections` of the spots"
                raise ModelError(msg)
            out = np.empty((len(rows), self.model.own.dim), np.float32)
            places = torch.from_numpy(section_places(self.model.own, sections, self.tile_um))
            for number in np.unique(sections.group).tolist():
                own = np.flatnonzero(sections.group == number)
                out[own] = self._embed_section(rows[own], places[own], sections.boxes[own]).numpy()
        return out

    def _embed_section(self, expression: Tensor, places: Tensor, boxes: Float64[np.ndarray, "spot 3"]) -> Tensor:
        if self.model.own.sequence == "batch":
            batches = [slice(first, first + INDEX_BATCH) for first in range(0, len(expression), INDEX_BATCH)]
            return torch.cat([self.model.embed_spots(expression[batch], places[batch]) for batch in batches])
        rows = torch.from_numpy(context_rows(boxes, self.model.own.context_spots))
        one = torch.zeros(len(expression), dtype=torch.int64)
        return self.model.embed_spots(expression, places, one, expression[rows], places[rows], one[rows])


def open_predictor(arrays: Arrays, meta: ModelMeta) -> MclstexpPredictor:
    """Return a stored model; `meta["options"]` are its `MclstexpOptions`."""
    model = Mclstexp(meta["d_image"], len(meta["genes"]), MclstexpOptions(**meta["options"]))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return MclstexpPredictor(
        "mclstexp", meta["genes"], meta["d_image"], model.eval(), _tile_um(meta), training_mean(meta)
    )
