"""The chart of a sweep: any space is drawn, and a sweep with one score is not."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raystp.cluster.training.trials import Trial
from raystp.steps.tune.chart import parallel_coordinates

SPACE: dict[str, list[Any]] = {
    "fit.lr": ["loguniform", 1e-4, 1e-2],
    "bleep.dim": ["choice", 8, 16],
    "mlp.layers": ["choice", [64], [64, 32]],
    "fit.seed": ["randint", 0, 9],
}


def _trial(number: int, score: float | None, **changes: Any) -> Trial:
    values = {"fit.lr": 1e-3, "bleep.dim": 8, "mlp.layers": [64], "fit.seed": 1, **changes}
    return Trial(number, values, "finished" if score is not None else "failed", score, 4)


@pytest.mark.parametrize("maximise", [True, False])
def test_every_kind_of_field_is_an_axis_also_where_all_trials_have_one_value(*, maximise: bool) -> None:
    trials = [_trial(0, 0.1), _trial(1, None), _trial(2, 0.3, **{"fit.lr": 5e-3, "mlp.layers": [64, 32]})]
    content = parallel_coordinates(trials, SPACE, "validation_pcc", maximise=maximise)
    assert content is not None
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert pixels.shape[1] > pixels.shape[0] > 300
    assert (pixels.std(axis=2) > 20).any()  # lines in colour
    assert content == parallel_coordinates(trials, SPACE, "validation_pcc", maximise=maximise)


def test_a_sweep_with_one_score_has_no_chart() -> None:
    assert parallel_coordinates([_trial(0, 0.1), _trial(1, None)], SPACE, "validation_pcc", maximise=True) is None
