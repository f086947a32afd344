"""Scores of the maps of models that have attention maps; see `evaluate.metrics.map_scores`.

The maps are computed again from the model and the embeddings of a prediction; they equal those that `impute` wrote.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from raystp import tables
from raystp.artifacts import Artifact
from raystp.evaluate.metrics.map_scores import (
    MAX_SLIDES,
    NO_MAPS,
    MapScores,
    deletion_scores,
    genes_to_test,
    overlap_scores,
    stability_scores,
)
from raystp.expression.schema import read_h5ad
from raystp.expression.sections import embeddings_of
from raystp.models.predictor import MapPredictor
from raystp.models.store import load_model
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.predictions import Prediction, planted_sets
from raystp.steps.train.reference import open_model
from raystp.tables import MAPS

MIN_TILES = 2
"""Fewest tiles of a slide whose map is tested: one tile has no order."""

PlantedSections = Mapping[str, tuple[list[str], Float32[np.ndarray, "spot gene"]]]
"""Slide -> its spots, and their simulated expression over the panel."""


@dataclass(frozen=True)
class MapModel:
    """A model with attention maps, and the embeddings that it predicted from."""

    scored: Prediction
    predictor: MapPredictor
    embed: Artifact

    def features(self, slide: str) -> Float32[np.ndarray, "tile feature"]:
        """Return the features of a slide's tiles."""
        return tables.matrix(embeddings_of(self.embed, slide)["vector"])

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.scored.model.manifest.config["fit"]["seed"])

    def config_without_seed(self) -> str:
        """Return the training's config and embeddings without name and seed: equal for models to be compared."""
        config = {**self.scored.model.manifest.config, "name": ""}
        config["fit"] = {**config["fit"], "seed": 0}
        return json.dumps([config, self.embed.manifest.folder], sort_keys=True)


def map_predictor(model: Artifact) -> MapPredictor | None:
    """Open a model that has attention maps and predicts whole bags; None for any other."""
    opened = open_model(*load_model(model.path))
    return opened if isinstance(opened, MapPredictor) else None


def map_models(models: Sequence[Prediction], store: str) -> list[MapModel]:
    """Open the models that have attention maps."""
    opened = [(one, map_predictor(one.model)) for one in models]
    return [MapModel(one, predictor, one.embeddings(store)) for one, predictor in opened if predictor is not None]


def score_maps(
    config: EvaluateConfig, models: Sequence[Prediction], slides: Sequence[str], planted: PlantedSections
) -> MapScores:
    """Score the maps of models that have them: overlap if `planted` is known, deletion, stability over seeds."""
    mapped, first = map_models(models, config.run.store), models[0]
    planted_genes = planted_sets(config.planted).get("planted", []) if config.planted is not None else []
    variance = np.asarray(first.meta["training_variance"])
    genes = genes_to_test(first.genes, variance, planted=planted_genes, listed=config.genes)
    scores = NO_MAPS
    for model in mapped:
        scores += overlap_scores(model.scored.label(), _sections(model, planted, planted_genes))
    for model in mapped:
        features = _features(model, slides)
        scores += deletion_scores(model.scored.label(), model.predictor, features, genes, seed=config.seed)
    for group in _seed_groups(mapped):
        label, by_seed = group[0].scored.label(), {one.seed: one.predictor for one in group}
        scores += stability_scores(label, by_seed, _features(group[0], slides), genes)
    return scores


def _seed_groups(mapped: list[MapModel]) -> list[list[MapModel]]:
    """Group models that differ only in their seed; a group has at least two seeds."""
    groups: dict[str, list[MapModel]] = {}
    for one in mapped:
        groups.setdefault(one.config_without_seed(), []).append(one)
    return [group for group in groups.values() if len({one.seed for one in group}) > 1]


def _features(model: MapModel, slides: Sequence[str]) -> Iterator[Float32[np.ndarray, "tile feature"]]:
    """Yield the features of the first slides that have enough tiles for a test."""
    for slide in slides[:MAX_SLIDES]:
        features = model.features(slide)
        if len(features) >= MIN_TILES:
            yield features


def _sections(
    model: MapModel, planted: PlantedSections, genes: Sequence[str]
) -> Iterator[tuple[dict[str, Float32[np.ndarray, "spot column"]], Float32[np.ndarray, "spot column"]]]:
    """Yield each section's stored maps and its simulated expression, columns the planted genes of the panel."""
    columns = [number for number, gene in enumerate(model.scored.genes) if gene in set(genes)]
    for slide, (spots, expression) in planted.items():
        adata = read_h5ad(model.scored.prediction.path / "anndata" / f"{slide}.h5ad")
        row = {spot: number for number, spot in enumerate(spots)}
        truth = expression[[row[spot] for spot in adata.obs_names]]
        yield {name: _dense(adata.layers[name][:, columns]) for name in MAPS}, truth[:, columns]


def _dense(layer: Any) -> Float32[np.ndarray, "spot column"]:
    """Return a layer as a dense float32 array; it may be sparse or float16 (`impute`: x)."""
    return np.asarray(layer.toarray() if hasattr(layer, "toarray") else layer, np.float32)
