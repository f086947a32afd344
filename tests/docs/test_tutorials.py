"""The tutorials: each notebook runs from top to bottom, and prints what its stored outputs show.

Outputs are stored so that the site has pictures without an execution. Printed values are the same on each machine;
pictures are not compared.
"""

import copy
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed; it comes with the `dev` extra")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; it comes with the `dev` extra")

FOLDER = ROOT / "docs" / "tutorials"
FAST, WITH_RAY = ["01-one-slide"], ["02-train-and-impute", "03-cohort-on-a-cluster"]
NOTEBOOKS = [*FAST, *(pytest.param(name, marks=pytest.mark.faults) for name in WITH_RAY)]
MOST_BYTES = 300_000
"""Of a notebook with its pictures."""


def _printed(cell: Any) -> str:
    """Return what a cell prints and returns as text; not a figure's size, and nothing of stderr."""
    texts = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell.get("outputs", [])]
    names = [one.get("name") for one in cell.get("outputs", [])]
    return "".join(text for text, name in zip(texts, names, strict=True) if name != "stderr" and "<Figure" not in text)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_tutorial_runs_and_prints_what_it_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # short: a Unix socket's path is limited to 107 bytes
    stored = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    executed = copy.deepcopy(stored)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(executed, timeout=500, kernel_name="python3", resources=where).execute()
    assert [_printed(cell) for cell in executed.cells] == [_printed(cell) for cell in stored.cells]


def test_every_notebook_is_run_and_is_small() -> None:
    files = {path.stem: path.stat().st_size for path in FOLDER.iterdir()}
    assert sorted(files) == sorted([*FAST, *WITH_RAY])
    assert max(files.values()) < MOST_BYTES


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_stored_output_has_a_path_or_an_error_of_a_machine(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert [text for text in map(_printed, cells) if re.search(r"/(?:tmp|home|root|work)/", text)] == []
    outputs = [one for cell in cells for one in cell.get("outputs", [])]
    assert [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_has_no_relative_links(path: Path) -> None:
    """The site does not resolve them in a notebook, and does not report them as broken."""
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.source for cell in cells if re.search(r"\]\((?!https://)", cell.source)] == []
