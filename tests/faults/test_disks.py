"""Disks and memory that are too small: a sentence with the place in it, nothing half, and a run that goes on later."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raystp.artifacts import Artifact, resolve
from tests.faults import cohort
from tests.faults.cohort import EMBEDDING, SLIDES, TILING, left, names
from tests.faults.drivers import DONE, FAILED, INCOMPLETE, Drivers
from tests.faults.traps import Plot, Trap

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

RAYSTP = str(Path(sys.executable).with_name("raystp"))
SMALL = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && "$@"; status=$?; cp -r "$LEFT" "$COPY"; exit $status'


def on_a_small_disk(folder: Path, size: str, *words: str, copy: Path) -> "subprocess.CompletedProcess[str]":
    """Run raystp where a folder is a disk of its own; what is left on that disk is copied."""
    if not shutil.which("unshare"):
        pytest.skip("a disk of one's own needs unshare (util-linux)")
    folder.mkdir(exist_ok=True)
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL, "sh", size, str(folder)]
    environment = {**os.environ, "LEFT": str(folder), "COPY": str(copy)}
    ran = subprocess.run(
        [*shell, RAYSTP, *words], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    if "unshare:" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"this machine lends no disk of one's own: {ran.stderr.strip()}")
    return ran


def words(step: str, config: dict[str, Any]) -> list[str]:
    return [step, *(word for key, value in config.items() for word in ("--set", f"{key}={value}"))]


def test_a_disk_that_fills_up_for_one_slide_is_named_and_the_slide_is_there_once_there_is_room(
    oracle: Artifact, tiles: Artifact, drivers: Drivers, tmp_path: Path
) -> None:
    (tmp_path / "plot").mkdir()
    plot = Plot((Trap("full", "aside", slide="C", times=4),), tmp_path / "plot")
    config = {"tiles": tiles.path.uri, "run.store": str(tmp_path), **EMBEDDING}
    driver = drivers.run("embed", config, plot)
    assert driver.process.exitcode == INCOMPLETE, driver.said
    found = resolve(str(tmp_path), "embed/default", "embed")
    ((slide, reason),) = [(row["slide"], row["reason"]) for row in found.failures().to_pylist()]
    assert slide == "C"
    assert "/C.0000" in reason
    assert "File too large" in reason
    others = [slide for slide in SLIDES if slide != "C"]
    assert left(found, others).content == left(oracle, others).content
    assert not [name for name in names(found.path.local_path) if "C.0000" in name or ".aside-" in name]
    again = drivers.run("embed", {**config, "run.retry_failed": "true"}, plot)
    assert again.process.exitcode == DONE, again.said
    assert left(resolve(str(tmp_path), "embed/default", "embed")) == left(oracle)


def test_a_store_that_is_full_ends_in_a_sentence_and_the_same_command_goes_on_once_there_is_room(
    oracle: Artifact, tiles: Artifact, drivers: Drivers, tmp_path: Path
) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    config = {"tiles": tiles.path.uri, "run.store": str(store), **EMBEDDING}
    ran = on_a_small_disk(store, "96k", *words("embed", config), copy=copy)
    assert ran.returncode in {FAILED, INCOMPLETE}, ran.stderr
    assert "No space left on device" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    shutil.rmtree(store)
    copy.rename(store)
    again = drivers.run("embed", {**config, "run.retry_failed": "true"})
    assert again.process.exitcode == DONE, again.said
    assert left(resolve(str(store), "embed/default", "embed")) == left(oracle)


def test_little_shared_memory_is_told(slides: Path, tmp_path: Path) -> None:
    config = {"slides": cohort.table(tmp_path / "slides.csv", {"A": str(slides / "A.svs")}), **TILING}
    shared = Path("/dev/shm")
    step = words("tile", {**config, "run.store": str(tmp_path / "store")})
    ran = on_a_small_disk(shared, "16m", *step, copy=tmp_path / "copy")
    assert ran.returncode == DONE, ran.stderr
    assert "/dev/shm has 17 MB free, so Ray keeps what its processes share in files" in ran.stderr
