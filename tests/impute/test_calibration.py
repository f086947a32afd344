"""One slope for all genes changes the spread and the error, and no correlation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.errors import ModelError
from raystp.evaluate.metrics.genes import mse_and_spread, pcc_per_gene
from raystp.impute.calibration import Calibration, fit_calibration
from raystp.impute.imputer import NeighborImputer
from tests.index.toy import JOINT, make_index, vectors

QUERIES = vectors(20, seed=7)

SPOTS, GENES = 400, 6
SECTION = np.arange(SPOTS) // 200


def spots(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions with a twentieth of the spread, a correlation near .7, and sections of different level."""
    rng = np.random.default_rng(seed)
    signal, level = rng.standard_normal((SPOTS, GENES)), SECTION[:, None] * 3.0
    measured = 2 + level + signal + rng.standard_normal((SPOTS, GENES))
    predicted = 2 + 0.07 * signal + 0.01 * rng.standard_normal((SPOTS, GENES))
    return predicted.astype(np.float32), measured.astype(np.float32)


@pytest.mark.parametrize("to", ["spread", "mse"])
def test_a_calibration_keeps_every_genes_correlation(to: Any) -> None:
    predicted, measured = spots()
    fitted = fit_calibration(predicted, measured, SECTION, to)
    assert fitted.slope > 5
    for number in (0, 1):
        rows = number == SECTION
        before, after = (
            pcc_per_gene(one[rows], measured[rows])[0] for one in (predicted, fitted.expression(predicted))
        )
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_spread_is_that_of_the_measurements_and_mse_is_least() -> None:
    predicted, measured = spots()
    rows = SECTION == 0
    own, true = predicted[rows], measured[rows]
    errors: dict[str, float] = {}
    ways: tuple[tuple[Any, float], ...] = (("spread", 1.0), ("mse", 0.7))
    for to, expected in ways:
        fitted = fit_calibration(own, true, SECTION[rows], to)
        errors[to], ratio = mse_and_spread(fitted.expression(own), true)
        assert ratio == pytest.approx(expected, abs=0.05)
        np.testing.assert_allclose(fitted.expression(own).mean(axis=0), own.mean(axis=0), rtol=1e-4)
    assert errors["mse"] < min(errors["spread"], mse_and_spread(own, true)[0])


def test_levels_of_sections_do_not_count() -> None:
    predicted, measured = spots()
    raised = measured + SECTION[:, None] * np.float32(50)
    one, other = (fit_calibration(predicted, values, SECTION, "spread") for values in (measured, raised))
    assert other.slope == pytest.approx(one.slope, rel=1e-5)


def test_values_that_are_not_measured_are_left_out() -> None:
    predicted, measured = spots()
    measured[:200, 0] = np.nan
    predicted[5, 3] = np.nan
    fitted = fit_calibration(predicted, measured, SECTION, "mse")
    known = ~(np.isnan(measured) | np.isnan(predicted))
    centred = [np.where(known, values, np.nan).astype(np.float64) for values in (predicted, measured)]
    for values in centred:
        for number in (0, 1):
            own = values[number * 200 : number * 200 + 200]
            own -= np.array([np.nan if np.isnan(gene).all() else np.nanmean(gene) for gene in own.T])
    slope = np.nansum(centred[0] * centred[1]) / np.nansum(centred[0] ** 2)
    assert fitted.slope == pytest.approx(slope, rel=1e-6)
    assert np.isnan(fitted.expression(predicted)[5, 3])


def test_a_calibration_survives_its_record() -> None:
    fitted = fit_calibration(*spots(), SECTION, "spread")
    again = Calibration.from_json(fitted.to_json())
    np.testing.assert_array_equal(again.centre, fitted.centre)
    assert again.slope == fitted.slope


def test_predictions_without_a_positive_slope_are_refused() -> None:
    predicted, measured = spots()
    for wrong in (np.ones_like(predicted), -predicted):
        with pytest.raises(ModelError, match=r"no slope above 0 fits; set retrieval\.calibrate=none"):
            fit_calibration(wrong, measured, SECTION, "mse")


class Model:
    """Embeds features as they are."""

    d_image = JOINT

    def embed_images(self, features: np.ndarray) -> np.ndarray:
        return features


@pytest.mark.parametrize("k", [8, "all"])
def test_what_is_imputed_is_calibrated_for_the_genes_that_are_asked(tmp_path: Path, k: Any) -> None:
    index, _ = make_index(tmp_path, "exact")
    fitted = Calibration(3.0, np.array([1.0, 2.0, 3.0], np.float32))
    plain, changed = (NeighborImputer(Model(), index, "softmax", 0.2, one) for one in (None, fitted))
    genes = np.array([2, 0])
    before, after = (one.impute(QUERIES, k, genes=genes, spread=True) for one in (plain, changed))
    expected = fitted.centre[genes] + 3 * (before.expression - fitted.centre[genes])
    np.testing.assert_allclose(after.expression, expected, rtol=1e-5)
    assert before.spread is not None
    assert after.spread is not None
    np.testing.assert_allclose(after.spread, 3 * before.spread, rtol=1e-5)
    np.testing.assert_array_equal(after.distance, before.distance)
