"""Baselines: each on an input with a known prediction, and ridge against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, LeaveOneGroupOut
from sklearn.preprocessing import StandardScaler

from raystp.errors import ModelError
from raystp.models.baselines.gene_mean import fit_gene_mean, predict_gene_mean
from raystp.models.baselines.knn import fit_knn, predict_knn
from raystp.models.baselines.ridge import ALPHAS, fit_ridge, predict_ridge
from raystp.models.log_total import fit_log_total, predict_log_total


def _simulated(rows: int, width: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, width)) * rng.uniform(0.1, 10, width) + 3
    features[:, 0] = 7  # a constant feature, as frozen encoders have
    expression = 5 + features @ rng.normal(size=(width, 4)) / 10 + noise * rng.normal(size=(rows, 4))
    return features, expression


def test_gene_mean_is_the_training_mean_everywhere() -> None:
    model = fit_gene_mean(np.array([[1.0, 4.0], [3.0, 8.0]]))
    assert predict_gene_mean(model, np.zeros((3, 5))).tolist() == [[2, 6]] * 3


def test_log_total_recovers_the_line_of_its_input() -> None:
    totals = np.array([10.0, 100, 1000, 20])
    expression = np.stack([1 + 2 * np.log1p(totals), np.full(4, 3.0)], axis=1)
    model = fit_log_total(totals, expression)
    np.testing.assert_allclose(predict_log_total(model, totals), expression, rtol=1e-5)
    assert predict_log_total(model, np.array([0.0]))[0].tolist() == pytest.approx([1, 3], abs=1e-5)


def test_one_neighbour_on_the_training_spots_returns_them() -> None:
    features, expression = _simulated(60, 12)
    np.testing.assert_array_equal(predict_knn(fit_knn(features, expression, k=1), features), np.float32(expression))


def test_all_neighbours_are_the_gene_mean() -> None:
    features, expression = _simulated(60, 12)
    predicted = predict_knn(fit_knn(features, expression, k=60), features[:5])
    np.testing.assert_allclose(predicted, np.repeat(expression.mean(axis=0)[None], 5, axis=0), rtol=1e-5)


def test_neighbours_are_those_of_the_cosine_of_standardised_features() -> None:
    features, expression = _simulated(80, 12)
    x = StandardScaler().fit_transform(features)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    nearest = np.argsort(-(x @ x.T), axis=1)[:, :7]
    predicted = predict_knn(fit_knn(features, expression, k=7), features)
    np.testing.assert_allclose(predicted, expression[nearest].mean(axis=1), rtol=1e-5)


def test_more_neighbours_than_spots_are_refused() -> None:
    with pytest.raises(ModelError, match="from 1 to the number of training spots, 10, got 50"):
        fit_knn(*_simulated(10, 3))


@pytest.mark.parametrize(("rows", "width"), [(120, 20), (30, 80)])
def test_ridge_equals_that_of_sklearn_at_the_chosen_alpha(rows: int, width: int) -> None:
    features, expression = _simulated(rows, width)
    model = fit_ridge(features, expression)
    scaler = StandardScaler().fit(features)
    reference = Ridge(alpha=float(model["alpha"])).fit(scaler.transform(features), expression)
    queries = features[:9] + 0.5
    np.testing.assert_allclose(predict_ridge(model, queries), reference.predict(scaler.transform(queries)), rtol=1e-4)
    np.testing.assert_allclose(model["intercept"], expression.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("groups", [None, np.repeat(["a", "b", "c", "d"], 15)])
@pytest.mark.parametrize("width", [10, 90])
def test_error_of_each_alpha_is_that_of_fits_by_sklearn(width: int, groups: np.ndarray | None) -> None:
    features, expression = _simulated(60, width)
    alphas = (0.1, 10.0, 1000.0)
    model = fit_ridge(features, expression, groups=groups, seed=4, alphas=alphas)
    split = KFold(5, shuffle=True, random_state=4) if groups is None else LeaveOneGroupOut()
    expected = np.zeros(3)
    for train, test in split.split(features, groups=groups):
        scaler = StandardScaler().fit(features[train])
        for number, alpha in enumerate(alphas):
            reference = Ridge(alpha=alpha).fit(scaler.transform(features[train]), expression[train])
            expected[number] += ((reference.predict(scaler.transform(features[test])) - expression[test]) ** 2).sum()
    np.testing.assert_allclose(model["cv_mse"], expected / expression.size, rtol=1e-6)
    assert model["alpha"] == alphas[int(np.argmin(expected))]


def test_two_sections_are_not_used_as_folds() -> None:
    features, expression = _simulated(60, 10)
    random_folds, two_sections = (fit_ridge(features, expression, groups=g) for g in (None, np.repeat(["a", "b"], 30)))
    assert np.array_equal(random_folds["cv_mse"], two_sections["cv_mse"])


def test_ridge_learns_a_simulated_signal_and_predicts_the_mean_from_shuffled_labels() -> None:
    features, expression = _simulated(300, 20, noise=0.1)
    shuffled = expression[np.random.default_rng(1).permutation(300)]
    learned, null = fit_ridge(features[:200], expression[:200]), fit_ridge(features[:200], shuffled[:200])
    residual = predict_ridge(learned, features[200:]) - expression[200:]
    assert residual.var() < 0.1 * expression.var()
    assert null["alpha"] > 100 * learned["alpha"]
    assert predict_ridge(null, features[200:]).var(axis=0).max() < 0.2 * expression.var(axis=0).max()


def test_alphas_ascend_over_a_wide_range() -> None:
    assert list(ALPHAS) == sorted(ALPHAS)
    assert ALPHAS[0] <= 1e-2
    assert ALPHAS[-1] >= 1e8


def test_ridge_on_one_spot_is_refused() -> None:
    with pytest.raises(ModelError, match="needs 2 or more spots, got 1"):
        fit_ridge(*_simulated(1, 3))
