"""Folds side by side on Ray: their number at a time changes no score."""

from pathlib import Path

import pytest

from raystp.cluster.training.workers import inside_process
from raystp.steps.train import step as train
from raystp.storage import StoragePath
from tests.steps.train.choice.cohort import TEST, make_cohort

KNN = {"model": "knn", "choose": {"knn.k": [3, 9]}}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_one_and_two_at_a_time_choose_as_one_process_does(tmp_path: Path) -> None:
    found = {}
    for at_a_time in (0, 1, 2):
        store = StoragePath.of(tmp_path / str(at_a_time))
        make_cohort(store, {"A": "P1", "B": "P2", TEST: "P3"}, spots=12)
        run = {"store": store.uri, "tracking": "none", "concurrent": at_a_time or None}
        config = train.CONFIG.of(
            {
                "spots": "spots/tiny",
                "embeddings": "embed/tiny",
                "panel": {"variable": 6},
                "split": {"test": [TEST]},
                "fit": {"select": "cv"},
                **KNN,
                "run": run,
            }
        )
        if at_a_time:
            found[at_a_time] = train.run(config).manifest
            continue
        with inside_process():
            found[at_a_time] = train.run(config).manifest
    assert found[1].notes == found[2].notes == found[0].notes
    assert found[1].folder == found[2].folder == found[0].folder
