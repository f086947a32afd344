"""The points of a pipeline's learning curve: nested subsets of the training sections, the same test side."""

from typing import Any

import pytest

from raystp.errors import ConfigError
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig
from raystp.steps.pipeline.learning_curve import CurvePoint, shuffled
from raystp.steps.train.spots.config import SpotsTrainConfig


def _config(**changes: Any) -> PipelineConfig:
    train = {"panel": {"variable": 30}, "model": "ridge", "split": {"test": ["P9"], "validation": ["P8"]}}
    return pipeline.CONFIG.of({"name": "lc", "slides": "demo/smoke", "train": train, **changes})


def test_smaller_subsets_are_parts_of_larger_ones_and_depend_on_names_and_seed_alone() -> None:
    names = [f"S{number}" for number in range(9)]
    order = shuffled(names, 3)
    assert sorted(order) == names
    assert shuffled(names[::-1], 3) == order
    assert len({shuffled(names, seed) for seed in range(5)}) == 5
    values: dict[str, Any] = {"name": "lc", "split": {"test": ["P9"], "validation": ["P8"]}}
    sides = [
        set(CurvePoint(1, (), (), (), order[:count], count=count).training(values)["split"]["train"])
        for count in (1, 3, 8)
    ]
    assert sides[0] < sides[1] < sides[2]
    assert values["split"] == {"test": ["P9"], "validation": ["P8"]}


def test_each_point_is_a_training_of_its_own_and_the_last_evaluation_reads_all() -> None:
    planned = planned_steps(_config(learning_curve={"sections": [4, 2], "orders": [0, 7]}))
    names = [one.name for one in planned if isinstance(one, SpotsTrainConfig)]
    assert names == ["lc-train2-order0", "lc-train2-order7", "lc-train4-order0", "lc-train4-order7", "lc"]
    for one in planned:
        if isinstance(one, SpotsTrainConfig):
            assert (one.split.test, one.split.validation) == (["P9"], ["P8"])
    scored = [one for one in planned if isinstance(one, SpotsEvaluateConfig)]
    assert [one.permutations for one in scored] == [0, 0, 0, 0, 20]
    assert scored[-1].curve == [f"evaluate/{name}" for name in names[:-1]]
    assert [one.curve for one in scored[:-1]] == [[]] * 4


def test_no_curve_changes_no_fingerprint() -> None:
    assert "learning_curve" not in _config().fingerprint_values()
    assert _config(learning_curve=[2, 4]).learning_curve == _config(learning_curve={"sections": [2, 4]}).learning_curve
    (scored,) = [one for one in planned_steps(_config()) if isinstance(one, SpotsEvaluateConfig)]
    assert "curve" not in scored.fingerprint_values()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_curve": [0]}, r"learning_curve\.sections"),
        ({"learning_curve": [2, 2]}, "a number is listed twice in"),
        ({"learning_curve": [2], "folds": 3, "train": {"model": "ridge"}}, "set folds=null and protocol=null"),
        (
            {"learning_curve": [2], "train": [{"model": one, "split": {"test": [one]}} for one in ("ridge", "knn")]},
            r"have different splits: set one in `shared\.split`",
        ),
        ({"learning_curve": [2], "complete": {}}, "set complete=null"),
    ],
)
def test_what_contradicts_a_curve_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned_steps(_config(**changes))
