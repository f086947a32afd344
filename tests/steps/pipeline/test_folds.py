"""Folds of a pipeline: every patient is tested once, choices stay within a fold, and only what is missing is done."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError
from raystp.steps.pipeline import step as pipeline
from raystp.steps.pipeline.chain import planned_steps
from raystp.steps.pipeline.config import PipelineConfig
from raystp.steps.pipeline.folds.fold import Fold, strata_of


def _config(**changes: Any) -> PipelineConfig:
    train = {"panel": {"variable": 30}, "model": "ridge"}
    return pipeline.CONFIG.of({"name": "cv", "slides": "demo/smoke", "train": train, "folds": 3, **changes})


def test_a_number_is_short_for_folds_and_no_folds_change_no_fingerprint() -> None:
    assert _config(folds=5).folds == _config(folds={"count": 5}).folds
    by_patient = _config(folds="patient").folds
    assert by_patient is not None
    assert by_patient.count == "patient"
    assert "folds" not in _config(folds=None, train={"split": {"test": ["P"]}}).fingerprint_values()
    with pytest.raises(ConfigError, match=r"folds\.count"):
        _config(folds=1)


def test_each_step_of_a_fold_has_a_name_of_its_own_and_holds_out_the_folds_patients() -> None:
    names = [(type(one).__name__, one.name) for one in planned_steps(_config())][-3:]
    assert names == [
        ("SpotsTrainConfig", "cv-fold1"),
        ("ImputeConfig", "cv-fold1"),
        ("SpotsEvaluateConfig", "cv-fold1"),
    ]
    fold = Fold(2, ("P1", "P2"), ("P3",), ("a", "b"))
    values = {"name": "cv", "split": {"protocol": "patient"}}
    assert fold.training(values) == {
        "name": "cv-fold2",
        "split": {"protocol": "patient", "test": ["P1", "P2"], "validation": ["P3"]},
    }
    assert values["name"] == "cv"


def test_folds_are_stratified_by_a_covariate_of_the_slide_table(tmp_path: Path) -> None:
    slides = tmp_path / "slides.csv"
    slides.write_text("slide,path,patient,x_subtype\nA,a.svs,P1,lum\nB,b.svs,P1,lum\nC,c.svs,P2,her2\n")
    config = _config(slides=str(slides), folds={"count": 2, "stratify": "x_subtype"})
    assert strata_of(config, "x_subtype", {"A": "P1", "B": "P1", "C": "P2"}) == {"P1": "lum", "P2": "her2"}
    with pytest.raises(ConfigError, match="has no column 'x_grade', it has x_subtype"):
        strata_of(config, "x_grade", {"A": "P1"})
    with pytest.raises(ConfigError, match="patient 'P' have the values 'lum' and 'her2' of x_subtype"):
        strata_of(config, "x_subtype", {"A": "P", "C": "P"})
    early = _config(
        slides=str(slides), folds={"count": 2, "stratify": "x_grade"}, run={"store": str(tmp_path / "store")}
    )
    for begin in (pipeline.path, lambda one: next(pipeline.plan(one))):
        with pytest.raises(ConfigError, match="has no column 'x_grade', it has x_subtype"):
            begin(early)
    assert not (tmp_path / "store").exists()
    plain = {"count": 2, "seed": 0, "validation": False}
    assert _config(folds=2).fingerprint_values()["folds"] == plain  # as before the field existed
    with pytest.raises(ConfigError, match="stratify"):
        _config(folds={"stratify": "subtype"})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train": {"model": "ridge", "split": {"test": ["P"]}}}, r"train cv: split\.test: the folds choose"),
        ({"train": {"model": "ridge", "split": "P"}}, "split: must be a group of fields"),
        ({"impute": {"slides": ["A"]}}, "impute: slides: each fold predicts the slides of its own patients"),
        ({"complete": {}}, "complete: one completion would be fitted on test patients"),
        (
            {"train": [{"model": "ridge"}, {"targets": "cases", "cases": {"table": "/a.csv"}}]},
            "some models learn from spots and some from cases",
        ),
    ],
)
def test_what_contradicts_folds_is_refused_before_any_work(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        planned_steps(_config(**changes))


@pytest.mark.ray
@pytest.mark.faults
def test_every_patient_is_tested_once_and_a_second_run_does_only_what_is_missing(
    smoke_store: Path,
) -> None:
    train = [{"panel": {"variable": 30}, "model": model} for model in ("ridge", "gene_mean")]
    run = {"store": str(smoke_store), "experiment": "cv"}
    config = _config(name="smoke", train=train, folds="patient", evaluate={"permutations": 0}, run=run)
    done = pipeline.run(config)
    folds = done.manifest.notes["folds"]
    tested = [patient for fold in folds.values() for patient in fold["test"]]
    assert sorted(tested) == ["patient-A", "patient-B", "patient-C"]
    slides = []
    for number, fold in folds.items():
        model = resolve(str(smoke_store), done.manifest.inputs[f"train smoke-ridge-fold{number}"], "train")
        assert not set(fold["test"]) & set(model.manifest.notes["patients"].values())
        predicted = resolve(str(smoke_store), done.manifest.inputs[f"impute smoke-ridge-fold{number}"], "impute")
        slides += predicted.manifest.notes["slides"]
    assert sorted(slides) == ["patient-A", "patient-B", "patient-C"]
    table = pd.read_csv(done.path.local_path / "folds.csv")
    row = table[(table["model"] == "ridge") & (table["metric"] == "PCC") & (table["genes"] == "all")].iloc[0]
    values = row[["fold1", "fold2", "fold3"]].astype(float)
    assert row["mean"] == pytest.approx(values.mean(), abs=1e-5)
    assert row["sd"] == pytest.approx(values.std(), abs=1e-5)
    assert "3 folds of whole patients" in done.manifest.notes["summary"]
    compared = pd.read_csv(done.path.local_path / "comparison.csv")
    chosen = (compared["model"] == "ridge") & (compared["against"] == "gene_mean") & (compared["genes"] == "all")
    difference = compared[chosen & (compared["metric"] == "PCC")].iloc[0]
    assert difference["difference"] == pytest.approx(values.mean(), abs=1e-5)  # the gene mean has PCC 0
    assert (difference["test"], difference["units"]) == ("sign flips of patients", 3)
    assert "paired differences, mean over sections" in done.manifest.notes["summary"]
    page = (done.path / "index.html").read_bytes().decode()
    assert all(f"{done.manifest.inputs[f'evaluate fold {number}']}/report.html" in page for number in folds)
    _check_runs(smoke_store, done, [float(value) for value in values])
    times = _times(smoke_store, done.manifest.inputs)
    lost = resolve(str(smoke_store), done.manifest.inputs["impute smoke-ridge-fold2"], "impute")
    (lost.path / "manifest.json").remove()
    assert pipeline.run(config).manifest.fingerprint == done.manifest.fingerprint
    again = _times(smoke_store, done.manifest.inputs)
    assert {role for role in times if times[role] != again[role]} == {"impute smoke-ridge-fold2"}


def _check_runs(store: Path, done: Artifact, values: list[float]) -> None:
    """Check MLflow: the pipeline's run has the table of folds, and the runs of the folds are below it."""
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    known = client.get_experiment_by_name("cv")
    assert known is not None
    runs = {one.info.run_name: one for one in client.search_runs([known.experiment_id])}
    whole = runs.pop(f"smoke-{done.manifest.fingerprint}")
    points = client.get_metric_history(whole.info.run_id, "PCC all/ridge")
    assert {point.step: point.value for point in points} == pytest.approx(dict(enumerate(values, 1)), abs=1e-5)
    assert whole.data.metrics["mean PCC all/ridge"] == pytest.approx(sum(values) / 3, abs=1e-5)
    assert {one.data.tags["mlflow.parentRunId"] for one in runs.values()} == {whole.info.run_id}
    assert len(runs) == 3 * 3  # two models and an evaluation for each fold
    evaluations = [one for name, one in runs.items() if name.startswith("smoke-fold")]
    assert sorted(one.data.tags["raystp.fold"] for one in evaluations) == ["1", "2", "3"]
    assert {one.data.tags["raystp.series"] for one in evaluations} == {"smoke"}
    own = {int(one.data.tags["raystp.fold"]): one.data.metrics["PCC all/ridge"] for one in evaluations}
    assert own == pytest.approx(dict(enumerate(values, 1)), abs=1e-5)


def _times(store: Path, folders: dict[str, str]) -> dict[str, int]:
    return {role: (store / folder / "manifest.json").stat().st_mtime_ns for role, folder in folders.items()}


def test_resources_of_a_step_change_no_fingerprint_and_stand_in_no_manifest() -> None:
    split = {"split": {"test": ["P"]}}
    plain = _config(train=split, tile=[{}, {"side_um": 56}], embed={})
    store = "s3://bucket/store"
    other = _config(
        train={**split, "run": {"workers": 2}},
        tile=[{"run": {"store": store}}, {"side_um": 56, "run": {"store": store}}],
        embed={"run": {"encoders": 4, "store": store}},
    )
    assert other.fingerprint_values() == plain.fingerprint_values()
    assert other.manifest_values() == plain.manifest_values()
