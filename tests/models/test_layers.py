"""The scaling of features that every trained method shares."""

import numpy as np
import pytest
import torch

from raystp.models.layers import scale_features, standardiser


def _scaled(features: np.ndarray, scaling: str, tokens: int = 1) -> np.ndarray:
    buffers = torch.zeros(features.shape[1]), torch.ones(features.shape[1])
    scale_features(buffers, features, scaling, tokens=tokens)  # type: ignore[arg-type]
    out: np.ndarray = ((torch.tensor(features).float() - buffers[0]) / buffers[1]).numpy()
    return out


@pytest.mark.parametrize("width", [4, 64, 400])
def test_rows_of_unit_scaling_have_a_mean_square_norm_of_one_at_any_width(width: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5000, width)) * rng.uniform(0.1, 30, width) + rng.normal(size=width)
    assert np.square(_scaled(features, "unit")).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)
    assert np.square(_scaled(features, "published")).sum(axis=1).mean() == pytest.approx(width, rel=1e-4)


def test_published_scaling_is_that_of_the_baselines() -> None:
    features = np.random.default_rng(1).normal(3, 2, size=(50, 6))
    mean, scale = standardiser(features)
    np.testing.assert_allclose(_scaled(features, "published"), (features - mean) / scale, atol=1e-5)
    np.testing.assert_allclose(_scaled(features, "unit") * 6**0.5, (features - mean) / scale, atol=1e-5)


def test_channels_of_a_map_share_one_mean_and_deviation_over_all_tokens() -> None:
    features = np.random.default_rng(2).normal(size=(30, 12))
    maps = features.reshape(90, 4)
    expected = ((maps - maps.mean(axis=0)) / maps.std(axis=0)).reshape(30, 12) / 12**0.5
    np.testing.assert_allclose(_scaled(features, "unit", tokens=3), expected, atol=1e-5)


def test_tokens_that_are_read_one_at_a_time_have_a_norm_of_one_each() -> None:
    features = np.random.default_rng(3).normal(2, 5, size=(4000, 49 * 8)).astype(np.float32)
    buffers = torch.zeros(49 * 8), torch.ones(49 * 8)
    scale_features(buffers, features, "unit", tokens=49, is_read_by_token=True)
    tokens = ((torch.tensor(features) - buffers[0]) / buffers[1]).view(-1, 8)
    assert float(tokens.square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-3)


def test_a_constant_feature_becomes_zero() -> None:
    features = np.column_stack([np.full(9, 5.0), np.arange(9.0)])
    assert not _scaled(features, "unit")[:, 0].any()
