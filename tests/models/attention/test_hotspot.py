"""A simulated hotspot: training on bulk labels locates it, and training on shuffled labels does not."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from raystp.evaluate.metrics.maps import deletion_curves, overlap, stability
from raystp.models.attention.model import seeded_attention
from raystp.models.attention.options import AttentionOptions
from raystp.models.attention.predictor import AttentionPredictor
from raystp.models.training.bags import BagSamples
from raystp.models.training.fit import TrainState, fit
from raystp.models.training.options import FitOptions

SMALL = AttentionOptions(embedding=16, hidden=8)
EACH = replace(SMALL, heads="per_gene")
OWN = replace(EACH, trunk="per_gene")
FIT = FitOptions(epochs=15, lr=3e-2, weight_decay=0.01, batch_size=5, accumulate_batches=1)
WIDTH, AXES = 16, np.linalg.qr(np.random.default_rng(99).normal(size=(16, 16)))[0]
SHUFFLES = 4


@dataclass(frozen=True)
class Cohort:
    bags: list[np.ndarray]
    hot: list[np.ndarray]
    """Per bag, tile x gene: the region of each gene."""
    labels: np.ndarray


@cache
def _cohort(count: int, seed: int) -> Cohort:
    """Return slides whose label of a gene is the share of tiles that are shifted along that gene's axis.

    Slides also differ along other axes, as stains do; a model can fit shuffled labels by those.
    """
    rng = np.random.default_rng(seed)
    bags, hot, labels = [], [], []
    for _ in range(count):
        region = rng.random((int(rng.integers(50, 120)), 2)) < rng.uniform(0.05, 0.5, size=2)
        tiles = rng.normal(size=(len(region), WIDTH)) + 0.7 * rng.normal(size=WIDTH - 4) @ AXES[4:]
        bags.append((tiles + 2.5 * region @ AXES[:2]).astype(np.float32))
        hot.append(region)
        labels.append(3 + 4 * region.mean(axis=0) + 0.05 * rng.normal(size=2))
    return Cohort(bags, hot, np.array(labels))


@cache
def _trained(options: AttentionOptions, shuffle: int | None = None, seed: int = 0) -> AttentionPredictor:
    cohort = _cohort(40, 0)
    labels = cohort.labels if shuffle is None else np.random.default_rng(shuffle).permutation(cohort.labels)
    samples = BagSamples.of(cohort.bags, labels)
    model = seeded_attention(WIDTH, 2, options, seed=seed)
    model.standardize(samples.sample_tiles())
    model.standardize_labels(labels)
    state = TrainState(model, model.loss, model.optimizer(model.parameters(), FIT))
    list(fit(state, samples, replace(FIT, seed=seed)))
    return AttentionPredictor("attention", ["a", "b"], WIDTH, model.eval())


def _scores(predictor: AttentionPredictor) -> tuple[float, float, float]:
    """Return PCC over held-out slides, AUC of their contribution maps, and IoU minus its value by chance."""
    cohort = _cohort(12, 1)
    predicted = np.array([predictor.predict_bag(bag) for bag in cohort.bags])
    pcc = np.mean([np.corrcoef(predicted[:, gene], cohort.labels[:, gene])[0, 1] for gene in range(2)])
    seen = [
        overlap(predictor.maps(bag)["contribution"][:, gene], hot[:, gene], top=0.25)
        for bag, hot in zip(cohort.bags, cohort.hot, strict=True)
        for gene in range(2)
    ]
    return float(pcc), float(np.mean([o.auc for o in seen])), float(np.mean([o.iou - o.chance_iou for o in seen]))


@pytest.mark.parametrize("options", [SMALL, EACH, OWN], ids=["joint", "per_gene", "own_trunks"])
def test_contribution_maps_locate_a_simulated_region_far_better_than_with_shuffled_labels(
    options: AttentionOptions,
) -> None:
    pcc, auc, iou = _scores(_trained(options))
    nulls = np.array([_scores(_trained(options, shuffle=shuffle)) for shuffle in range(SHUFFLES)])
    scores = f"PCC {pcc:.2f}, AUC {auc:.2f}, IoU {iou:+.2f} over chance; permutation null {nulls.mean(axis=0).round(2)}"
    assert pcc > 0.7, scores
    assert auc > 0.9, scores
    assert iou > 0.2, scores
    assert abs(nulls[:, 0].mean()) < 0.3, scores
    assert abs(nulls[:, 1].mean() - 0.5) < 0.15, scores
    assert auc > nulls[:, 1].max(), scores


def test_removing_the_hotspot_lowers_the_prediction_more_than_any_random_order() -> None:
    predictor, cohort = _trained(SMALL), _cohort(12, 1)
    for bag in cohort.bags[:3]:
        areas = deletion_curves(
            lambda tiles: float(predictor.predict_bag(tiles)[0]),
            bag,
            predictor.maps(bag, ["a"])["contribution"][:, 0],
            rng=np.random.default_rng(0),
            steps=8,
            draws=19,
        ).areas()
        assert areas["deletion"] < areas["random"] < areas["insertion"]
        assert areas["insertion_p"] == areas["deletion_p"] == pytest.approx(1 / 20)


def test_maps_of_two_seeds_agree_more_than_those_of_two_shuffles() -> None:
    bags = _cohort(12, 1).bags

    def mean_stability(models: list[AttentionPredictor]) -> float:
        return float(np.mean([stability([m.maps(bag)["local"][:, 0] for m in models]).mean for bag in bags]))

    real = mean_stability([_trained(SMALL, seed=seed) for seed in range(2)])
    null = np.mean(
        [mean_stability([_trained(SMALL, shuffle=a), _trained(SMALL, shuffle=b)]) for a, b in ((0, 1), (1, 2), (2, 3))]
    )
    assert real > 0.7
    assert abs(null) < 0.4
