from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from raystp.errors import FormatError
from raystp.expression.folds import split_by_patient
from raystp.expression.genes.panel import read_panel
from raystp.interop.choice import TableChoice
from raystp.interop.sections import hest_bench
from raystp.interop.sections.tables import TableFiles
from raystp.slides.table import SlideRow, read_slide_table
from raystp.steps.train.config import TrainConfig
from raystp.storage import StoragePath
from tests.interop.sections.foreign import bench_folder, patches_file

FOLDS = [(["S3", "S4"], ["S1", "S2"]), (["S1", "S2"], ["S3", "S4"])]


def _read(root: Path, **choice: object) -> TableFiles:
    return hest_bench.table_files(StoragePath.of(root), TableChoice(**choice))  # type: ignore[arg-type]


def _written(tmp_path: Path, found: TableFiles) -> list[SlideRow]:
    for name, content in found.files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    return read_slide_table(str(tmp_path / "out" / "slides.csv"), None, "unused")


def test_a_task_is_a_slide_table_of_patches_with_the_um_per_px_of_their_slides(tmp_path: Path) -> None:
    root = bench_folder(tmp_path / "bench", FOLDS)
    patches_file(
        root / "IDC" / "patches" / "S1.h5", np.zeros((1, 8, 8, 3), np.uint8), np.eye(2)[:1], ["a"], pixel_size=0.25
    )
    rows = _written(tmp_path, _read(root, task="IDC"))
    assert [row.slide for row in rows] == ["S3", "S4", "S1", "S2"]
    assert [row.mpp for row in rows] == [0.5, 0.5, 0.25, 0.5]
    task = StoragePath.of(root / "IDC")
    assert (rows[0].path, rows[0].counts, rows[0].layout) == (task / "patches/S3.h5", task / "adata/S3.h5ad", "hest")


def test_each_fold_is_a_config_of_train_with_the_sides_as_given_and_the_panel(tmp_path: Path) -> None:
    rows = _written(tmp_path, _read(bench_folder(tmp_path / "bench", FOLDS)))
    patients = {row.section: row.patient for row in rows}
    for number, (train, test) in enumerate(FOLDS):
        file = tmp_path / "out" / "splits" / f"fold{number}.yaml"
        config = TrainConfig.load(file, ["model=ridge", "spots=spots/IDC", "embeddings=embed/IDC"])
        assert (config.name, config.split.train, config.split.test) == (f"IDC-fold{number}", train, test)
        split = split_by_patient(patients, test=config.split.test, train=config.split.train)
        assert not split.same_patient
        assert config.panel.file is not None
        assert read_panel(StoragePath.of(config.panel.file)) == ["ERBB2", "GNAS"]
    assert read_panel(StoragePath.of(tmp_path / "out" / "panel.json")) == ["ERBB2", "GNAS"]


def test_samples_that_the_same_folds_test_count_as_one_patient(tmp_path: Path) -> None:
    found = _read(bench_folder(tmp_path / "bench", FOLDS))
    patients = {row.section: row.patient for row in _written(tmp_path, found)}
    assert patients == {"S1": "IDC/tested-0", "S2": "IDC/tested-0", "S3": "IDC/tested-1", "S4": "IDC/tested-1"}
    assert "the bench names no patients, so samples that the same folds test count as one patient" in found.notes[0]


def test_patients_are_those_of_hests_csv_where_it_is_beside_the_tasks(tmp_path: Path) -> None:
    root = bench_folder(tmp_path / "bench", FOLDS)
    lines = ["dataset_title,id,patient", *(f"Study,S{n},{n}" for n in range(1, 5))]
    (root / "HEST_v1_1_0.csv").write_text("\n".join(lines))
    found = _read(root)
    assert {row.section: row.patient for row in _written(tmp_path, found)} == {
        f"S{n}": f"Study/{n}" for n in range(1, 5)
    }
    assert found.notes == ("patients are those of HEST_v1_1_0.csv",)
    (root / "HEST_v1_1_0.csv").write_text("\n".join(lines[:-1]))
    assert "lacks 'S4': the bench names no patients" in _read(root).notes[0]


def test_chosen_samples_alone_are_in_the_table_and_in_the_folds(tmp_path: Path) -> None:
    root = bench_folder(tmp_path / "bench", [*FOLDS, (["S1", "S3"], ["S2"])])
    found = _read(root, ids=("S1", "S3"))
    assert [row.slide for row in _written(tmp_path, found)] == ["S3", "S1"]
    assert sorted(name for name in found.files if name.startswith("splits/")) == [
        "splits/fold0.yaml",
        "splits/fold1.yaml",
    ]
    assert yaml.safe_load(found.files["splits/fold0.yaml"])["split"]["test"] == ["S1"]
    assert found.notes[-1] == "1 of 3 folds have no chosen sample on one side: not written"


def test_a_task_is_chosen_by_its_name_or_is_the_only_one_or_the_folder_itself(tmp_path: Path) -> None:
    root = bench_folder(tmp_path / "bench", FOLDS)
    assert _read(root / "IDC") == _read(root) == _read(root, task="IDC")
    bench_folder(tmp_path / "bench", FOLDS, task="READ")
    with pytest.raises(FormatError, match="has the tasks 'IDC', 'READ': choose one with --task; got None"):
        _read(root)
    with pytest.raises(FormatError, match="choose one with --task; got 'COAD'"):
        _read(root, task="COAD")
    with pytest.raises(FormatError, match=r"has no <TASK>/splits/train_0.csv; give the folder of hest-bench"):
        _read(tmp_path / "out")


def test_folds_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    root = bench_folder(tmp_path / "bench", [(["S1", "S2"], ["S2"])])
    with pytest.raises(FormatError, match="fold 0 trains on and tests 'S2'"):
        _read(root)
    (root / "IDC" / "splits" / "test_0.csv").unlink()
    with pytest.raises(FormatError, match=r"has train_0.csv and no test_0.csv; download the task again"):
        _read(root)
    (root / "IDC" / "splits" / "test_0.csv").write_text("sample\nS1\n")
    with pytest.raises(FormatError, match="no column 'sample_id'; a file of a fold has sample_id, patches_path"):
        _read(root)


@pytest.mark.parametrize("stated", ["/data/of/another/S1.h5", "../../S1.h5", "elsewhere/S1.h5"])
def test_a_path_of_another_machine_is_found_by_the_samples_name(tmp_path: Path, stated: str) -> None:
    root = bench_folder(tmp_path / "bench", [(["S1"], ["S2"])])
    (root / "IDC" / "splits" / "train_0.csv").write_text(f"sample_id,patches_path,expr_path\nS1,{stated},{stated}\n")
    assert _written(tmp_path, _read(root))[0].path == StoragePath.of(root / "IDC" / "patches" / "S1.h5")
    (root / "IDC" / "patches" / "S1.h5").unlink()
    with pytest.raises(
        FormatError, match=f"S1.h5 is not there .named in splits/ as '{stated}'.: download it, or leave"
    ):
        _read(root)


@pytest.mark.parametrize("pixel_size", [None, "None", float("nan"), -1.0])
def test_patches_that_do_not_state_the_um_per_px_of_their_slide_are_named(tmp_path: Path, pixel_size: object) -> None:
    root = bench_folder(tmp_path / "bench", [(["S1"], ["S2"])])
    patches_file(
        root / "IDC" / "patches" / "S1.h5",
        np.zeros((1, 8, 8, 3), np.uint8),
        np.eye(2)[:1],
        ["a"],
        pixel_size=pixel_size,
    )
    found = _read(root)
    assert _written(tmp_path, found)[0].mpp is None
    assert "S1.h5 does not state the um/px of its slide: add it to the column mpp" in found.notes[-1]


def test_patches_that_link_to_another_file_are_refused(tmp_path: Path) -> None:
    root = bench_folder(tmp_path / "bench", [(["S1"], ["S2"])])
    with h5py.File(root / "IDC" / "patches" / "S1.h5", "w") as file:
        file["img"] = h5py.ExternalLink("/etc/passwd", "/img")
    with pytest.raises(FormatError, match="links to another file at '/img'"):
        _read(root)


@pytest.mark.parametrize("panel", ["[]", '{"genes": []}', '{"genes": [1]}', "{"])
def test_a_damaged_panel_is_refused(tmp_path: Path, panel: str) -> None:
    root = bench_folder(tmp_path / "bench", FOLDS)
    (root / "IDC" / "var_50genes.json").write_text(panel)
    with pytest.raises(FormatError, match=r"var_50genes\.json"):
        _read(root)


def test_a_task_without_a_panel_says_so(tmp_path: Path) -> None:
    root = bench_folder(tmp_path / "bench", FOLDS)
    (root / "IDC" / "var_50genes.json").rename(root / "IDC" / "mean_50genes.json")
    assert "panel.json" in _read(root).files
    (root / "IDC" / "mean_50genes.json").unlink()
    found = _read(root)
    assert found.notes[-1].endswith("has no var_50genes.json: give `raystp train` a panel")
    assert "panel" not in yaml.safe_load(found.files["splits/fold0.yaml"])
