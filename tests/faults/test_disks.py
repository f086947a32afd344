"""Full disks and small memory: an error that names the file, no partial output, and a run that can resume."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raystp.artifacts import Artifact, resolve
from tests.faults import cohort
from tests.faults.cohort import EMBEDDING, SLIDES, TILING, names, snapshot
from tests.faults.drivers import DONE, FAILED, INCOMPLETE, Drivers
from tests.faults.traps import FaultPlan, Trap

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

RAYSTP = str(Path(sys.executable).with_name("raystp"))
SMALL = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && "$@"; status=$?; cp -r "$LEFT" "$COPY"; exit $status'


def on_a_small_disk(folder: Path, size: str, *words: str, copy: Path) -> "subprocess.CompletedProcess[str]":
    """Run raystp with a folder on its own small disk; copy the disk's files afterwards."""
    if not shutil.which("unshare"):
        pytest.skip("mounting a small disk needs unshare (util-linux)")
    folder.mkdir(exist_ok=True)
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL, "sh", size, str(folder)]
    environment = {**os.environ, "LEFT": str(folder), "COPY": str(copy)}
    ran = subprocess.run(
        [*shell, RAYSTP, *words], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    if "unshare:" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"this machine does not allow mounting a disk: {ran.stderr.strip()}")
    return ran


def command(step: str, config: dict[str, Any]) -> list[str]:
    return [step, *(word for key, value in config.items() for word in ("--set", f"{key}={value}"))]


def test_a_full_disk_fails_one_slide_by_name_and_a_retry_completes_it(
    oracle: Artifact, tiles: Artifact, drivers: Drivers, tmp_path: Path
) -> None:
    (tmp_path / "plan").mkdir()
    plan = FaultPlan((Trap("full", "writing", slide="C", times=4),), tmp_path / "plan")
    config = {"tiles": tiles.path.uri, "run.store": str(tmp_path), **EMBEDDING}
    driver = drivers.run("embed", config, plan)
    assert driver.process.exitcode == INCOMPLETE, driver.output
    found = resolve(str(tmp_path), "embed/default", "embed")
    ((slide, reason),) = [(row["slide"], row["reason"]) for row in found.failures().to_pylist()]
    assert slide == "C"
    assert "/C.0000" in reason
    assert "File too large" in reason
    others = [slide for slide in SLIDES if slide != "C"]
    assert snapshot(found, others).content == snapshot(oracle, others).content
    assert not [name for name in names(found.path.local_path) if "C.0000" in name or ".aside-" in name]
    again = drivers.run("embed", {**config, "run.retry_failed": "true"}, plan)
    assert again.process.exitcode == DONE, again.output
    assert snapshot(resolve(str(tmp_path), "embed/default", "embed")) == snapshot(oracle)


def test_a_full_store_ends_with_an_error_and_the_same_command_resumes_with_more_space(
    oracle: Artifact, tiles: Artifact, drivers: Drivers, tmp_path: Path
) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    config = {"tiles": tiles.path.uri, "run.store": str(store), **EMBEDDING}
    ran = on_a_small_disk(store, "96k", *command("embed", config), copy=copy)
    assert ran.returncode in {FAILED, INCOMPLETE}, ran.stderr
    assert "No space left on device" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    shutil.rmtree(store)
    copy.rename(store)
    again = drivers.run("embed", {**config, "run.retry_failed": "true"})
    assert again.process.exitcode == DONE, again.output
    assert snapshot(resolve(str(store), "embed/default", "embed")) == snapshot(oracle)


def test_small_shared_memory_gives_a_warning(slides: Path, tmp_path: Path) -> None:
    config = {"slides": cohort.table(tmp_path / "slides.csv", {"A": str(slides / "A.svs")}), **TILING}
    shared = Path("/dev/shm")
    words = command("tile", {**config, "run.store": str(tmp_path / "store")})
    ran = on_a_small_disk(shared, "16m", *words, copy=tmp_path / "copy")
    assert ran.returncode == DONE, ran.stderr
    assert "/dev/shm has only 17 MB free: Ray uses slower files for shared objects" in ran.stderr
