"""What a model learns from: sections with their tiles, stacked. The same on every worker, and again for a null."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from raystp.artifacts import Artifact
from raystp.errors import ModelError
from raystp.expression.folds import spatial_block
from raystp.expression.sections import JoinedSection, join_embeddings, join_tiles, load_counts


@dataclass(frozen=True)
class TrainingSetSpec:
    """Which spots, tiles and genes; it travels to the workers, so it holds no array."""

    spots: Artifact
    images: Artifact
    """An `embed` artifact (cached features), or a `tile` artifact (pixels, end to end)."""
    train: tuple[str, ...]
    validation: tuple[str, ...]
    validation_block: float
    """Share of each training section's spots, in one spatial block, that validates instead; 0 for none."""
    genes: tuple[str, ...]


@dataclass(frozen=True)
class SpotTable:
    """Spots of several sections, one below the other."""

    sections: tuple[str, ...]
    slides: tuple[str, ...]
    group: Int64[np.ndarray, "spot"]
    """Number of each spot's section."""
    spots: tuple[str, ...]
    boxes: Float64[np.ndarray, "spot 3"]
    """Tile boxes (x, y, side), in level-0 px."""
    features: Float32[np.ndarray, "spot feature"]
    expression: Float32[np.ndarray, "spot gene"]
    """log1p CP10k."""
    totals: Float64[np.ndarray, "spot"]

    def select(self, rows: Bool[np.ndarray, "spot"]) -> "SpotTable":
        """Return the spots that are marked."""
        return replace(
            self,
            group=self.group[rows],
            spots=tuple(spot for spot, kept in zip(self.spots, rows.tolist(), strict=True) if kept),
            boxes=self.boxes[rows],
            features=self.features[rows],
            expression=self.expression[rows],
            totals=self.totals[rows],
        )

    def shuffled(self, rng: np.random.Generator) -> "SpotTable":
        """Return the same tiles with the measurements of other spots: the null that a score is held against."""
        order = rng.permutation(len(self.expression))
        return replace(self, expression=self.expression[order], totals=self.totals[order])


def load_training_set(spec: TrainingSetSpec) -> tuple[SpotTable, SpotTable | None]:
    """Return the training spots and the validation's, if there are any.

    Raises ModelError where one of them is empty though it was asked for.
    """
    train = stack_sections([join_section(spec.spots, spec.images, name) for name in spec.train], spec.genes)
    if spec.validation_block > 0:
        held = _blocks(train, spec.validation_block)
        _check(train.select(~held), train.select(held), spec)
        return train.select(~held), train.select(held)
    if not spec.validation:
        return train, None
    return train, stack_sections([join_section(spec.spots, spec.images, name) for name in spec.validation], spec.genes)


def join_section(spots: Artifact, images: Artifact, section: str) -> JoinedSection:
    """Join a section with its embeddings, or with its tiles' places."""
    measured = load_counts(spots, section)
    return join_embeddings(measured, images) if images.manifest.step == "embed" else join_tiles(measured, images)


def stack_sections(sections: list[JoinedSection], genes: tuple[str, ...]) -> SpotTable:
    """Put sections one below the other, over the same genes."""
    measured = [section.counts for section in sections]
    return SpotTable(
        sections=tuple(one.section for one in measured),
        slides=tuple(one.slide for one in measured),
        group=np.repeat(np.arange(len(sections)), [len(one.spots) for one in measured]),
        spots=tuple(spot for one in measured for spot in one.spots),
        boxes=np.concatenate([section.boxes for section in sections]),
        features=np.concatenate([section.features for section in sections]),
        expression=np.concatenate([one.expression(genes) for one in measured]),
        totals=np.concatenate([one.totals for one in measured]),
    )


def _blocks(train: SpotTable, share: float) -> Bool[np.ndarray, "spot"]:
    held = np.zeros(len(train.group), bool)
    centres = train.boxes[:, :2] + train.boxes[:, 2:] / 2
    for number in range(len(train.sections)):
        rows = np.flatnonzero(train.group == number)
        held[rows] = spatial_block(centres[rows], share)
    return held


def _check(train: SpotTable, validation: SpotTable, spec: TrainingSetSpec) -> None:
    if not len(train.group) or not len(validation.group):
        left = f"{len(train.group)} training and {len(validation.group)} validation spots"
        msg = (
            f"validation_block {spec.validation_block} leaves {left} of {', '.join(spec.train)}: "
            "choose another share between 0 and 1"
        )
        raise ModelError(msg)
