"""run: a pipeline's config follows from a folder or a table and a few flags, and the pipeline does all the work."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raystp.errors import ConfigError
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig
from raystp.steps.run import step as run
from raystp.steps.run.step import pipeline_values, rows_of

HEADER = "slide,path,patient,layout,counts\n"


def _table(folder: Path, *rows: str) -> str:
    (folder / "slides.csv").write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return str(folder / "slides.csv")


def _values(slides: str, **fields: Any) -> dict[str, Any]:
    config = run.CONFIG.of({"slides": slides, **fields})
    return pipeline_values(config, rows_of(config))


@pytest.fixture
def cohort(tmp_path: Path) -> str:
    return _table(tmp_path, *(f"{n},{n}.svs,{p},scverse,{n}.h5ad" for n, p in [("A", "P"), ("B", "Q"), ("C", "P")]))


def test_slides_alone_are_tiled_and_embedded_with_the_tiles_of_the_encoder(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    values = _values(str(tmp_path), encoder="uni_v2", weights="/w.safetensors")
    assert values == {
        "name": "default",
        "slides": str(tmp_path),
        "tile": {"tile_um": 112.0, "tile_px": 224},
        "embed": {"encoder": {"name": "uni_v2", "weights": "/w.safetensors"}},
    }
    assert [type(one).__name__ for one in planned_steps(PipelineConfig.of(values))] == ["TileConfig", "EmbedConfig"]


def test_measured_sections_go_on_to_a_report_with_the_last_patient_held_out(cohort: str) -> None:
    values = _values(cohort)
    assert values["shared"] == {"split": {"test": ["Q"]}}
    assert values["train"] == {"model": "ridge"}
    assert {type(one).__name__ for one in planned_steps(PipelineConfig.of(values))} >= {"SpotsConfig", "ImputeConfig"}
    assert _values(cohort, test=["P"], model=["bleep", "ridge"])["train"] == [{"model": "bleep"}, {"model": "ridge"}]
    assert _values(cohort, test=["P"])["shared"] == {"split": {"test": ["P"]}}


def test_one_patient_is_divided_by_section_and_one_section_not_at_all(tmp_path: Path) -> None:
    two = _table(tmp_path, "A,A.svs,P,scverse,A.h5ad", "B,B.svs,P,scverse,B.h5ad", "C,C.svs,,,")
    assert _values(two)["shared"] == {"split": {"protocol": "section", "test": ["B"]}}
    with pytest.raises(ConfigError, match="one measured section cannot both be trained on and be scored"):
        _values(_table(tmp_path, "A,A.svs,P,scverse,A.h5ad"))


def test_fields_of_the_pipeline_take_precedence_and_are_kept(cohort: str) -> None:
    values = _values(
        cohort,
        encoder="uni_v2",
        root="/data",
        tile={"tile_um": 64},
        shared={"panel": {"variable": 9}},
        impute={"k": 3},
        run={"store": "/s", "tracking": "none"},
    )
    assert values["tile"] == {"root": "/data", "tile_um": 64, "tile_px": 224}
    assert values["spots"] == {"root": "/data"}
    assert values["shared"] == {"split": {"test": ["Q"]}, "panel": {"variable": 9}}
    assert (values["impute"], values["run"]) == ({"k": 3}, {"store": "/s", "tracking": "none"})
    given = {"model": "knn", "split": {"test": ["B"]}}
    assert _values(cohort, train=given)["train"] == given
    assert "shared" not in _values(cohort, train=given)


def test_a_flag_and_a_field_of_the_same_part_are_joined(cohort: str) -> None:
    encoder, split = {"sha256": "a" * 64}, {"validation": ["Q"]}
    values = _values(cohort, encoder="uni_v2", embed={"encoder": encoder}, test=["P"], shared={"split": split})
    assert values["embed"] == {"encoder": {"name": "uni_v2", **encoder}}
    assert values["shared"] == {"split": {"test": ["P"], **split}}


def test_folds_choose_who_is_held_out(cohort: str) -> None:
    values = _values(cohort, folds=2)
    assert "shared" not in values
    assert PipelineConfig.of(values).folds is not None
    planned_steps(PipelineConfig.of(values))


def test_a_model_for_slides_without_measured_sections_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    with pytest.raises(ConfigError, match=r"model: no row of .* is a measured section"):
        _values(str(tmp_path), model=["ridge"])


def test_the_printed_pipeline_is_the_one_that_is_run(cohort: str, tmp_path: Path) -> None:
    config = run.CONFIG.of({"slides": cohort, "encoder": "uni_v2", "name": "007", "evaluate": {"permutations": 2}})
    (tmp_path / "p.yaml").write_text(run.dry_run(config).text)
    assert PipelineConfig.load(tmp_path / "p.yaml") == PipelineConfig.of(pipeline_values(config, rows_of(config)))
    assert yaml.safe_load((tmp_path / "p.yaml").read_text()) == pipeline_values(config, rows_of(config))
    with pytest.raises(ConfigError, match="tile_ums: there is no such field"):
        run.dry_run(config.model_copy(update={"tile": {"tile_ums": 3}}))


@pytest.mark.ray
def test_a_folder_is_tiled_and_embedded_and_the_printed_pipeline_finds_it_done(
    smoke_store: Path, tmp_path: Path
) -> None:
    (folder,) = (smoke_store / "demo").glob("*/slides")
    fields = {"slides": str(folder / "patient-A*"), "tile": {"tile_um": 64}, "run": {"store": str(tmp_path / "store")}}
    config = run.CONFIG.of({**fields, "run": {"store": str(tmp_path / "store"), "tracking": "none"}})
    done = run.run(config)
    assert (set(done.manifest.inputs), done.manifest.failures) == ({"tile", "embed"}, 0)
    (tmp_path / "p.yaml").write_text(run.dry_run(config).text)
    assert pipeline.run(PipelineConfig.load(tmp_path / "p.yaml")).manifest == done.manifest
