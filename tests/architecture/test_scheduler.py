"""The scheduler of the tests: a test that kills its worker fails once, and every other test runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CONFTEST = """
from tests.scheduler import OneRay

def pytest_xdist_make_scheduler(config, log):
    return OneRay(config, log)
"""
SOUND = """
def test_one(): pass
def test_two(): pass
"""
FATAL = """
import os
def test_before(): pass
def test_dies(): os._exit(3)
def test_after(): pass
"""
FILES = 6
RUN = ["-m", "pytest", "-p", "xdist", "-p", "no:cacheprovider", "-q", "-c", os.devnull, "--rootdir=."]
LIMIT_S = 300.0
"""Of a run that takes seconds."""


@pytest.mark.faults  # about 1 of 10 runs hangs after the death of its worker, in pytest-xdist 3.8 or execnet
@pytest.mark.parametrize("workers", [1, 2])
def test_a_test_that_kills_its_worker_fails_once_and_every_other_test_runs(tmp_path: Path, workers: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for number in range(FILES):
        (tmp_path / f"test_{number}.py").write_text(SOUND)
    (tmp_path / "test_fatal.py").write_text(FATAL)  # the last file: its worker has finished others
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *RUN, "-n", str(workers)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert f"1 failed, {2 * FILES + 2} passed" in done.stdout
    assert "crashed while running 'test_fatal.py::test_dies'" in done.stdout
