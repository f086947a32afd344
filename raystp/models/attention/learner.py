"""Attention regression's training from arrays: bags of tiles, each with one label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from raystp.missing import has_missing
from raystp.models.arrays import SpotArrays
from raystp.models.attention.model import seeded_attention
from raystp.models.attention.options import AttentionOptions
from raystp.models.attention.predictor import open_predictor
from raystp.models.training.bags import BagSamples
from raystp.models.training.setup import BagInputs, SpotInputs, TrainSetup
from raystp.units import tile_centres

__all__ = ["open_predictor", "setup", "setup_bags"]


def setup(options: AttentionOptions, inputs: SpotInputs) -> TrainSetup:
    """Return the model and its bags, which are parts of measured sections.

    The label of a bag is the pooled counts of its spots; the counts of a single spot are not used.
    """
    parts = inputs.bags.get("parts") or 1
    validation = _section_bags(inputs, inputs.validation, parts) if inputs.validation is not None else None
    bags = BagInputs(
        train=_section_bags(inputs, inputs.train, parts),
        validation=validation,
        features=inputs.train.features,
        seed=inputs.seed,
        device=inputs.device,
        bag_tiles=inputs.bags.get("tiles"),
    )
    return setup_bags(options, bags)


def setup_bags(options: AttentionOptions, inputs: BagInputs) -> TrainSetup:
    """Return the model and its bags for training and validation."""
    labels = inputs.train.labels
    model = seeded_attention(inputs.features.shape[1], labels.shape[1], options, seed=inputs.seed)
    model.standardize(inputs.features)
    model.standardize_labels(labels)
    train = ResampledBags(replace(inputs.train, bag_tiles=inputs.bag_tiles, seed=inputs.seed))
    return TrainSetup(model.to(inputs.device), train, inputs.validation)


@dataclass
class ResampledBags:
    """Bags whose tiles are sampled anew in each epoch."""

    bags: BagSamples
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.bags)

    def prefetch(self, parts: Sequence[Int64[np.ndarray, " _"]], epoch: int) -> None:  # noqa: ARG002 -- only the epoch matters
        """Set the epoch that the tiles are sampled for."""
        self.epoch = epoch

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[torch.Tensor, ...]:
        """Return some bags, as `BagSamples.at` does."""
        return replace(self.bags, epoch=lambda: self.epoch).at(rows)


def _section_bags(inputs: SpotInputs, spots: SpotArrays, parts: int) -> BagSamples:
    groups = [
        (f"{name} {number}", part)
        for section, name in enumerate(spots.sections)
        for number, part in enumerate(compact_parts(spots, np.flatnonzero(spots.group == section), parts))
    ]
    labels = np.stack([pooled_expression(spots, part) for _, part in groups])
    named, features = [name for name, _ in groups], [spots.features[part] for _, part in groups]
    return replace(BagSamples.of(features, labels, named, missing=True), device=inputs.device)


def compact_parts(spots: SpotArrays, rows: Int64[np.ndarray, "spot"], parts: int) -> list[Int64[np.ndarray, "part"]]:
    """Divide a section's spots into about `parts` compact parts of equal size: columns, each divided into rows."""
    columns = max(1, round(parts**0.5))
    centres = tile_centres(spots.boxes)
    found = []
    for column in np.array_split(rows[np.argsort(centres[rows, 0], kind="stable")], columns):
        ordered = column[np.argsort(centres[column, 1], kind="stable")]
        found += [part for part in np.array_split(ordered, max(1, parts // columns)) if len(part)]
    return found


def pooled_expression(spots: SpotArrays, rows: Int64[np.ndarray, "part"]) -> Float32[np.ndarray, " gene"]:
    """Return log1p of counts per 10,000 of the pooled spots: the mean of their shares, weighted by total counts.

    A gene is pooled over the spots that measured it, and missing (NaN) where none did.
    """
    shares = np.expm1(spots.expression[rows].astype(np.float64))
    totals = spots.totals[rows]
    pooled: Float64[np.ndarray, " gene"]
    if has_missing(shares):
        known = ~np.isnan(shares)
        weight = np.where(known, totals[:, None], 0).sum(axis=0)
        pooled = np.where(known, shares * totals[:, None], 0).sum(axis=0) / np.where(weight > 0, weight, np.nan)
    else:
        pooled = (shares * totals[:, None]).sum(axis=0) / max(totals.sum(), 1.0)
    labels: Float32[np.ndarray, " gene"] = np.log1p(pooled).astype(np.float32)
    return labels
