"""An export that is repeated writes its files again: they are outside the store, and may have been replaced."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.artifacts import Artifact, resolve
from raystp.interop.choice import FolderChoice
from raystp.interop.registry import FEATURES
from raystp.steps.export import step as export
from raystp.steps.export.config import ExportConfig
from raystp.steps.imports import step as imports
from raystp.steps.imports.config import ImportConfig
from raystp.storage import StoragePath
from tests.interop.features.trident_maker import Maker


@pytest.fixture(autouse=True)
def _tasks_as_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (imports, export):
        monkeypatch.setattr(step, "map_tasks", lambda function, items, **_: enumerate(map(function, items)))
        monkeypatch.setattr(step, "session", lambda _: __import__("contextlib").nullcontext())


def _embeddings(folder: Path, name: str, vectors: np.ndarray) -> None:
    job = Maker(folder / name, vectors=vectors).write()
    (folder / "slides.csv").write_text("slide,path,mpp\nS1,S1.svs,0.25\n")
    values = {"format": "trident", "path": str(job), "slides": str(folder / "slides.csv"), "name": name}
    assert isinstance(imports.run(ImportConfig.of({**values, "run": {"store": str(folder / "store")}})), Artifact)


def _export(folder: Path, name: str, **run: Any) -> np.ndarray:
    values = {"format": "trident", "artifact": f"embed/{name}", "out": str(folder / "out"), "name": name}
    export.run(ExportConfig.of({**values, "run": {"store": str(folder / "store"), **run}}))
    form, choice = FEATURES["trident"], FolderChoice()
    (files,) = form.find(StoragePath.of(folder / "out"), choice).slides
    return form.read(files, choice, 0.25).vectors


def test_a_repeated_export_replaces_the_files_of_another_one_and_those_that_are_gone(tmp_path: Path) -> None:
    first, second = (np.full((6, 4), value, np.float32) for value in (1, 2))
    _embeddings(tmp_path, "a", first)
    _embeddings(tmp_path, "b", second)
    for name, vectors in (("a", first), ("b", second), ("a", first)):
        np.testing.assert_array_equal(_export(tmp_path, name), vectors)
    next((tmp_path / "out").rglob("S1.h5")).unlink()
    np.testing.assert_array_equal(_export(tmp_path, "a"), first)
    assert resolve(str(tmp_path / "store"), "export/a", "export").manifest.rows == {"slides": 1, "tiles": 6}
