"""The output folder of predict: earlier predictions never stay beside new ones, and no other file is replaced."""

import logging
from pathlib import Path

import pytest

from raystp.artifacts import Artifact
from raystp.errors import ConfigError
from raystp.steps.impute.slide_table import SlideResult, slides_csv
from raystp.steps.predict.delivery import check_delivery, deliver, written_slides
from raystp.storage import StoragePath
from tests.steps.conftest import finish


def _prediction(store: StoragePath, name: str, slides: dict[str, bytes]) -> Artifact:
    """Leave a prediction whose files hold the given bytes; a slide with no bytes has none."""
    done = [slide for slide, content in slides.items() if content]
    artifact = finish(store, "predict", name, {"slides": done})
    for slide in done:
        (artifact.path / "anndata" / f"{slide}.h5ad").write_bytes(slides[slide])
    results = [
        SlideResult(slide, "P", len(content), 0.5, 112.0, "tiny", "m", None, "") for slide, content in slides.items()
    ]
    (artifact.path / "slides.csv").write_bytes(slides_csv(results))
    (artifact.path / "summary.md").write_bytes(f"# Predicted expression of {name}".encode())
    return artifact


@pytest.fixture
def store(tmp_path: Path) -> StoragePath:
    return StoragePath.of(tmp_path / "store")


@pytest.fixture
def out(tmp_path: Path) -> StoragePath:
    return StoragePath.of(tmp_path / "out")


def test_a_second_prediction_replaces_the_first_and_removes_what_has_none_now(
    store: StoragePath, out: StoragePath, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(_prediction(store, "first", {"a": b"1", "b": b"1"}), out)
    (out / "own.h5ad").write_bytes(b"mine")
    check_delivery(out, {"a", "b", "c"})
    deliver(_prediction(store, "second", {"a": b"2", "b": b"", "c": b"2"}), out)
    assert out.names() == ["a.h5ad", "c.h5ad", "own.h5ad", "slides.csv", "summary.md"]
    assert [(out / f"{one}.h5ad").read_bytes() for one in ("a", "c", "own")] == [b"2", b"2", b"mine"]
    assert "removed 'b.h5ad' of an earlier run" in caplog.text
    assert written_slides(out) == {"a", "c"}


def test_a_folder_with_predictions_of_other_slides_is_refused(store: StoragePath, out: StoragePath) -> None:
    deliver(_prediction(store, "first", {"a": b"1", "b": b"1"}), out)
    with pytest.raises(ConfigError, match=r"holds predictions of 1 slides that this run does not have \('b'\): choose"):
        check_delivery(out, {"a"})
    check_delivery(out, {"a", "b"})


@pytest.mark.parametrize("name", ["a.h5ad", "slides.csv", "summary.md"])
def test_a_file_that_predict_has_not_written_is_never_replaced(out: StoragePath, name: str) -> None:
    (out / name).write_bytes(b"slide,path\na,a.svs\n")
    with pytest.raises(ConfigError, match=rf"{name}.*`raystp predict` has not written.*: choose another folder"):
        check_delivery(out, {"a"})


def test_an_interrupted_delivery_is_continued(
    store: StoragePath, out: StoragePath, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    artifact = _prediction(store, "first", {"a": b"1", "b": b"1"})
    deliver(artifact, out)
    (out / "summary.md").remove()  # the last file
    (out / "b.h5ad").remove()
    check_delivery(out, {"a", "b"})
    deliver(artifact, out)
    assert out.names() == ["a.h5ad", "b.h5ad", "slides.csv", "summary.md"]
    assert caplog.text == ""
