"""Baselines that are fitted in one go: ridge, nearest neighbours, the mean of each gene."""

from raystp.expression.training_set import SpotTable
from raystp.models.arrays import Arrays
from raystp.models.baselines.ridge import fit_ridge
from raystp.models.baselines.simple import fit_gene_mean, fit_knn
from raystp.steps.train.config import TrainConfig


def fit_baseline(config: TrainConfig, learned: SpotTable) -> Arrays:
    """Fit a baseline to stacked spots."""
    if config.model == "gene_mean":
        return fit_gene_mean(learned.expression)
    if config.model == "knn":
        return fit_knn(learned.features, learned.expression, k=config.k)
    return fit_ridge(learned.features, learned.expression, groups=learned.group, seed=config.fit.seed)
