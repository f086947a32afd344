import time

import numpy as np
import pytest

from raystp.evaluate.metrics.genes import is_constant, mse, mse_and_spread, pcc_per_gene, spot_pcc
from raystp.evaluate.metrics.intervals import resample
from raystp.evaluate.metrics.sums import METRICS, BlockSums, join, score, scores_of_draws, sums

SETS = [np.arange(8), np.array([5, 0, 2])]
CENTRE = np.full(8, 4.0)


def section(seed: int, spots: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    measured = rng.normal(5.0, 2.0, (spots, 8)).astype(np.float32)
    predicted = (0.4 * measured + rng.normal(size=(spots, 8))).astype(np.float32)
    predicted[:, 2] = 1.5
    return predicted, measured, np.arange(spots) % 6


def reduced(predicted: np.ndarray, measured: np.ndarray, block: np.ndarray) -> BlockSums:
    return sums(predicted, measured, block=block, centre=CENTRE, sets=SETS)


def mae(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    error: np.ndarray = np.abs(predicted.astype(np.float64) - measured).mean(axis=0)
    return error


def rvd(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    variance = np.where(is_constant(measured), np.nan, measured.var(axis=0, dtype=np.float64))
    distance: np.ndarray = np.square(predicted.var(axis=0, dtype=np.float64) / variance - 1.0)
    return distance


def spread(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = predicted.std(axis=0, dtype=np.float64) / measured.std(axis=0, dtype=np.float64)
    return ratio


def direct(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    per_gene = [metric(predicted, measured) for metric in (mse, mae, rvd)]
    per_gene.insert(0, pcc_per_gene(predicted, measured)[0])
    values = [[found[genes].mean() for genes in SETS] for found in per_gene]
    values.append([spot_pcc(predicted[:, genes], measured[:, genes])[0].mean() for genes in SETS])
    return np.array([*values, [spread(predicted, measured)[genes].mean() for genes in SETS]])


def test_sums_give_the_same_scores_as_the_spots_themselves() -> None:
    predicted, measured, block = section(0)
    found = score(reduced(predicted, measured, block), SETS)
    np.testing.assert_allclose(found.values[0], direct(predicted, measured), atol=1e-9)
    assert dict(zip(METRICS, found.constant[0].tolist(), strict=True))["PCC"] == [1, 1]


def test_errors_rvd_and_spread_by_hand() -> None:
    # Variances: predicted 1, 0, 4, 1; measured 4, 4, 1, 0. The last gene has no RVD and no spread.
    predicted = np.array([[0.0, 5.0, 0.0, 0.0], [2.0, 5.0, 4.0, 2.0]])
    measured = np.array([[0.0, 0.0, 0.0, 7.0], [4.0, 4.0, 2.0, 7.0]])
    each = [np.array([gene]) for gene in range(4)]
    found = score(sums(predicted, measured, block=np.array([0, 1]), centre=np.zeros(4), sets=each), each).values[0]
    np.testing.assert_allclose(found[METRICS.index("RVD")], [9 / 16, 1.0, 9.0, np.nan])
    np.testing.assert_allclose(found[METRICS.index("spread")], [0.5, 0.0, 2.0, np.nan])
    for gene, expected in enumerate(([2.0, 0.5], [13.0, 0.0], [2.0, 2.0], [37.0, np.nan])):
        np.testing.assert_allclose(mse_and_spread(predicted[:, [gene]], measured[:, [gene]]), expected)
    np.testing.assert_allclose(found[METRICS.index("MAE")], [1.0, 3.0, 1.0, 6.0])
    np.testing.assert_allclose(found[METRICS.index("MSE")], [2.0, 13.0, 2.0, 37.0])


def test_a_draw_of_sums_equals_scoring_the_drawn_spots_directly() -> None:
    predicted, measured, block = section(1)
    counts = resample([6], 5, np.random.default_rng(2))
    found = scores_of_draws(reduced(predicted, measured, block), counts, SETS)
    for draw, times in enumerate(counts.astype(int)):
        rows = np.concatenate([np.flatnonzero(block == at) for at in np.repeat(np.arange(6), times)])
        np.testing.assert_allclose(found.values[draw], direct(predicted[rows], measured[rows]), atol=1e-9)


def test_joined_sections_score_as_their_concatenated_spots() -> None:
    first, second = section(0), section(1, spots=90)
    found = score(join([reduced(*first), reduced(*second)]), SETS)
    both = [np.concatenate(pair) for pair in zip(first[:2], second[:2], strict=True)]
    np.testing.assert_allclose(found.values[0], direct(*both), atol=1e-9)


def test_draws_computed_in_pieces_equal_draws_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    part = reduced(*section(3))
    counts = resample([6], 50, np.random.default_rng(0))
    whole = scores_of_draws(part, counts, SETS)
    monkeypatch.setattr("raystp.evaluate.metrics.sums.MAX_VALUES", 64)
    np.testing.assert_allclose(scores_of_draws(part, counts, SETS).values, whole.values, atol=1e-12)


def test_a_prediction_of_zero_far_from_the_centre_has_no_spread() -> None:
    _, measured, block = section(4)
    found = score(sums(measured * 0, measured, block=block, centre=CENTRE * 25, sets=SETS), SETS)
    assert found.constant[0, 0].tolist() == [8, 3]
    assert found.values[0, 0].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(found.values[0, METRICS.index("RVD")], 1.0, atol=1e-6)


def test_rvd_leaves_out_genes_measured_without_spread_and_counts_them() -> None:
    predicted, measured, block = section(5)
    measured[:, 0] = 2.0
    found = score(
        sums(predicted, measured, block=block, centre=CENTRE, sets=[*SETS, np.array([0])]), [*SETS, np.array([0])]
    )
    at = METRICS.index("RVD")
    assert found.constant[0, at].tolist() == [1, 1, 1]
    np.testing.assert_allclose(found.values[0, at, 0], np.nanmean(rvd(predicted, measured)), atol=1e-9)
    assert np.isnan(found.values[0, at, 2])


def test_a_thousand_resamples_of_785_genes_take_under_two_seconds() -> None:
    rng = np.random.default_rng(0)
    measured, predicted = rng.normal(size=(200, 785)), rng.normal(size=(200, 785))
    sets = [np.arange(785), np.arange(50)]
    start = time.perf_counter()
    part = sums(predicted, measured, block=np.arange(200) % 20, centre=np.zeros(785), sets=sets)
    scores_of_draws(part, resample([20], 1000, rng), sets)
    assert time.perf_counter() - start < 2.0
