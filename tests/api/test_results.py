"""Results in Python: tables, slides and failures of an artifact, and errors that list what there is."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import raystp as rs
from raystp import tables
from raystp.artifacts import ArtifactWriter
from raystp.errors import ArtifactError, ConfigError
from raystp.storage import StoragePath


@pytest.fixture
def result(tmp_path: Path) -> rs.StepResult:
    """A `predict` artifact of one slide; a second one failed with a reason that is HTML."""
    path = StoragePath.of(tmp_path / "store" / "predict" / "toy-0123456789ab")
    writer = ArtifactWriter(path, "predict", "toy", "0123456789ab", {}, {})
    (path / "slides.csv").write_bytes(b"slide,tiles\nS1,6\n")
    for part in range(2):
        columns = [["S1"] * 3, range(3 * part, 3 * part + 3), [0.0] * 3, [0.0] * 3, [8.0] * 3, [None] * 3]
        (path / "tiles" / f"S1.{part}.parquet").write_table(tables.of_columns(columns, tables.TILES))
    (path / "anndata" / "S1.h5ad").write_file(ad.AnnData(np.ones((6, 2), np.float32)).write_h5ad)
    writer.finish({"slides": 1}, [{"slide": "S2", "stage": "tile", "reason": "<script>"}], {})
    return rs.open_artifact("predict/toy", store=tmp_path / "store")


def test_a_result_gives_its_tables_slides_and_failures(result: rs.StepResult) -> None:
    assert result.tables == ["failures", "slides", "tiles"]
    assert result.table().to_dict("records") == [{"slide": "S1", "tiles": 6}]
    assert result.table("tiles")["tile"].tolist() == list(range(6))
    assert result.table("tiles/S1.1")["tile"].tolist() == [3, 4, 5]
    assert result.anndata("S1").shape == (6, 2)
    assert result.failures["slide"].tolist() == ["S2"]
    assert result.manifest.rows == {"slides": 1}
    assert repr(result) == "<predict/toy-0123456789ab: 1 slides, 1 failures>"


def test_a_notebook_shows_text_and_runs_none_of_it(result: rs.StepResult) -> None:
    shown = result._repr_html_()
    assert "<b>predict: toy</b>" in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown


def test_what_is_absent_is_named_with_what_there_is(result: rs.StepResult, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no table 'tile'; it has 'failures', 'slides', 'tiles'"):
        result.table("tile")
    with pytest.raises(ArtifactError, match="has no AnnData of 'S2'; it has 'S1'"):
        result.anndata("S2")
    with pytest.raises(ArtifactError, match="no artifact 'predict/other' in"):
        rs.open_artifact("predict/other", store=tmp_path / "store")
    assert rs.open_artifact(result.path).manifest == result.manifest


def test_an_unknown_step_or_field_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"there is no step 'tiles'; the steps are complete, demo, doctor, embed"):
        rs.run("tiles")
    with pytest.raises(ConfigError, match="tile_uk: there is no such field; did you mean 'tile_um'"):
        rs.run("tile", slides="slides.csv", tile_uk=3)


def test_paths_results_and_parts_are_fields(result: rs.StepResult, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is an artifact of the 'predict' step; give one of the 'tile' step"):
        rs.embed_tiles(result, encoder={"name": "tiny"}, store=tmp_path / "store", run={"threads": 2})


def test_a_command_without_an_artifact_returns_its_text(result: rs.StepResult) -> None:
    text = rs.run("inspect", item=result.path)
    assert isinstance(text, str)
    assert "predict/toy" in text


def test_a_step_without_a_main_table_asks_for_a_name(tmp_path: Path) -> None:
    path = StoragePath.of(tmp_path / "store" / "spots" / "toy-0123456789ab")
    ArtifactWriter(path, "spots", "toy", "0123456789ab", {}, {}).finish({"sections": 0}, [], {})
    (path / "bins.csv").write_bytes(b"slide\nS1\n")
    with pytest.raises(ArtifactError, match="has no main table: name one; it has 'bins'"):
        rs.open_artifact("spots/toy", store=tmp_path / "store").table()
