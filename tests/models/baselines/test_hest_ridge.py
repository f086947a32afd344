"""hest-bench's ridge: scikit-learn's own numbers, from stored arrays, with genes that a section has not measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from raystp.models.baselines.hest_ridge import ALPHAS, _exact, fit_hest_ridge, predict_hest_ridge
from raystp.models.baselines.method import HestRidgeOptions
from raystp.models.methods import open_predictor
from raystp.models.predictor import DirectPredictor
from raystp.models.store import load_model, save_model
from raystp.storage import StoragePath

GENES = 6


def _simulated(spots: int = 120, width: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(spots + 30, width)) * rng.uniform(0.1, 10, width) + 3).astype(np.float32)
    shares = features[:, :GENES] / 10 + rng.normal(size=(spots + 30, GENES))
    counts = np.log1p(rng.poisson(np.exp(np.clip(shares, -3, 3)))).astype(np.float32)
    return features[:spots], counts[:spots], features[spots:]


def _by_scikit_learn(
    features: np.ndarray, labels: np.ndarray, queries: np.ndarray, *, pca: int | None, alpha: float | None
) -> np.ndarray:
    """Return what hest-bench's code computes, written from its description."""
    steps = [StandardScaler(), *([PCA(n_components=pca, random_state=1)] if pca else [])]
    space = make_pipeline(*steps)
    x, q = space.fit_transform(features), space.transform(queries)
    if pca:
        x, q = torch.Tensor(x), torch.Tensor(q)  # of float32; scikit-learn reads it as float64
    alpha = 100 / (x.shape[1] * labels.shape[1]) if alpha is None else alpha
    ridge = Ridge(solver="lsqr", alpha=alpha, random_state=1, fit_intercept=False, max_iter=1000)
    return np.asarray(ridge.fit(x, labels.astype(np.float64)).predict(q))


@pytest.mark.parametrize("pca", [8, 30, None])
@pytest.mark.parametrize("alpha", ["hest", 30.0])
def test_predictions_are_those_of_scikit_learn(pca: int | None, alpha: Any, tmp_path: Path) -> None:
    features, labels, queries = _simulated()
    arrays = fit_hest_ridge(features, labels, HestRidgeOptions(pca, alpha))
    expected = _by_scikit_learn(features, labels, queries, pca=pca, alpha=None if alpha == "hest" else alpha)
    np.testing.assert_allclose(predict_hest_ridge(arrays, queries), expected, atol=1e-6, rtol=0)
    meta: dict[str, Any] = {"genes": [f"G{gene}" for gene in range(GENES)], "d_image": 40}
    save_model(StoragePath.of(tmp_path), "hest_ridge", arrays, meta)
    stored = open_predictor(*load_model(StoragePath.of(tmp_path)))
    assert isinstance(stored, DirectPredictor)
    np.testing.assert_allclose(stored.predict(queries), expected, atol=1e-6, rtol=0)  # BLAS rounds by the layout


def test_a_gene_of_some_sections_is_fitted_on_these_and_one_of_none_has_no_prediction() -> None:
    features, labels, queries = _simulated()
    some = labels.copy()
    some[:50, 2], some[:, 4] = np.nan, np.nan
    options = HestRidgeOptions(pca=None, alpha=3.0)
    arrays = fit_hest_ridge(features, some, options)
    predicted, whole = (
        predict_hest_ridge(arrays, queries),
        predict_hest_ridge(fit_hest_ridge(features, labels, options), queries),
    )
    np.testing.assert_allclose(predicted[:, [0, 1, 3, 5]], whole[:, [0, 1, 3, 5]], atol=1e-6)
    assert np.isnan(predicted[:, 4]).all()
    scaled = StandardScaler().fit(features)
    ridge = Ridge(solver="lsqr", alpha=3.0, random_state=1, fit_intercept=False, max_iter=1000)
    ridge.fit(scaled.transform(features)[50:], labels[50:, [2]])
    expected = ridge.predict(scaled.transform(queries))
    np.testing.assert_allclose(predicted[:, 2], np.ravel(expected), atol=1e-5)


def test_without_scaling_the_features_are_regressed_on_as_they_are() -> None:
    features, labels, queries = _simulated()
    arrays = fit_hest_ridge(features, labels, HestRidgeOptions(pca=None, scale=False))
    ridge = Ridge(solver="lsqr", alpha=100 / (40 * GENES), random_state=1, fit_intercept=False, max_iter=1000)
    expected = ridge.fit(features, labels.astype(np.float64)).predict(queries)
    np.testing.assert_allclose(predict_hest_ridge(arrays, queries), expected, atol=1e-6, rtol=0)
    assert set(arrays) == {"weights", "alpha"}


def test_labels_of_whole_counts_are_exact_again_and_others_stay() -> None:
    counts = np.asarray([[0, 1, 7], [123, 4567, 100_000]], np.float64)
    np.testing.assert_array_equal(_exact(np.log1p(counts).astype(np.float32)), np.log1p(counts))
    other = np.asarray([[-1.5, 0.3, 50.0]], np.float32)
    np.testing.assert_array_equal(_exact(other), other)


def test_cross_validation_chooses_a_small_penalty_for_a_line_and_finds_nothing_in_noise() -> None:
    features, labels, _ = _simulated()
    groups = np.repeat([0, 1, 2], 40)
    line = ((features[:, :3] - features[:, :3].mean(axis=0)) / features[:, :3].std(axis=0)).astype(np.float32)
    options = HestRidgeOptions(pca=None, alpha="cv")
    linear, noise = (
        fit_hest_ridge(features, one, options, groups=groups)
        for one in (line, np.random.default_rng(1).normal(size=labels.shape).astype(np.float32))
    )
    assert linear["alpha"] <= 1
    assert linear["cv_pcc"].max() > 0.99
    assert noise["cv_pcc"].max() < 0.2


def test_the_pcc_of_each_candidate_is_that_of_a_fit_with_it() -> None:
    features, labels, _ = _simulated()
    labels[:, 3] = 1  # a constant gene has the PCC 0
    groups = np.repeat([0, 1, 2], 40)
    found = fit_hest_ridge(features, labels, HestRidgeOptions(pca=10, alpha="cv"), groups=groups)
    column, scores = ALPHAS.index(100.0), []
    for fold in range(3):
        fitted = fit_hest_ridge(features[groups != fold], labels[groups != fold], HestRidgeOptions(10, alpha=100.0))
        predicted = predict_hest_ridge(fitted, features[groups == fold])
        held = labels[groups == fold]
        scores += [np.corrcoef(predicted[:, gene], held[:, gene])[0, 1] for gene in (0, 1, 2, 4, 5)]
    assert found["cv_pcc"][column] == pytest.approx(sum(scores) / (3 * GENES), abs=1e-5)
    assert found["alpha"] == ALPHAS[int(np.argmax(found["cv_pcc"]))]


def test_a_small_training_set_has_fewer_components_than_asked_for() -> None:
    features, labels, _ = _simulated()
    assert fit_hest_ridge(features[:10], labels[:10], HestRidgeOptions())["components"].shape == (10, 40)


@pytest.mark.parametrize("values", [{"alpha": -1.0}, {"alpha": float("inf")}, {"pca": 0}])
def test_impossible_options_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        HestRidgeOptions(**values)
