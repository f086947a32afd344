"""The spots that a model learns from: sections with their tiles, stacked. Every worker loads the same table."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from raystp.artifacts import Artifact
from raystp.errors import ModelError, SectionError, some
from raystp.expression.completed import load_completed
from raystp.expression.folds import spatial_block
from raystp.expression.genes.names import NO_ALIASES, Aliases, GeneNames
from raystp.expression.labels import DEFAULT_LABELS, Labels
from raystp.expression.sections import JoinedSection, check_panel, join_embeddings, join_tiles, load_counts
from raystp.units import tile_centres


@dataclass(frozen=True)
class TrainingSetSpec:
    """The sections, tiles and genes of a training set. It is sent to the workers, so it holds no arrays."""

    spots: Artifact
    images: Artifact
    """An `embed` artifact (cached features), or a `tile` artifact (pixels, end to end)."""
    train: tuple[str, ...]
    validation: tuple[str, ...]
    validation_block: float
    """Share of each training section's spots, in one spatial block, that validates instead; 0 for none."""
    genes: tuple[str, ...]
    aliases: Aliases = field(default_factory=dict)
    """Other names of the genes, by which sections with other gene names are matched."""
    completed: Artifact | None = None
    """A `complete` artifact: labels of training spots are taken from it, those of validation spots never."""
    labels: Labels = DEFAULT_LABELS
    """How the spots' counts become their labels."""


@dataclass(frozen=True)
class SpotTable:
    """The spots of several sections, stacked in the order of the sections."""

    sections: tuple[str, ...]
    slides: tuple[str, ...]
    group: Int64[np.ndarray, "spot"]
    """Number of each spot's section."""
    spots: tuple[str, ...]
    boxes: Float64[np.ndarray, "spot 3"]
    """Tile boxes (x, y, side), in level-0 px."""
    features: Float32[np.ndarray, "spot feature"]
    expression: Float32[np.ndarray, "spot gene"]
    """The spots' labels: by default log1p CP10k, NaN where the spot's section has not measured the gene."""
    totals: Float64[np.ndarray, "spot"]

    def select(self, rows: Bool[np.ndarray, "spot"]) -> "SpotTable":
        """Return only the spots where `rows` is true."""
        return replace(
            self,
            group=self.group[rows],
            spots=tuple(spot for spot, kept in zip(self.spots, rows.tolist(), strict=True) if kept),
            boxes=self.boxes[rows],
            features=self.features[rows],
            expression=self.expression[rows],
            totals=self.totals[rows],
        )

    def of_sections(self, names: Collection[str]) -> "SpotTable":
        """Return only the spots of these sections."""
        kept = [number for number, name in enumerate(self.sections) if name in names]
        own = self.select(np.isin(self.group, kept))
        sections, slides = (tuple(of[number] for number in kept) for of in (self.sections, self.slides))
        return replace(own, sections=sections, slides=slides, group=np.searchsorted(kept, own.group).astype(np.int64))

    def shuffled(self, rng: np.random.Generator) -> "SpotTable":
        """Return the same tiles with the measurements of other spots: the labels of a permutation null."""
        order = rng.permutation(len(self.expression))
        return replace(self, expression=self.expression[order], totals=self.totals[order])


def load_training_set(spec: TrainingSetSpec) -> tuple[SpotTable, SpotTable | None]:
    """Return the training spots, and the validation spots if the spec has any.

    With `completed`, the labels of the training spots are completed ones; those of the validation spots are measured.
    Raises ModelError where a validation block leaves one of the two sides empty, and SectionError for a section whose
    genes have other names than the panel's.
    """
    train, validation = load_measured(spec)
    return (train if spec.completed is None else with_completed_labels(train, spec, spec.completed)), validation


def load_measured(spec: TrainingSetSpec) -> tuple[SpotTable, SpotTable | None]:
    """Return the same spots with measured labels on both sides."""
    train = _load(spec, spec.train)
    if spec.validation_block > 0:
        block = _validation_block(train, spec.validation_block)
        _check_block(spec, block)
        return train.select(~block), train.select(block)
    return train, _load(spec, spec.validation) if spec.validation else None


def with_completed_labels(table: SpotTable, spec: TrainingSetSpec, completed: Artifact) -> SpotTable:
    """Return the table with the labels of completed genes replaced; other genes, and unmeasured ones, stay.

    Raises SectionError where a section or a spot is not in `completed`.
    """
    expression = table.expression.copy()
    for number, name in enumerate(table.sections):
        section = load_completed(completed, name)
        rows = np.flatnonzero(table.group == number)
        row_of = {spot: row for row, spot in enumerate(section.spots)}
        absent = [table.spots[row] for row in rows.tolist() if table.spots[row] not in row_of]
        if absent:
            msg = f"{completed.path} lacks {len(absent)} spots of section '{name}' ({some(absent)}): complete it again"
            raise SectionError(msg)
        columns = GeneNames(tuple(section.genes)).find(spec.genes, spec.aliases)
        genes = np.flatnonzero(columns >= 0)
        values = section.values[[row_of[table.spots[row]] for row in rows.tolist()]][:, columns[genes]]
        at = np.ix_(rows, genes)
        expression[at] = np.where(np.isnan(expression[at]) | np.isnan(values), expression[at], values)
    return replace(table, expression=expression)


def join_section(spots: Artifact, images: Artifact, section: str) -> JoinedSection:
    """Join a section with its embeddings, or with its tile boxes."""
    counts = load_counts(spots, section)
    return join_embeddings(counts, images) if images.manifest.step == "embed" else join_tiles(counts, images)


def stack_sections(
    sections: list[JoinedSection],
    genes: tuple[str, ...],
    aliases: Aliases = NO_ALIASES,
    labels: Labels = DEFAULT_LABELS,
) -> SpotTable:
    """Stack sections in this order, over the same genes, with labels of one kind."""
    counts = [section.counts for section in sections]
    return SpotTable(
        sections=tuple(one.section for one in counts),
        slides=tuple(one.slide for one in counts),
        group=np.repeat(np.arange(len(sections)), [len(one.spots) for one in counts]),
        spots=tuple(spot for one in counts for spot in one.spots),
        boxes=np.concatenate([section.boxes for section in sections]),
        features=np.concatenate([section.features for section in sections]),
        expression=np.concatenate([one.expression(genes, aliases, labels) for one in counts]),
        totals=np.concatenate([one.totals for one in counts]),
    )


def _load(spec: TrainingSetSpec, names: tuple[str, ...]) -> SpotTable:
    joined = [join_section(spec.spots, spec.images, name) for name in names]
    for one in joined:
        check_panel(one.counts, spec.genes, spec.aliases, spots=spec.spots, others=spec.train)
    return stack_sections(joined, spec.genes, spec.aliases, spec.labels)


def _validation_block(train: SpotTable, share: float) -> Bool[np.ndarray, "spot"]:
    block = np.zeros(len(train.group), bool)
    centres = tile_centres(train.boxes)
    for number in range(len(train.sections)):
        rows = np.flatnonzero(train.group == number)
        if len(rows) > 1:  # a single spot cannot be divided: it trains
            block[rows] = spatial_block(centres[rows], share)
    return block


def _check_block(spec: TrainingSetSpec, block: Bool[np.ndarray, "spot"]) -> None:
    training, validation = int((~block).sum()), int(block.sum())
    if not training or not validation:
        msg = (
            f"split.validation_block={spec.validation_block} leaves {training} training and {validation} validation "
            f"spots of {', '.join(spec.train)}: choose another share between 0 and 1"
        )
        raise ModelError(msg)
