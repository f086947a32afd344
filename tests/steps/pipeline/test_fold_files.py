"""Folds of split files and of single sections: the sides are those that are stated, and faults name the file."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raystp.errors import ConfigError
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig
from raystp.steps.pipeline.folds.files import read_fold_files
from raystp.steps.train.spots.config import SpotsTrainConfig

FIRST = {
    "name": "IDC-fold0",
    "split": {"protocol": "patient", "train": ["S3", "S4"], "test": ["S1"]},
    "panel": {"name": "hest-bench-IDC", "file": "/data/IDC/var_50genes.json"},
}
SECOND = {"split": {"test": ["S3", "S4"], "validation": ["S2"]}}


def _folder(tmp_path: Path, *files: dict[str, Any]) -> str:
    for number, values in enumerate(files):
        (tmp_path / f"fold{number}.yaml").write_text("# a fold\n" + yaml.safe_dump(values))
    return str(tmp_path)


def _config(folds: Any, **changes: Any) -> PipelineConfig:
    return pipeline.CONFIG.of(
        {"name": "cv", "slides": "demo/x", "train": {"model": "ridge"}, "folds": folds, **changes}
    )


def _trainings(config: PipelineConfig) -> dict[str, SpotsTrainConfig]:
    return {one.name: one for one in planned_steps(config) if isinstance(one, SpotsTrainConfig)}


def test_each_file_is_a_fold_with_its_sides_and_its_panel(tmp_path: Path) -> None:
    files = {"files": _folder(tmp_path, FIRST, SECOND)}
    found = _trainings(_config(files))
    assert list(found) == ["cv-fold0", "cv-fold1"]
    first, second = found.values()
    assert (first.split.train, first.split.test) == (["S3", "S4"], ["S1"])
    assert (first.panel.name, first.panel.file) == ("hest-bench-IDC", "/data/IDC/var_50genes.json")
    assert (second.split.train, second.split.test, second.split.validation) == (None, ["S3", "S4"], ["S2"])
    assert second.panel.file is None
    own = _trainings(_config(files, shared={"panel": {"variable": 7}, "split": {"protocol": "section"}}))
    assert (own["cv-fold0"].panel.variable, own["cv-fold0"].panel.file) == (7, None)
    assert [one.split.protocol for one in own.values()] == ["patient", "section"]  # what a file states is kept


def test_where_split_files_are_is_no_part_of_a_fingerprint(tmp_path: Path) -> None:
    values = [_config({"files": str(tmp_path / name)}).fingerprint_values() for name in ("a", "b")]
    assert values[0] == values[1]
    assert values[0]["folds"] == {"files": True}
    titled = _config({"files": "splits"}, protocol="hest-paper")
    assert titled.title_of_folds(2) == "2 folds as splits states them, protocol hest-paper"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("split: {train: [A]}", r"fold0\.yaml is not a valid split file:\n  split\.test"),
        ("split: {test: [A]}\nmodel: ridge", "model: there is no such field"),
        ("split: [A", "is not YAML"),
        ("split: {test: [A, B], train: [C, B]}", "has 'B' on two sides of `split`"),
        ("- A", "is no mapping of `split` and `panel`"),
    ],
)
def test_a_file_that_is_no_split_is_refused_with_its_name(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "fold0.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_fold_files(str(tmp_path))


def test_a_folder_without_split_files_or_with_two_of_one_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no fold0\.yaml, fold1\.yaml \.\.\.: it is empty or absent"):
        read_fold_files(str(tmp_path / "gone"))
    _folder(tmp_path, FIRST)
    (tmp_path / "fold00.yaml").write_text(yaml.safe_dump(FIRST))
    with pytest.raises(ConfigError, match="has two files of one number"):
        read_fold_files(str(tmp_path))


def test_files_leave_nothing_to_choose(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the files of the folds say who is held out: remove `count`, or `files`"):
        _config({"files": str(tmp_path), "count": 3})
    config = _config({"files": str(tmp_path)})
    assert config.folds is not None
    assert _config(config.folds.model_dump(mode="json")).folds == config.folds  # as a dry run writes it


def test_folds_by_section_hold_out_sections_under_the_protocol_section() -> None:
    (planned,) = _trainings(_config("section")).values()
    assert planned.split.protocol == "section"
    with pytest.raises(ConfigError, match="`section` leaves other sections of a patient in training"):
        planned_steps(_config("section", shared={"split": {"protocol": "patient"}}))
    cases = {"targets": "cases", "cases": {"table": "rna.parquet", "scale": "counts"}, "model": "attention"}
    with pytest.raises(ConfigError, match="a training learns from cases"):
        planned_steps(_config("section", train=cases))
