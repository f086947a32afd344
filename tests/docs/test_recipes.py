"""Recipes: each reads a folder of the layout that its data set has, and the configs of all its steps are valid."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raystp.artifacts import resolve
from raystp.cli.arguments import read_command
from raystp.errors import ConfigError
from raystp.expression.bulk.tables import read_table
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.slides.table import read_slide_table
from raystp.steps.imports.config import ImportConfig
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.chain import check_references, planned_steps
from raystp.steps.pipeline.checks import check_inputs
from raystp.steps.pipeline.config import PipelineConfig
from raystp.steps.train.config import TrainConfig
from raystp.storage import StoragePath
from tests.conftest import ROOT
from tests.expression.toy_layouts import geo, toy
from tests.interop.sections.foreign import HEST_ROWS, bench_folder, hest_folder
from tests.interop.sections.paired import cohort, own_table
from tests.interop.sections.test_her2st import her2st_folder

FOLDER = ROOT / "conf" / "recipes"
BARCODES = ("TCGA-AA-3488-01Z-00-DX1", "TCGA-AB-0001-01A-01-TS1", "TCGA-AC-0002-11A-01-TS1")


def _her2st(folder: Path) -> None:
    her2st_folder(folder / "her2st-data")


def _bench(folder: Path) -> None:
    bench_folder(folder / "bench", [(["S3"], ["S1", "S2"]), (["S1", "S2"], ["S3"])])


def _hest(folder: Path) -> None:
    hest_folder(folder / "hest", [{**row, "oncotree_code": "IDC"} for row in HEST_ROWS])


def _geo(folder: Path) -> None:
    (folder / "conf").symlink_to(ROOT / "conf")
    for name in ("A1", "B1", "C1", "D1"):
        geo(toy("space_ranger"), folder / "gse240429", f"GSM769786_GEX_C73_{name}_")
        (folder / "gse240429" / f"GEX_C73_{name}_Merged.tif").write_bytes(b"II*\0")


def _tcga(folder: Path) -> None:
    (folder / "tcga" / "slides" / "0b1c").mkdir(parents=True)
    for name in BARCODES:
        (folder / "tcga" / "slides" / "0b1c" / f"{name}.0B1C-22.svs").write_bytes(b"II*\0")
    pd.DataFrame({"case": ["TCGA-AA-3488"], "TP53": [1.0]}).to_parquet(folder / "tcga" / "rna.parquet")


MAKERS: dict[str, Callable[[Path], None]] = {
    "gse240429.yaml": _geo,
    "her2st-published.yaml": _her2st,
    "her2st.yaml": _her2st,
    "hest-bench.yaml": _bench,
    "hest.yaml": _hest,
    "tcga.yaml": _tcga,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _planned(name: str, *overrides: str) -> tuple[PipelineConfig, list[Any]]:
    config = pipeline.CONFIG.load(FOLDER / name, ["run.store=store", *overrides])
    pipeline.import_data(config)
    check_references(config)
    steps = planned_steps(config)
    check_inputs(config, steps)
    return config, steps


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_a_recipe_reads_the_downloaded_folder_as_it_is(name: str, here: Path) -> None:
    MAKERS[name](here)
    config, steps = _planned(name)
    assert config.folds is not None or config.protocol is not None
    assert any(isinstance(one, TrainConfig) for one in steps)


def test_her2st_has_36_sections_of_8_patients_and_takes_each_of_its_protocols(here: Path) -> None:
    _her2st(here)
    _planned("her2st.yaml")
    rows = read_slide_table("her2st/slides.csv", None, "store")
    assert (len(rows), len({row.patient for row in rows})) == (36, 8)
    for name, count in (("mclstexp-785", 785), ("st-benching-833", 833)):
        (here / f"{count}.txt").write_text("".join(f"G{number}\n" for number in range(count)))
        overrides = [f"protocol={name}", "shared.panel.name=list", f"shared.panel.file={count}.txt"]
        _, steps = _planned("her2st-published.yaml", *overrides)
        assert {one.panel.file for one in steps if isinstance(one, TrainConfig)} == {f"{count}.txt"}


def test_the_sections_of_gse240429_are_found_by_their_names_among_the_files_of_geo(here: Path) -> None:
    _geo(here)
    for row in read_slide_table("conf/slides/gse240429.csv", "gse240429", "store"):
        assert row.path.exists()
        assert row.counts is not None
        assert row.layout is not None
        _, notes = read(SectionSource(row.section, row.slide, row.patient, row.layout, row.counts))
        assert f"C73_{row.slide}_" in str(notes["counts_from"])


def test_a_table_of_samples_becomes_a_table_of_cases_as_the_docs_say(here: Path) -> None:
    (here / "tcga").mkdir()
    samples = {"TCGA-AA-3488-01": [1.5, 0.0], "TCGA-AB-0001-11": [2.0, 1.0]}
    pd.DataFrame(samples, index=["TP53", "ERBB2"]).to_csv("HiSeqV2.gz", sep="\t", compression="gzip")
    text = (ROOT / "docs" / "recipes.md").read_text().partition('python -c "')[2].partition('"\n')[0]
    exec(text, {})
    table = read_table(StoragePath.of("tcga/rna.parquet"), "case")
    assert (list(table.cases), list(table.genes)) == (["TCGA-AA-3488"], ["TP53", "ERBB2"])


def test_a_task_of_hest_bench_is_run_with_its_folds_and_its_panel(here: Path) -> None:
    _bench(here)
    _, steps = _planned("hest-bench.yaml")
    trainings = [one for one in steps if isinstance(one, TrainConfig)]
    assert [(one.name, one.split.test) for one in trainings] == [("idc-fold0", ["S1", "S2"]), ("idc-fold1", ["S3"])]
    assert {one.panel.name for one in trainings} == {"hest-bench-IDC"}
    assert steps[-1].predictions == ["impute/idc-fold0", "impute/idc-fold1"]


@pytest.mark.parametrize("name", ["hest.yaml", "hest-bench.yaml"])
def test_the_command_that_a_dry_run_names_writes_the_table_of_the_recipe(name: str, here: Path) -> None:
    MAKERS[name](here)
    config = pipeline.CONFIG.load(FOLDER / name, ["run.store=store"])
    with pytest.raises(ConfigError) as error:
        next(pipeline.plan(config))
    command = read_command(shlex.split(str(error.value).split("`")[1])[1:])
    assert ImportConfig.load(None, command.overrides) == config.data_set()


def test_a_dry_run_names_the_command_that_writes_the_slide_table(here: Path) -> None:
    _her2st(here)
    config = pipeline.CONFIG.load(FOLDER / "her2st.yaml", ["run.store=store"])
    with pytest.raises(ConfigError, match="run `raystp import her2st her2st-data -o her2st` first"):
        next(pipeline.plan(config))
    assert not (here / "her2st").exists()
    with pytest.raises(ConfigError, match=r"slides: b\.csv, and `data` writes her2st/slides\.csv: set slides to it"):
        _planned("her2st.yaml", "slides=b.csv")
    with pytest.raises(
        ConfigError, match="format trident is no data set of slides and spots: hest, hest-bench, her2st"
    ):
        _planned("her2st.yaml", "data={format: trident, path: x}")
    assert "data" not in config.fingerprint_values()


@pytest.mark.ray
@pytest.mark.faults
def test_her2st_goes_from_its_folder_to_the_published_table(ray_session: None, here: Path) -> None:  # noqa: ARG001 -- Ray must be up
    sections = cohort()
    own_table(here / "own", sections)
    ends = {"ST-cnts": ".tsv", "ST-spotfiles": "_selection.tsv"}
    for one in sections:
        places = {folder: here / "her2st-data" / folder for folder in ends}
        places["ST-imgs"] = here / "her2st-data" / "ST-imgs" / one.name[0] / one.name
        for folder, end in {**ends, "ST-imgs": ".png"}.items():
            places[folder].mkdir(parents=True, exist_ok=True)
            (here / "own" / f"{one.name}{end}").rename(places[folder] / f"{one.name}{end}")
    small = ["tile.tile_um=112", "embed.encoder.name=tiny", "embed.encoder.weights=null", "train=[{model: ridge}]"]
    config, _ = _planned("her2st-published.yaml", *small, "run.tracking=none")
    done = pipeline.run(config)
    assert "3 folds of the protocol triplex-250; 95 % intervals over patients" in done.manifest.notes["summary"]
    scored = resolve("store", "evaluate/her2st-published", "evaluate")
    text = (scored.path / "scores.txt").read_bytes().decode()
    assert re.search(r"^TRIPLEX +HER2ST, 36 sections +0\.3140", text, re.MULTILINE)
    assert "this run tests 4 sections" in text
    (panel,) = (here / "store" / "panels").iterdir()
    assert len(panel.read_text().split()) == 20
    page = (done.path / "index.html").read_bytes().decode()
    assert "Protocol triplex-250" in page
    assert "No known leak" not in page
    tested = [slide for fold in done.manifest.notes["folds"].values() for slide in fold["slides"]]
    assert set(tested) == {one.name for one in sections}
    assert f"<span>{', '.join(tested)}</span>" in page  # the protocol's report is of all folds
    assert pipeline.run(config).manifest == done.manifest
