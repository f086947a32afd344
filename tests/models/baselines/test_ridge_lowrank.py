"""Ridge with a low-rank output: against ridge at full rank, a restatement at a lower one, and planted signals."""

import numpy as np
import pytest

from raystp.models.baselines.method import RidgeLowrankOptions
from raystp.models.baselines.ridge import fit_ridge, predict_ridge
from raystp.models.baselines.ridge_lowrank import fit_ridge_lowrank

ALPHAS = (0.1, 10.0, 1000.0)


def _planted(rows: int, width: int, genes: int, noise: float, *, rank: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, width))
    signal = features @ rng.normal(size=(width, rank)) @ rng.normal(size=(rank, genes)) / np.sqrt(width)
    return features, 3 + signal + noise * rng.normal(size=(rows, genes))


@pytest.mark.parametrize(("rows", "width"), [(90, 12), (40, 70)])
def test_the_full_rank_is_ridge(rows: int, width: int) -> None:
    features, expression = _planted(rows, width, 9, 1.0, rank=9)
    ridge = fit_ridge(features, expression, alphas=ALPHAS)
    full = fit_ridge_lowrank(features, expression, alphas=ALPHAS, ranks=(500,))
    assert full["rank"] == 9
    np.testing.assert_array_equal(full["cv_mse"][:, 0], ridge["cv_mse"])
    for name in ("weights", "intercept", "alpha"):
        np.testing.assert_array_equal(full[name], ridge[name])


@pytest.mark.parametrize(("rows", "width", "genes"), [(90, 12, 9), (90, 12, 40), (40, 70, 9), (40, 70, 60)])
def test_a_rank_is_the_projection_of_the_fitted_values_in_the_metric_of_ridge(
    rows: int, width: int, genes: int
) -> None:
    features, expression = _planted(rows, width, genes, 1.0, rank=5)
    model = fit_ridge_lowrank(features, expression, alphas=(20.0,), ranks=(3,))
    x, y = (features - features.mean(axis=0)) / features.std(axis=0), expression - expression.mean(axis=0)
    padded = np.concatenate([x, np.sqrt(20.0) * np.eye(width)])
    weights = np.linalg.lstsq(padded, np.concatenate([y, np.zeros((width, genes))]), rcond=None)[0]
    right = np.linalg.svd(padded @ weights, full_matrices=False)[2][:3]
    np.testing.assert_allclose(model["weights"], weights @ right.T @ right, atol=1e-5)
    assert np.linalg.matrix_rank(model["weights"], tol=1e-4) == 3


def test_the_error_of_each_rank_is_that_of_a_fit_of_this_rank() -> None:
    features, expression = _planted(60, 8, 7, 1.0, rank=3)
    groups = np.repeat(["a", "b", "c"], 20)
    model = fit_ridge_lowrank(features, expression, groups=groups, alphas=ALPHAS, ranks=(1, 2, 4, 7))
    expected = np.zeros((3, 4))
    for group in "abc":
        train, test = groups != group, groups == group
        for row, alpha in enumerate(ALPHAS):
            for column, rank in enumerate((1, 2, 4, 7)):
                fold = fit_ridge_lowrank(features[train], expression[train], alphas=(alpha,), ranks=(rank,))
                error = predict_ridge(fold, features[test]) - expression[test]
                expected[row, column] += (error**2).sum() / expression.size
    np.testing.assert_allclose(model["cv_mse"], expected, rtol=1e-5)


def test_rank_one_recovers_a_planted_rank_one_signal_better_than_ridge() -> None:
    features, expression = _planted(160, 30, 60, 3.0)
    truth = _planted(160, 30, 60, 0.0)[1]
    low, full = fit_ridge_lowrank(features[:80], expression[:80]), fit_ridge(features[:80], expression[:80])
    errors = [np.mean((predict_ridge(model, features[80:]) - truth[80:]) ** 2) for model in (low, full)]
    assert low["rank"] == 1
    assert errors[0] < 0.7 * errors[1]


def test_shuffled_labels_are_predicted_by_their_mean() -> None:
    features, expression = _planted(200, 20, 30, 0.5, rank=4)
    shuffled = expression[np.random.default_rng(1).permutation(200)]
    spread = predict_ridge(fit_ridge_lowrank(features, shuffled), features).var(axis=0).mean()
    assert spread < 0.1 * expression.var(axis=0).mean()


def test_genes_that_other_spots_measured_have_their_own_components() -> None:
    features, expression = _planted(60, 8, 6, 0.5, rank=3)
    expression[:20, 4:] = np.nan

    def predicted(rows: slice, genes: slice, sections: np.ndarray | None = None) -> np.ndarray:
        labels = expression[rows, genes]
        model = fit_ridge_lowrank(features[rows], labels, groups=sections, alphas=(5.0,), ranks=(2,))
        return predict_ridge(model, features)

    whole = predicted(slice(None), slice(None), np.repeat(["a", "b", "c"], 20))
    measured, late = predicted(slice(None), slice(4)), predicted(slice(20, None), slice(4, None))
    np.testing.assert_allclose(whole[:, :4], measured, atol=1e-5)
    np.testing.assert_allclose(whole[:, 4:], late, atol=1e-5)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="rank must be finite and at least 1, got 0"):
        RidgeLowrankOptions(rank=0)
