"""GeneQuery predicts unseen genes from their texts; with shuffled texts it scores as the mean gene profile does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float

from raystp.errors import ModelError
from raystp.models.genequery.model import GeneQuery, seeded_genequery
from raystp.models.genequery.options import GENEQUERY_FIT, GeneQueryOptions
from raystp.models.genequery.predictor import GeneQueryPredictor
from raystp.models.genequery.samples import SectionGenes
from raystp.models.store import load_state, save_state
from raystp.models.training.fit import TrainState, fit
from raystp.models.training.options import FitOptions
from raystp.models.training.samples import PairDataset, SampleSet
from raystp.models.unseen_genes import mean_gene_profile, shuffled_texts, split_genes
from raystp.storage import StoragePath

PROGRAMS, IMAGE, WORDS, GENES, SPOTS = 4, 12, 24, 240, 120
NAMES = [f"G{number}" for number in range(GENES)]
TINY = GeneQueryOptions(dim=32, depth=1, heads=2, head_dim=8, feedforward=32, dropout=0.1)
KINDS = {"gene": TINY, "none": replace(TINY, context="none"), "spot": replace(TINY, context="spot")}
SHORT = {
    "gene": FitOptions(epochs=12, lr=3e-3, batch_size=20, accumulate_batches=1),
    "none": FitOptions(epochs=12, lr=3e-3, batch_size=20, accumulate_batches=1),
    "spot": FitOptions(epochs=6, lr=3e-3, batch_size=10, accumulate_batches=1),
}


def _programs(seed: int) -> Float[np.ndarray, "spot program"]:
    """Return expression programs that are exactly uncorrelated with each other over the spots."""
    drawn = np.random.default_rng(seed).normal(size=(SPOTS, PROGRAMS))
    programs: np.ndarray = np.linalg.qr(drawn - drawn.mean(axis=0))[0] * np.sqrt(SPOTS)
    return programs


def _simulated() -> tuple[np.ndarray, np.ndarray]:
    """Return texts and loadings: one word for each program and sign, among random words without information.

    As many genes rise as fall with each program, so that the mean gene profile has no information on it.
    """
    rng = np.random.default_rng(7)
    group = np.arange(GENES) % (2 * PROGRAMS)
    loadings = np.zeros((GENES, PROGRAMS))
    loadings[np.arange(GENES), group // 2] = np.where(group % 2, 1.0, -1.0)
    texts = (rng.random((GENES, WORDS)) < 0.15).astype(np.float32)
    texts[:, : 2 * PROGRAMS] = np.eye(2 * PROGRAMS)[group]
    return texts, loadings


TEXTS, LOADINGS = _simulated()


def _section(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng, appearance = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(PROGRAMS, IMAGE))
    programs = _programs(seed)
    features = programs @ appearance + 0.5 * rng.normal(size=(SPOTS, IMAGE))
    expression = 3 + programs @ LOADINGS.T + 0.7 * rng.normal(size=(SPOTS, GENES))
    return features.astype(np.float32), expression.astype(np.float32)


SEEN, UNSEEN = (
    np.array([NAMES.index(gene) for gene in part]) for part in split_genes(NAMES, np.arange(GENES) % 7.0, unseen=0.5)
)


def _samples(kind: str, features: np.ndarray, expression: np.ndarray) -> SampleSet:
    image, label = torch.from_numpy(features), torch.from_numpy(expression)
    return SectionGenes.of([image], [label]) if kind == "spot" else PairDataset.of(image, label)


def _start(kind: str, texts: np.ndarray, features: np.ndarray, expression: np.ndarray) -> TrainState:
    model = seeded_genequery(IMAGE, texts, KINDS[kind], seed=0)
    model.standardize(features)
    model.standardize_labels(expression)
    return TrainState.start(model, model.loss, SHORT[kind])


def _trained(kind: str, texts: np.ndarray, *, shuffled: bool = False) -> GeneQueryPredictor:
    features, expression = _section(0)
    expression = expression[:, SEEN]
    if shuffled:
        expression = np.random.default_rng(3).permuted(expression, axis=0)  # each gene separately
    state = _start(kind, texts[SEEN], features, expression)
    list(fit(state, _samples(kind, features, expression), SHORT[kind]))
    assert isinstance(state.model, GeneQuery)
    return GeneQueryPredictor("genequery", [NAMES[at] for at in SEEN], IMAGE, state.model.eval())


def _pcc(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Return the mean over genes of the correlation over spots."""
    one, other = (values - values.mean(axis=0) for values in (predicted, measured))
    length = np.linalg.norm(one, axis=0) * np.linalg.norm(other, axis=0)
    return float(np.mean((one * other).sum(axis=0) / np.maximum(length, 1e-9)))


def _scores(model: GeneQueryPredictor, texts: np.ndarray) -> tuple[float, float]:
    features, expression = _section(1)
    seen = model.predict(features)
    unseen = model.predict(features, genes=[NAMES[at] for at in UNSEEN], texts=texts[UNSEEN])
    return _pcc(seen, expression[:, SEEN]), _pcc(unseen, expression[:, UNSEEN])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_predict_unseen_genes_and_shuffled_texts_score_as_the_mean_gene_profile(kind: str) -> None:
    features, expression = _section(1)
    true = _trained(kind, TEXTS)
    seen, unseen = _scores(true, TEXTS)
    profile = _pcc(mean_gene_profile(true.predict(features), len(UNSEEN)), expression[:, UNSEEN])
    shuffled = []
    for seed in range(3):
        texts = shuffled_texts(TEXTS, seed=seed)
        shuffled.append(_scores(_trained(kind, texts), texts)[1])
    assert seen > 0.6  # the noise limits it to 0.82
    assert unseen > 0.5
    assert abs(float(np.mean(shuffled)) - profile) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_labels_give_a_score_of_zero_for_all_genes(kind: str) -> None:
    seen, unseen = _scores(_trained(kind, TEXTS, shuffled=True), TEXTS)
    assert abs(seen) < 0.15
    assert abs(unseen) < 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run_equals_the_uninterrupted_one(kind: str, tmp_path: Path) -> None:
    features, expression = _section(0)
    features, expression = features[:40], expression[:40, SEEN[:20]]
    samples, options = _samples(kind, features, expression), replace(SHORT[kind], epochs=3)
    runs = [_start(kind, TEXTS[SEEN[:20]], features, expression) for _ in range(3)]
    list(fit(runs[0], samples, options))
    list(fit(runs[1], samples, replace(options, epochs=1)))
    save_state(StoragePath.of(tmp_path), runs[1])
    load_state(StoragePath.of(tmp_path), runs[2])
    list(fit(runs[2], samples, options))
    expected = runs[0].model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in runs[2].model.state_dict().items())
    assert GENEQUERY_FIT.lr == 1e-4


def test_split_holds_back_genes_of_similar_mean_for_any_order_of_genes() -> None:
    mean = np.random.default_rng(0).gamma(1.0, size=GENES)
    seen, unseen = split_genes(NAMES, mean, unseen=0.4, seed=3)
    assert sorted(seen + unseen) == sorted(NAMES)
    assert len(unseen) == round(0.4 * GENES)
    order = np.argsort(mean)
    for band in np.array_split(order, 10):
        assert abs(sum(NAMES[at] in set(unseen) for at in band.tolist()) - 0.4 * len(band)) <= 1
    order_of_genes = np.random.default_rng(1).permutation(GENES)
    again = split_genes([NAMES[at] for at in order_of_genes.tolist()], mean[order_of_genes], unseen=0.4, seed=3)
    assert set(again[1]) == set(unseen)
    assert set(split_genes(NAMES, mean, unseen=0.4, seed=4)[1]) != set(unseen)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_both_parts_of_a_small_split_have_a_gene(share: float) -> None:
    for count in (2, 3, 12):
        seen, unseen = split_genes(NAMES[:count], np.arange(count) * 1.0, unseen=share)
        assert seen
        assert unseen
        assert len(seen) + len(unseen) == count


def test_shuffled_texts_are_the_same_texts_each_at_another_gene() -> None:
    rows = np.arange(20, dtype=np.float32)[:, None]
    shuffled = shuffled_texts(rows, seed=0)
    assert sorted(shuffled[:, 0].tolist()) == rows[:, 0].tolist()
    assert (shuffled != rows).all()
    assert not np.array_equal(shuffled, shuffled_texts(rows, seed=1))


def test_mean_gene_profile_is_the_mean_of_the_seen_genes_for_each_unseen_gene() -> None:
    assert mean_gene_profile(np.array([[1.0, 3.0], [2.0, 2.5]]), 2).tolist() == [[2.0, 2.0], [2.25, 2.25]]


def test_impossible_split_or_shuffle_is_refused() -> None:
    for genes, mean, share in ((["A"], [1.0], 0.5), (["A", "A"], [1.0, 2.0], 0.5), (["A", "B"], [1.0, 2.0], 1.0)):
        with pytest.raises(ModelError, match="split into seen and unseen genes needs"):
            split_genes(genes, np.array(mean), unseen=share)
    with pytest.raises(ModelError, match="need 2 or more genes, got 1"):
        shuffled_texts(np.zeros((1, 3)), seed=0)
