"""Two kinds of targets, each with a config of its own."""

from typing import Any

import pytest

from raystp.errors import ConfigError
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.spots.config import SpotsEvaluateConfig

SPOTS: dict[str, Any] = {"spots": "spots/a", "predictions": ["impute/a"], "run": {}}
CASES: dict[str, Any] = {"targets": "cases", "cases": {"table": "/t.csv"}, "predictions": ["impute/a"], "run": {}}


def test_targets_choose_the_config_class_and_spots_are_the_default() -> None:
    assert type(EvaluateConfig.of(SPOTS)) is SpotsEvaluateConfig
    assert EvaluateConfig.of({**SPOTS, "targets": "spots"}) == EvaluateConfig.of(SPOTS)
    assert type(EvaluateConfig.of(CASES)) is CasesEvaluateConfig


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({**SPOTS, "targets": "slides"}, "targets: must be spots or cases, got 'slides'"),
        ({key: value for key, value in CASES.items() if key != "targets"}, "needs `targets: cases`"),
        ({**SPOTS, "cases": {"table": "/t.csv"}}, "needs `targets: cases`"),
        ({**SPOTS, "bulk": {"table": "/t.csv"}}, "bulk: labels of whole cases are now `targets: cases` with `cases: "),
        ({**CASES, "bulk": {"table": "/t.csv"}}, "bulk: labels of whole cases are now `targets: cases` with `cases: "),
        ({**CASES, "spots": "spots/a"}, "spots: measured spots need `targets: spots`"),
        ({"predictions": ["impute/a"], "run": {}}, "spots: must be given"),
        ({"targets": "cases", "predictions": ["impute/a"], "run": {}}, "cases: must be given"),
    ],
)
def test_a_config_that_mixes_targets_is_refused_with_the_key_to_change(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        EvaluateConfig.of(values)


def test_the_fingerprint_of_scores_on_spots_has_no_targets() -> None:
    """The digest of the targets is one of the inputs."""
    assert EvaluateConfig.of(SPOTS).fingerprint_values() == {"genes": [], "permutations": 20, "draws": 1000, "seed": 0}


def test_a_table_of_cases_counts_by_its_content() -> None:
    moved = {**CASES, "cases": {"table": "/elsewhere/t.csv"}}
    assert EvaluateConfig.of(CASES).fingerprint_values() == EvaluateConfig.of(moved).fingerprint_values()
    counts = {**CASES, "cases": {"table": "/t.csv", "scale": "counts"}}
    assert EvaluateConfig.of(CASES).fingerprint_values() != EvaluateConfig.of(counts).fingerprint_values()
