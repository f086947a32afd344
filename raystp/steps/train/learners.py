"""Which learner a training's config asks for; the same for the training itself and for its null."""

from typing import Any

from raystp.cluster.streams.pixels import ReaderPool
from raystp.expression.training_set import SpotTable, TrainingSetSpec
from raystp.models.genequery.unseen import split_genes
from raystp.steps.encoder_source import spec_of
from raystp.steps.train.bleep import BleepLearner
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.direct import AttentionLearner, DirectLearner, GeneQueryLearner, Nh2stLearner
from raystp.steps.train.gene_text import text_rows

LEARNERS = frozenset({"bleep", "genequery", "nh2st", "attention"})
"""Models that are trained epoch by epoch; the others are fitted in one go."""

Meta = dict[str, Any]


def texts_meta(config: TrainConfig, genes: list[str], learned: SpotTable) -> Meta:
    """Return what GeneQuery's record says beside: which genes are trained on and which are held back."""
    if config.model != "genequery":
        return {}
    text = config.text
    if not text.unseen:
        return {"seen": list(genes), "unseen": []}
    seen, unseen = split_genes(genes, learned.expression.mean(axis=0), unseen=text.unseen, seed=text.seed)
    return {"seen": seen, "unseen": unseen}


def learner_of(config: TrainConfig, recipe: TrainingSetSpec, meta: Meta) -> BleepLearner | DirectLearner:
    """Return the learner of a model that is trained epoch by epoch; for GeneQuery, `meta` is told of its texts."""
    seed = config.fit.seed
    if config.model == "nh2st":
        return Nh2stLearner(recipe, meta, seed, config.nh2st)
    if config.model == "attention":
        return AttentionLearner(recipe, meta, seed, config.attention, config.bags.parts, config.bags.tiles)
    if config.model == "genequery":
        rows, about = text_rows(config.text, list(recipe.genes))
        meta["text_encoder"] = about
        return GeneQueryLearner(recipe, meta, seed, config.genequery, rows)
    readers = ReaderPool(config.run.readers) if config.run.readers else None
    tower = spec_of(config.encoder) if config.encoder else None
    return BleepLearner(recipe, config.bleep, int(meta["d_image"]), seed, tower, readers, config.run.node_cache())
