"""Attention regression's training from arrays: bags of tiles, each with one label."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from raystp.missing import column_means, has_missing
from raystp.models.arrays import SpotArrays
from raystp.models.attention.model import seeded_attention
from raystp.models.attention.options import AttentionOptions
from raystp.models.attention.predictor import open_predictor
from raystp.models.bags.resampled import ResampledBags
from raystp.models.training.bags import BagSamples
from raystp.models.training.setup import BagInputs, SpotInputs, TrainSetup
from raystp.units import tile_centres

__all__ = ["open_predictor", "setup", "setup_bags"]


def setup(options: AttentionOptions, inputs: SpotInputs) -> TrainSetup:
    """Return the model and its bags, which are parts of measured sections.

    The label of a bag is of all its spots together (`bags.labels`); a single spot's counts are no label.
    """
    validation = _section_bags(inputs, inputs.validation) if inputs.validation is not None else None
    bags = BagInputs(
        train=_section_bags(inputs, inputs.train),
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
    return TrainSetup(model.to(inputs.device), train, inputs.validation, bag_mean=column_means(labels))


def _section_bags(inputs: SpotInputs, spots: SpotArrays) -> BagSamples:
    parts, label = inputs.bags.get("parts") or 1, LABELS[inputs.bags.get("labels") or "log_of_pooled"]
    groups = [
        (f"{name} {number}", part)
        for section, name in enumerate(spots.sections)
        for number, part in enumerate(compact_parts(spots, np.flatnonzero(spots.group == section), parts))
    ]
    labels = np.stack([label(spots, part) for _, part in groups])
    values = inputs.features(spots)
    named, features = [name for name, _ in groups], [values[part] for _, part in groups]
    return replace(BagSamples.of(features, labels, named, missing=True), device=inputs.device)


def compact_parts(spots: SpotArrays, rows: Int64[np.ndarray, "spot"], parts: int) -> list[Int64[np.ndarray, "part"]]:
    """Divide a section's spots into `parts` compact parts of about equal size: columns, each divided into rows.

    A section with fewer spots than that has one part per spot.
    """
    parts = min(parts, len(rows))
    if not parts:
        return []
    columns = max(1, round(parts**0.5))
    per_column = np.full(columns, parts // columns) + (np.arange(columns) < parts % columns)
    ends = len(rows) * np.cumsum(per_column)[:-1] // parts
    centres = tile_centres(spots.boxes)
    found = []
    for column, count in zip(
        np.split(rows[np.argsort(centres[rows, 0], kind="stable")], ends), per_column, strict=True
    ):
        found += np.array_split(column[np.argsort(centres[column, 1], kind="stable")], int(count))
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


def mean_expression(spots: SpotArrays, rows: Int64[np.ndarray, "part"]) -> Float32[np.ndarray, " gene"]:
    """Return the mean over spots of log1p of counts per 10,000: lower than `pooled_expression`, by Jensen's inequality.

    Each spot has the same weight. It needs measured spots: a bulk sample has pooled counts only.
    """
    labels: Float32[np.ndarray, " gene"] = column_means(spots.expression[rows]).astype(np.float32)
    return labels


LABELS: dict[str, Callable[[SpotArrays, Int64[np.ndarray, "part"]], Float32[np.ndarray, " gene"]]] = {
    "log_of_pooled": pooled_expression,
    "mean_of_logs": mean_expression,
}
"""Values of `bags.labels`."""
