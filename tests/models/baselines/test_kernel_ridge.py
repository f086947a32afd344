"""Kernel ridge: against scikit-learn, against ridge at a large bandwidth, and Nystroem against the exact solution."""

import numpy as np
import pytest
from sklearn.gaussian_process.kernels import RBF

from raystp.models.baselines import kernel_ridge
from raystp.models.baselines.kernel_ridge import Candidates, fit_kernel_ridge, predict_kernel_ridge
from raystp.models.baselines.method import KernelRidgeOptions
from raystp.models.baselines.ridge import fit_ridge, predict_ridge

ONE = Candidates(gammas=(0.3,), alphas=(0.01,))
GROUPS = np.repeat(["a", "b", "c"], 30)


def _simulated(rows: int = 90, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, width)) * rng.uniform(0.1, 10, width) + 3
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    expression = np.stack([x[:, 0], x[:, 1] ** 2, np.sin(2 * x[:, 2]), x[:, 3] * x[:, 4]], axis=1)
    return features, 2 + expression + 0.1 * rng.normal(size=(rows, 4))


def test_predictions_equal_those_of_a_centred_kernel_by_hand() -> None:
    features, expression = _simulated()
    model = fit_kernel_ridge(features, expression, candidates=ONE)
    queries = features[:7] + 0.2
    mean, scale = features.mean(axis=0), features.std(axis=0) * np.sqrt(12)
    x, q = (features - mean) / scale, (queries - mean) / scale
    kernel = RBF(length_scale=np.sqrt(1 / 0.6))  # exp(-d^2 / (2 l^2))
    projection = np.eye(90) - 1 / 90
    between, within = kernel(q, x), kernel(x)
    dual = np.linalg.solve(projection @ within @ projection + 0.01 * np.eye(90), expression - expression.mean(axis=0))
    expected = expression.mean(axis=0) + (between - within.mean(axis=0)) @ projection @ dual
    np.testing.assert_allclose(predict_kernel_ridge(model, queries), expected, atol=1e-4)


@pytest.mark.parametrize("landmarks", [90, 1000])
def test_nystroem_with_all_landmarks_is_the_exact_solution(landmarks: int) -> None:
    features, expression = _simulated()
    expression[:30, 3] = np.nan
    exact = fit_kernel_ridge(features, expression, groups=GROUPS, candidates=ONE)
    options = KernelRidgeOptions(exact_spots=2, landmarks=landmarks)
    near = fit_kernel_ridge(features, expression, groups=GROUPS, candidates=ONE, options=options)
    queries = features + 0.2
    np.testing.assert_allclose(predict_kernel_ridge(near, queries), predict_kernel_ridge(exact, queries), atol=1e-4)


def test_a_large_bandwidth_approaches_ridge() -> None:
    features, expression = _simulated()
    gamma, ridge_alpha = 1e-4, 30.0
    near = Candidates((gamma,), (2 * gamma * ridge_alpha / 12,))
    predicted = predict_kernel_ridge(fit_kernel_ridge(features, expression, candidates=near), features)
    expected = predict_ridge(fit_ridge(features, expression, alphas=(ridge_alpha,)), features)
    np.testing.assert_allclose(predicted, expected, atol=2e-3)


def test_the_error_of_each_candidate_is_that_of_a_fit_with_it() -> None:
    features, expression = _simulated()
    candidates = Candidates((0.05, 1.0), (0.001, 1.0))
    model = fit_kernel_ridge(features, expression, groups=GROUPS, candidates=candidates)
    expected = np.zeros((2, 2))
    for group in "abc":
        train, test = group != GROUPS, group == GROUPS
        for row, gamma in enumerate(candidates.gammas):
            for column, alpha in enumerate(candidates.alphas):
                fold = fit_kernel_ridge(features[train], expression[train], candidates=Candidates((gamma,), (alpha,)))
                error = predict_kernel_ridge(fold, features[test]) - expression[test]
                expected[row, column] += (error**2).sum() / expression.size
    np.testing.assert_allclose(model["cv_mse"], expected, rtol=1e-3)


def test_a_signal_that_is_not_linear_is_predicted_better_than_by_ridge() -> None:
    features, expression = _simulated(400, 6)
    kernel, ridge = fit_kernel_ridge(features[:300], expression[:300]), fit_ridge(features[:300], expression[:300])
    errors = [
        np.mean((predicted - expression[300:]) ** 2)
        for predicted in (predict_kernel_ridge(kernel, features[300:]), predict_ridge(ridge, features[300:]))
    ]
    assert errors[0] < 0.5 * errors[1]


def test_shuffled_labels_are_predicted_by_their_mean() -> None:
    features, expression = _simulated(200)
    shuffled = expression[np.random.default_rng(1).permutation(200)]
    spread = predict_kernel_ridge(fit_kernel_ridge(features, shuffled), features).var(axis=0).mean()
    assert spread < 0.1 * expression.var(axis=0).mean()


def test_a_gene_is_fitted_on_the_spots_that_measured_it() -> None:
    features, expression = _simulated()
    expression[:30, 3] = np.nan
    whole = predict_kernel_ridge(fit_kernel_ridge(features, expression, groups=GROUPS, candidates=ONE), features)
    rest = predict_kernel_ridge(fit_kernel_ridge(features, expression[:, :3], candidates=ONE), features)
    np.testing.assert_allclose(whole[:, :3], rest, atol=1e-5)
    changed = features.copy()
    changed[:30] = changed[:30][::-1]  # the same features, and so the same scale, at spots without the gene
    again = predict_kernel_ridge(fit_kernel_ridge(changed, expression, groups=GROUPS, candidates=ONE), features)
    np.testing.assert_allclose(whole[:, 3], again[:, 3], atol=1e-5)


def test_blocks_and_bounds_of_memory_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features, expression = _simulated()
    options = KernelRidgeOptions(exact_spots=2, landmarks=40)
    predicted = []
    for values in (1 << 23, 7 * 40):
        monkeypatch.setattr(kernel_ridge, "_BLOCK_VALUES", values)
        model = fit_kernel_ridge(features, expression, options=options, candidates=ONE)
        predicted.append(predict_kernel_ridge(model, features))
    np.testing.assert_allclose(predicted[0], predicted[1], atol=1e-5)
    assert len(model["references"]) == 40


def test_a_gamma_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma must be finite and above 0, got -1"):
        KernelRidgeOptions(gamma=-1.0)
