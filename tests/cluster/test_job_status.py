"""`ray job submit`: the exit status of a step decides whether Ray marks its job SUCCEEDED or FAILED."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cluster.job_cluster import Cluster, summary_of

pytestmark = [pytest.mark.slow, pytest.mark.faults]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides, and a table with a fourth that is damaged."""
    folder = tmp_path_factory.mktemp("status")
    pixels = np.full((400, 400, 3), 240, np.uint8)
    pixels[60:340, 60:340] = (150, 80, 160)
    for name in ("A", "B", "C"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "D.png").write_bytes(b"no slide")
    lines = [f"{name},{name}.png,P{name},0.5" for name in "ABCD"]
    (folder / "all.csv").write_text("\n".join(["slide,path,patient,mpp", *lines]))
    (folder / "good.csv").write_text("\n".join(["slide,path,patient,mpp", *lines[:3]]))
    return folder


@pytest.mark.parametrize(
    ("job", "table", "words", "expected"),
    [
        ("all-good", "good.csv", [], ("SUCCEEDED", 0)),
        ("wrong-value", "good.csv", ["tile_um=-1"], ("FAILED", 1)),
        ("wrong-flag", "good.csv", ["--tile-ums", "16"], ("FAILED", 2)),
        ("one-failed", "all.csv", [], ("FAILED", 3)),
        ("count-allows", "all.csv", ["run.max_failed=1"], ("SUCCEEDED", 0)),
        ("share-allows", "all.csv", ["run.max_failed=0.25"], ("SUCCEEDED", 0)),
        ("share-refuses", "all.csv", ["run.max_failed=0.2"], ("FAILED", 3)),
    ],
)
def test_the_status_of_a_job_follows_the_exit_status_of_its_step(
    cluster: Cluster, folder: Path, *, job: str, table: str, words: list[str], expected: tuple[str, int]
) -> None:
    given = [f"slides={folder / table}", "tile_um=16", f"run.store={folder / 'store'}", *words]
    done = cluster.submit("jobs/tile.py", *given, job=job)
    assert cluster.state(job) == expected, done.stdout
    assert (done.returncode == 0) == (expected[0] == "SUCCEEDED")
    summary = summary_of(done.stdout)
    assert summary["exit"] == expected[1]
    if table == "all.csv":
        assert (summary["failed_slides"], summary["tried_slides"]) == (1, 4)
