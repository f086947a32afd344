"""An import that is repeated: what is other work, and what two artifacts of one import must agree on."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.expression.embeddings.read import read_embeddings
from raystp.steps.imports import step as imports
from raystp.steps.imports import work
from raystp.steps.imports.config import ImportConfig
from tests.interop.features.trident_maker import Maker
from tests.slides.conftest import write_pyramid


@pytest.fixture(autouse=True)
def _tasks_as_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "map_tasks", lambda function, items, **_: enumerate(map(function, items)))
    monkeypatch.setattr(imports, "session", lambda _: __import__("contextlib").nullcontext())


def _import(folder: Path, **run: Any) -> Artifact:
    values = {"format": "trident", "path": str(folder / "job"), "slides": str(folder / "slides.csv"), "name": "x"}
    imported = imports.run(ImportConfig.of({**values, "run": {"store": str(folder / "store"), **run}}))
    assert isinstance(imported, Artifact)
    return imported


def _tiles(folder: Path) -> Artifact:
    return resolve(str(folder / "store"), "tile/x", "tile")


def _slide(folder: Path, mpp: float) -> None:
    image = np.full((1100, 1600, 3), 240, np.uint8)
    write_pyramid(folder / "S1.tiff", image, (mpp, mpp))


def test_another_slide_of_the_same_name_is_other_work_since_it_gives_the_um_per_px(tmp_path: Path) -> None:
    Maker(tmp_path / "job").write()
    (tmp_path / "slides.csv").write_text("slide,path\nS1,S1.tiff\n")
    _slide(tmp_path, 0.25)
    first = _import(tmp_path)
    assert first.manifest.notes["side"] == pytest.approx(128.0, rel=1e-3)
    _slide(tmp_path, 0.5)
    second = _import(tmp_path)
    assert second.manifest.fingerprint != first.manifest.fingerprint
    assert second.manifest.notes["side"] == pytest.approx(256.0, rel=1e-3)


def test_tiles_that_were_removed_are_written_again_with_their_vectors(tmp_path: Path) -> None:
    Maker(tmp_path / "job").write()
    (tmp_path / "slides.csv").write_text("slide,path,mpp\nS1,S1.svs,0.25\n")
    first = _import(tmp_path)
    _tiles(tmp_path).path.remove()
    _import(tmp_path)
    written = (_tiles(tmp_path).path / "tiles" / "S1.parquet").read_table(tables.TILES.names)
    assert written.equals(read_embeddings(first, "S1").select(tables.TILES.names))


def test_vectors_of_one_slide_under_two_patients_are_a_possible_leak(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for slide in ("S1", "S2", "S3"):
        Maker(tmp_path / "job", slide=slide).write()
    rows = [f"{slide},{slide}.svs,{patient},0.25" for slide, patient in (("S1", "A"), ("S2", "B"), ("S3", "A"))]
    (tmp_path / "slides.csv").write_text("\n".join(["slide,path,patient,mpp", *rows]))
    with caplog.at_level("WARNING", logger="raystp"):
        _import(tmp_path)
    said = "slides 'S1' (patient 'A') and 'S2' (patient 'B') and 'S3' (patient 'A') have the same content: a possible"
    assert said in caplog.text


def test_a_file_that_changes_while_it_is_imported_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, original = Maker(tmp_path / "job"), work._import
    maker.write()
    (tmp_path / "slides.csv").write_text("slide,path,mpp\nS1,S1.svs,0.25\n")

    def changed(task: work.ImportTask) -> work.ImportedSlide:
        with h5py.File(maker.features, "a") as file:
            file["features"][0, 0] = 7
        return original(task)

    with monkeypatch.context() as patch:
        patch.setattr(work, "_import", changed)
        (row,) = _import(tmp_path).failures().to_pylist()
    assert "changed while they were imported: run the import again" in row["reason"]
    again = _import(tmp_path)
    assert tables.matrix(read_embeddings(again, "S1")["vector"])[0, 0] == 7


def test_vectors_never_have_a_slide_that_their_finished_tiles_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slide in ("S1", "S2"):
        Maker(tmp_path / "job", slide=slide).write()
    (tmp_path / "slides.csv").write_text("slide,path,mpp\nS1,S1.svs,0.25\nS2,S2.svs,0.25\n")
    original = work._import

    def fails_once(task: work.ImportTask) -> work.ImportedSlide:
        if task.source.slide == "S2":
            raise OSError("the store did not answer")
        return original(task)

    def interrupted(*_: Any, **__: Any) -> Artifact:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # the tiles are finished, and not the vectors
        patch.setattr(work, "_import", fails_once)
        patch.setattr(imports, "_finish_embeddings", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _import(tmp_path)
    for retry, slides in ((False, ["S1"]), (True, ["S1", "S2"])):
        embed = _import(tmp_path, retry_failed=retry)
        assert list(embed.manifest.notes["units"]) == slides
        assert _tiles(tmp_path).table("slides.parquet", tables.SLIDES)["slide"].to_pylist() == slides
