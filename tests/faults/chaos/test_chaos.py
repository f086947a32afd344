"""The whole pipeline under random faults: kills of workers, nodes and drivers, and errors of the object store."""

from pathlib import Path

import pytest

from tests.faults.chaos.soak import soak

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

SHORT_S = 1.0
"""Enough for one pipeline; `make bench-chaos` runs for 15 minutes."""


@pytest.mark.timeout(1200)
def test_a_pipeline_under_random_faults_equals_one_without_row_for_row(tmp_path: Path) -> None:
    whole, *disturbed = soak(tmp_path, SHORT_S, seed=0)
    assert whole.exits == [0]
    for run in disturbed:
        assert run.exits[-1] == 0
        assert not run.differences
        assert sum(run.faults.values()) > 0
