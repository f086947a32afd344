"""The steps after `embed`: rows, genes and bytes, as far as the slide table, the sample and the configs state them.

Hours of training, search and scoring are not planned: they follow from epochs, early stopping and the cohort's labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raystp.evaluate.protocols import protocol_of
from raystp.expression.folds import Split, sections_named, split_by_patient, split_by_section
from raystp.expression.genes.panel import read_panel
from raystp.expression.genes.panel_config import PanelConfig
from raystp.index.queries import queries_per_section
from raystp.slides.table import SlideRow
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig
from raystp.steps.impute.config import ImputeConfig
from raystp.steps.index.config import IndexConfig
from raystp.steps.pipeline.folds.fold import UNKNOWN
from raystp.steps.plan.sample import SlideCost
from raystp.steps.plan.totals import VECTOR_SHARE, Total, total_of
from raystp.steps.spots.config import SpotsConfig
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.storage import StoragePath

VALUE_BYTES = {"float32": 4, "float16": 2}
ROW_BYTES, WEIGHT_BYTES, TILE_BYTES = 4, 2, 48
"""Of a neighbour's row, of its weight, and of the other columns of a tile; as in `tables.neighbours`."""
PARQUET_SHARE = 0.7
"""Bytes of predicted expression in parquet, of those as float32; measured on means over 50 neighbours."""
H5AD_BYTES = 60_000
"""Of an h5ad besides its matrices and its thumbnail."""
MAP_LAYERS = 2
"""Layers of a method of bags: its attention maps."""

IN_HOURS = "the hours are not known before it runs: they depend on epochs, early stopping and the method"
OF_MODEL = f"bytes of the model depend on the method; {IN_HOURS}"


@dataclass(frozen=True)
class LaterStep:
    """What is known of a step after `embed`."""

    step: str
    rows: Total | None = None
    """Spots or tiles."""
    genes: int | None = None
    read: Total | None = None
    written: Total | None = None
    unknown: str = ""
    """What is not known, and why."""
    as_neighbours: Total | None = None
    """Of `impute` with an index: bytes with `output=neighbours`."""

    def values(self) -> dict[str, Any]:
        """Return plain JSON values."""
        numbers = {key: getattr(self, key) for key in ("rows", "read", "written", "as_neighbours")}
        plain = {key: None if one is None else one.values for key, one in numbers.items()}
        return {"step": self.step, "genes": self.genes, **plain, "unknown": self.unknown}


@dataclass
class LaterPlan:
    """A walk through the steps after `embed`, in their order."""

    rows: Sequence[SlideRow]
    costs: Sequence[SlideCost]
    """Of the sample, at the first tiling."""
    dims: Mapping[str, int]
    """`embed/<name>` -> bytes of a stored vector."""
    models: dict[str, tuple[SpotsTrainConfig, Split, int]] = field(default_factory=dict)
    """`train/<name>` -> config, split and genes."""
    predictions: dict[str, str] = field(default_factory=dict)
    """`impute/<name>` -> `train/<name>`."""

    def step_of(self, config: Any) -> LaterStep | None:
        """Return what is known of a step; None for one of which nothing is."""
        if isinstance(config, SpotsConfig):
            return self._spots(config)
        if isinstance(config, SpotsTrainConfig):
            return self._train(config)
        if isinstance(config, IndexConfig) and config.model in self.models:
            return self._index(config)
        if isinstance(config, ImputeConfig) and config.model in self.models:
            return self._impute(config)
        if isinstance(config, SpotsEvaluateConfig) and config.predictions[0] in self.predictions:
            return self._evaluate(config)
        return None

    def _spots(self, config: SpotsConfig) -> LaterStep:
        measured = [row for row in self.rows if row.layout]
        written = total_of(measured, self.costs, lambda one: one.section_bytes)
        spots = total_of(measured, self.costs, lambda one: one.spots)
        return LaterStep(f"spots/{config.name}", spots, self._most_genes(), written=written)

    def _train(self, config: SpotsTrainConfig) -> LaterStep | None:
        if config.embeddings is None or config.method.combines_models or UNKNOWN in config.split.test:
            return None
        patients = {row.section: row.patient for row in self.rows if row.layout}
        by = split_by_patient if protocol_of(config.split.protocol).split == "patient" else split_by_section
        chosen = config.split
        train = None if chosen.train is None else sections_named(chosen.train, patients)
        test, validation = sections_named(chosen.test, patients), sections_named(chosen.validation, patients)
        split = by(patients, test=test, validation=validation, train=train)
        genes = self._genes(config.panel)
        self.models[f"train/{config.name}"] = (config, split, genes)
        named = [config.embeddings] if isinstance(config.embeddings, str) else config.embeddings
        spots = self._tiles({*split.train, *split.validation})
        read = spots.scaled(float(sum(self.dims.get(one, 0) for one in named)))
        return LaterStep(f"train/{config.name}", spots, genes, read=read, unknown=OF_MODEL)

    def _index(self, config: IndexConfig) -> LaterStep:
        trained, split, genes = self.models[str(config.model)]
        names = {*split.train, *split.validation} if config.reference is None else set(config.reference)
        spots, dim = self._tiles(names), int(getattr(trained.options, "dim", 0))
        dense = VALUE_BYTES["float16" if config.expression.endswith("16") else "float32"]
        queries = self._tiles(names, most=queries_per_section(len(names)))
        sparse = " at most: the share of zeros is not known;" if config.expression.startswith("csr") else ""
        note = f"{sparse} an approximate kind adds a search structure" if config.kind != "exact" else sparse
        return LaterStep(
            f"index/{config.name}",
            spots,
            genes,
            written=spots.scaled(float(4 * dim + dense * genes)).plus(queries.scaled(4.0 * dim * VECTOR_SHARE)),
            unknown=note.strip(" ;"),
        )

    def _impute(self, config: ImputeConfig) -> LaterStep:
        self.predictions[f"impute/{config.name}"] = config.model
        trained, split, panel = self.models[config.model]
        chosen = self._predicted(config, trained, split)
        tiles = total_of(chosen, self.costs, lambda one: one.tiles)
        measured = total_of([row for row in chosen if row.layout], self.costs, lambda one: one.tiles)
        genes = panel if config.genes is None else len(config.genes)
        layers = MAP_LAYERS * trained.method.needs_bags + (config.spread and trained.method.needs_index)
        dense = tiles.scaled(4.0 * genes * (1 + layers + PARQUET_SHARE))
        dense = dense.plus(
            total_of(chosen, self.costs, lambda one: bool(one.tiles) * (one.thumbnail_bytes + H5AD_BYTES))
        )
        if config.spots is not None:
            dense = dense.plus(measured.scaled(4.0 * genes))  # the layer of what was measured
        k = trained.retrieval.k if config.k is None else config.k
        weights = config.weights or trained.retrieval.weights
        as_neighbours = None
        if config.index is not None and isinstance(k, int):
            each = ROW_BYTES + (0 if weights == "mean" else WEIGHT_BYTES)
            as_neighbours = tiles.scaled(float(k * each + TILE_BYTES))
        written = as_neighbours if config.output == "neighbours" else dense
        unknown = "hours of the search are not known before it runs" if config.index is not None else ""
        return LaterStep(f"impute/{config.name}", tiles, genes, None, written, unknown, as_neighbours)

    def _evaluate(self, config: SpotsEvaluateConfig) -> LaterStep:
        _, split, genes = self.models[self.predictions[config.predictions[0]]]
        trainings = config.permutations * sum(
            self.models[self.predictions[one]][0].method.is_learned
            for one in config.predictions
            if one in self.predictions
        )
        unknown = f"permuted labels are trained on {trainings} times; {IN_HOURS}" if trainings else ""
        return LaterStep(f"evaluate/{config.name}", self._tiles({*split.test}), genes, unknown=unknown)

    def _predicted(self, config: ImputeConfig, trained: SpotsTrainConfig, split: Split) -> list[SlideRow]:
        """Return the slides that are predicted: those named, or all whose patient the model does not know."""
        if config.slides is not None:
            return [row for row in self.rows if row.slide in set(config.slides)]
        sections = {*split.train, *split.validation}
        seen = [row for row in self.rows if row.layout and row.section in sections]
        slides, patients = {row.slide for row in seen}, {row.patient for row in seen}
        if protocol_of(config.protocol or trained.split.protocol).same_patient == "allow":
            patients = set()
        return [row for row in self.rows if row.slide not in slides and row.patient not in patients]

    def _tiles(self, sections: set[str], *, most: int | None = None) -> Total:
        """Return the measured tiles of some sections, of each at most so many."""
        rows = [row for row in self.rows if row.layout and row.section in sections]
        return total_of(rows, self.costs, lambda one: one.tiles if most is None else min(one.tiles, most))

    def _most_genes(self) -> int:
        return max((one.genes for one in self.costs), default=0)

    def _genes(self, panel: PanelConfig) -> int:
        """Return the genes of a panel, at most: a training section may lack some."""
        if panel.file is not None:
            return len(read_panel(StoragePath.of(panel.file)))
        return self._most_genes() if panel.variable == "all" else min(panel.variable, self._most_genes())
