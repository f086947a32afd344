"""The service answers by the model's own retrieval, or by that of a request, as the imputer does."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.artifacts import resolve
from raystp.cluster.serving.messages import ImputeRequest, ImputeResponse, RequestOptions
from raystp.errors import ModelError
from raystp.impute.calibration import Calibration
from raystp.impute.imputer import NeighborImputer
from raystp.models.store import load_model, save_model
from raystp.steps.serve.config import ServeConfig
from raystp.steps.serve.handler import ImputeHandler, open_handler
from tests.cluster.serving.service_toy import GENES, ROWS, features

TILES = features(4, seed=9)
CALIBRATION = Calibration(2.0, np.linspace(0, 1, len(GENES)).astype(np.float32))
SOFT: dict[str, Any] = {"k": "all", "weights": "softmax", "temperature": 0.2}


def open_with(store: Path, **changes: Any) -> ImputeHandler:
    values = {"model": "train/toy", "index": "index/toy", "run": {"store": str(store)}}
    opened = open_handler(ServeConfig.of({**values, **changes}))
    assert isinstance(opened, ImputeHandler)
    return opened


def answer(handler: ImputeHandler, **options: Any) -> ImputeResponse:
    (response,) = handler.impute([handler.prepare(ImputeRequest(RequestOptions(**options), TILES))])
    if not isinstance(response, ImputeResponse):
        raise response
    return response


@pytest.fixture(scope="module")
def soft(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the store whose model retrieves from all rows and is calibrated."""
    copy = tmp_path_factory.mktemp("soft") / "store"
    shutil.copytree(store, copy)
    folder = resolve(str(copy), "train/toy", "train").path
    kind, arrays, meta = load_model(folder)
    save_model(folder, kind, arrays, {**meta, "retrieval": SOFT, "calibration": CALIBRATION.to_json()})
    return copy


def test_a_request_for_all_rows_is_answered_as_by_the_imputer(store: Path) -> None:
    handler = open_with(store)
    own = NeighborImputer(handler.imputer.model, handler.imputer.index, "softmax", 0.2)
    columns = own.columns(["G7", "G0"])
    expected, found = own.impute(TILES, "all", genes=columns, spread=True), own.find(TILES, ROWS)
    response = answer(handler, genes=["G7", "G0"], spread=True, **SOFT)
    np.testing.assert_allclose(response.expression, expected.expression, rtol=1e-5)
    np.testing.assert_allclose(response.expression, own.expression(found, columns), atol=1e-5)
    assert response.spread is not None
    np.testing.assert_allclose(response.spread, own.spread(found, expected.expression, columns), atol=1e-4)
    np.testing.assert_allclose(response.distance, own.distance(found), atol=1e-6)


def test_without_options_a_request_takes_the_models_retrieval_and_calibration(soft: Path) -> None:
    handler = open_with(soft)
    assert handler.info()["retrieval"] == {**SOFT, "calibrated": True}
    plain = NeighborImputer(handler.imputer.model, handler.imputer.index, "softmax", 0.2)
    expected = plain.impute(TILES, "all").expression
    np.testing.assert_allclose(answer(handler).expression, CALIBRATION.expression(expected), rtol=1e-5)
    np.testing.assert_allclose(answer(handler, **SOFT).expression, CALIBRATION.expression(expected), rtol=1e-5)
    off = open_with(soft, calibrate=False)
    np.testing.assert_allclose(answer(off).expression, expected, rtol=1e-5)
    assert off.info()["retrieval"] == {**SOFT, "calibrated": False}


def test_a_request_with_its_own_retrieval_is_not_calibrated(soft: Path) -> None:
    handler = open_with(soft)
    own_options: list[dict[str, Any]] = [{"k": 3}, {"temperature": 0.5}, {"k": 3, "weights": "mean"}]
    for options in own_options:
        response = answer(handler, **options)
        how = {**SOFT, **options} if "weights" not in options else {**options, "temperature": None}
        own = replace(handler.imputer, weights=how["weights"], temperature=how["temperature"], calibration=None)
        np.testing.assert_allclose(response.expression, own.impute(TILES, how["k"]).expression, rtol=1e-5)


def test_one_batch_holds_requests_of_different_retrievals(soft: Path) -> None:
    handler = open_with(soft)
    options: list[dict[str, Any]] = [{}, {"k": 5}, {"temperature": 0.7}, {}]
    together = handler.impute([handler.prepare(ImputeRequest(RequestOptions(**one), TILES)) for one in options])
    for one, response in zip(options, together, strict=True):
        assert isinstance(response, ImputeResponse)
        np.testing.assert_allclose(response.expression, answer(handler, **one).expression, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": "all", "neighbours": True}, "with k=all every row has a vote, and there is no list"),
        ({"weights": "mean", "temperature": 1.0}, "weights that have none"),
        ({"k": "all", "weights": "inverse_square_l1"}, "set k to a number"),
        ({"k": ROWS + 1}, f"{ROWS + 1} neighbours were requested, the reference index has {ROWS} rows"),
    ],
)
def test_a_retrieval_that_cannot_be_is_refused(store: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        answer(open_with(store), **options)


def test_all_rows_of_a_large_index_are_refused(store: Path) -> None:
    handler = open_with(store, limits={"all_rows": ROWS - 1})
    with pytest.raises(ModelError, match=f"the index has {ROWS}, the limit is {ROWS - 1}: send a number"):
        answer(handler, k="all")
