"""Labels of whole cases: slides without any spot, and a table. Trained, predicted and scored, faults in sentences."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from raystp import tables
from raystp.artifacts import Artifact, fingerprint
from raystp.errors import ConfigError, LeakError, ModelError, PanelError, RaystpError, SectionError
from raystp.models.methods import METHODS
from raystp.models.store import load_model
from raystp.models.training.options import FitOptions
from raystp.steps.evaluate import step as evaluate
from raystp.steps.evaluate.cases.config import CasesEvaluateConfig
from raystp.steps.evaluate.cases.outcomes import case_outcomes, held_out_cases
from raystp.steps.evaluate.predictions import open_models
from raystp.steps.impute import step as impute
from raystp.steps.train import step as train
from raystp.steps.train.cases.cohort import CaseTiles, bags_of
from raystp.steps.train.cases.config import CasesTrainConfig
from raystp.steps.train.cases.learner import CasesLearner
from raystp.steps.train.cases.plan import limited_fit, plan_training
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.plan import TrainPlan
from tests.steps.train.case_cohort import CASES, EMPTY, GENES, TEST, VALIDATION, WIDTH, Cohort, draw_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return draw_cohort(tmp_path_factory.mktemp("bulk"))


@pytest.fixture(scope="module")
def model(cohort: Cohort, ray_session: None) -> Artifact:  # noqa: ARG001 -- Ray must be up
    return train.run(cohort.train())


def _predicted(cohort: Cohort, model: Artifact) -> Artifact:
    asked = {"name": model.manifest.name, "embeddings": "embed/bulk", "model": model.path.uri}
    return impute.run(impute.CONFIG.of({**asked, "run": {"store": str(cohort.store)}}))


@pytest.fixture(scope="module")
def prediction(cohort: Cohort, model: Artifact) -> Artifact:
    return _predicted(cohort, model)


def _score(cohort: Cohort, name: str, *predictions: Artifact, **changes: Any) -> Artifact:
    asked: dict[str, Any] = {"name": name, "predictions": [one.path.uri for one in predictions], "permutations": 0}
    asked |= {"targets": "cases", "cases": {"table": str(cohort.table)}}
    asked["run"] = {"store": str(cohort.store), "tracking": "none"}
    return evaluate.run(evaluate.CONFIG.of({**asked, **changes}))


def _rows(scored: Artifact) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = scored.table("scores.parquet", tables.SCORES).to_pylist()
    return {(row["model"], row["metric"], row["genes"]): row for row in rows}


@pytest.mark.ray
@pytest.mark.faults
def test_a_model_of_cases_alone_names_who_it_has_seen(model: Artifact) -> None:
    _, _, meta = load_model(model.path)
    assert (meta["train"], meta["validation"], meta["test"]) == (CASES[:-12], VALIDATION, TEST)
    assert set(meta["patients"].values()) == set(CASES[:-8])
    assert "P01-b" in meta["slides"]
    rows = model.table("epochs.parquet", tables.EPOCHS).to_pylist()
    assert all(row["validation_pcc"] is not None for row in rows)
    assert model.manifest.rows["cases"] == 32


@pytest.mark.ray
@pytest.mark.faults
def test_only_slides_of_other_patients_are_predicted_with_maps_and_the_slides_expression(prediction: Artifact) -> None:
    slides = prediction.manifest.notes["slides"]
    assert {slide[:3] for slide in slides} - {EMPTY} == set(TEST)
    assert [row["slide"] for row in prediction.failures().to_pylist()] in ([], [f"{EMPTY}-a"])
    adata = ad.read_h5ad(prediction.path.local_path / "anndata" / "P38-b.h5ad")
    np.testing.assert_allclose(adata.layers["attention"].sum(axis=0), 1.0, rtol=1e-4)
    np.testing.assert_allclose(adata.var["slide"], (adata.layers["attention"] * adata.X).sum(axis=0), atol=1e-3)


@pytest.mark.ray
@pytest.mark.faults
def test_planted_genes_are_found_over_held_out_cases_beside_baselines_and_a_null(
    cohort: Cohort, prediction: Artifact
) -> None:
    scored = _score(cohort, "bulk", prediction, permutations=3)
    genes = pd.read_csv(scored.path.local_path / "genes.csv").set_index(["model", "gene"])
    assert genes.loc["attention"]["pcc"][GENES[:3]].mean() > 0.75, genes
    assert genes.loc["attention"]["auc_at_median"][GENES[:3]].mean() > 0.8, genes
    assert (genes.loc["gene mean"]["pcc"] == 0).all()
    assert (genes.loc["gene mean"]["auc_at_median"] == 0.5).all()
    rows = _rows(scored)
    mine = rows["attention", "PCC", "all"]
    assert (mine["n"], mine["section"]) == (8, "cases")
    assert mine["value"] > mine["null_mean"] + 0.3
    assert ("ridge on mean features", "PCC", "all") in rows
    moved = rows["attention", "contribution deletion", "tried"]
    assert moved["value"] < moved["null_mean"] - 0.2
    assert "over 8 held-out cases" in scored.manifest.notes["summary"]


@pytest.mark.ray
@pytest.mark.faults
def test_a_case_is_predicted_as_its_one_slide_or_as_all_its_slides_tiles_in_one_bag(
    cohort: Cohort, prediction: Artifact
) -> None:
    models = open_models([prediction], str(cohort.store))
    asked = {"targets": "cases", "cases": {"table": str(cohort.table)}, "predictions": ["impute/bulk"]}
    held = held_out_cases(CasesEvaluateConfig.of({**asked, "run": {"store": str(cohort.store)}}), models)
    found = case_outcomes(held, models, str(cohort.store))["attention"]
    folder = prediction.path.local_path / "anndata"
    alone, both = (dict(zip(found.cases, found.predicted, strict=True))[case] for case in ("P40", "P38"))
    np.testing.assert_allclose(alone, ad.read_h5ad(folder / "P40-a.h5ad").var["slide"], rtol=1e-5)
    parts = np.stack([ad.read_h5ad(folder / f"P38-{part}.h5ad").var["slide"] for part in "ab"])
    assert (parts.min(axis=0) - 1e-4 <= both).all()  # a weighted mean of the two
    assert (both <= parts.max(axis=0) + 1e-4).all()


@pytest.mark.ray
@pytest.mark.faults
def test_maps_of_two_seeds_are_compared(cohort: Cohort, prediction: Artifact) -> None:
    other = _predicted(cohort, train.run(cohort.train("other", fit={"seed": 1})))
    row = _rows(_score(cohort, "seeds", prediction, other))["bulk", "contribution stability", "tried"]
    assert row["value"] > 0.5


@pytest.mark.ray
@pytest.mark.faults
def test_a_correlation_over_two_cases_is_not_given(cohort: Cohort, model: Artifact) -> None:
    asked = {"name": "two", "embeddings": "embed/bulk", "model": model.path.uri, "slides": ["P42-a", "P43-a"]}
    few = impute.run(impute.CONFIG.of({**asked, "run": {"store": str(cohort.store)}}))
    scored = _score(cohort, "two", few)
    assert {metric for _, metric, _ in _rows(scored)} & {"PCC", "AUC"} == set()
    assert "over 2 held-out cases (n/a: PCC and AUC need 3)" in scored.manifest.notes["summary"]


def test_what_is_kept_in_memory_changes_no_bag(cohort: Cohort) -> None:
    plan = _plan(cohort.train(bag_tiles=20))
    assert isinstance(plan.learner, CasesLearner)
    spec, labels = plan.learner.spec, np.zeros((3, 2), np.float32)
    cases = [spec.train[number] for number in (0, 1, 2)]
    size = 4 * WIDTH * cases[0].tiles
    kept = [bags_of(spec.images, cases, labels, budget=budget) for budget in (0.0, float(size), 1e9)]
    for _ in range(2):
        found = [bags.at(np.array([0, 1, 2])) for bags in kept]
        for other in found[1:]:
            assert all(torch.equal(one, same) for one, same in zip(found[0], other, strict=True))
    tiles = [bags.tiles for bags in kept]
    assert [len(one.kept) for one in tiles if isinstance(one, CaseTiles)] == [0, 1, 3]
    assert cases[1].slides == ("P01-a", "P01-b")
    assert found[0][1][1].sum() == cases[1].tiles


def _plan(config: TrainConfig) -> TrainPlan:
    assert isinstance(config, CasesTrainConfig)
    return plan_training(config, train.open_sources(config))


def _table(cohort: Cohort, folder: Path, **cells: Any) -> dict[str, Any]:
    """Return the config of the cohort's table with some rows changed: case -> its values, None for no such row."""
    frame = pd.read_csv(cohort.table).set_index("case")
    for case, values in cells.items():
        frame = frame.drop(case) if values is None else frame
        if values is not None:
            frame.loc[case] = values
    frame.to_csv(folder / "changed.csv")
    return {"cases": {"table": str(folder / "changed.csv")}}


def test_what_has_no_partner_is_left_out_and_named(cohort: Cohort, tmp_path: Path) -> None:
    plan = _plan(cohort.train(**_table(cohort, tmp_path, P03=None, EXTRA=1.0)))
    assert "P03" not in plan.meta["train"]
    left = plan.meta["left_out"]
    assert left["slide P03-a"] == "its case P03 has no label"
    assert left["case EXTRA"].startswith("it has no slide in ")
    assert left[f"case {EMPTY}"] == f"no tile was found on '{EMPTY}-a': check their tissue masks"


def test_slides_of_normal_samples_are_left_out_of_tumour_cases(cohort: Cohort) -> None:
    patients = {"TCGA-AA-0001-01A-TS1": "P", "TCGA-AA-0001-11A-TS1": "P", "TCGA-AA-0002": "Q"}
    cases = cohort.train().cases.model_copy(update={"slides": "tcga"})  # type: ignore[attr-defined]  # a CasesTrainConfig
    found = cases.case_of_slides(patients)
    assert found.case_of == {"TCGA-AA-0001-01A-TS1": "TCGA-AA-0001", "TCGA-AA-0002": "TCGA-AA-0002"}
    assert list(found.left_out) == ["TCGA-AA-0001-11A-TS1"]
    both = cases.model_copy(update={"samples": "all"})
    assert both.case_of_slides(patients).left_out == {}
    unknown = both.case_of_slides({**patients, "TCGA-AA-0003": ""})
    assert unknown.left_out == {"TCGA-AA-0003": "it has no `patient` in the slide table"}
    assert cases.fingerprint_values() != both.fingerprint_values()


def test_the_tables_content_counts_and_not_its_path(cohort: Cohort, tmp_path: Path) -> None:
    copied, changed = tmp_path / "copied.csv", tmp_path / "changed"
    copied.write_bytes(cohort.table.read_bytes())
    changed.mkdir()
    configs = [cohort.train(), cohort.train(cases={"table": str(copied)})]
    configs.append(cohort.train(**_table(cohort, changed, P00=2.0)))
    marks = [(fingerprint("train", one.fingerprint_values(), _inputs(one))) for one in configs]
    assert marks[0] == marks[1] != marks[2]


def _inputs(config: TrainConfig) -> dict[str, str]:
    inputs = train.inputs_of(config, train.open_sources(config))
    return {role: one.manifest.folder if isinstance(one, Artifact) else one for role, one in inputs.items()}


def test_a_panel_is_of_training_cases_alone(cohort: Cohort, tmp_path: Path) -> None:
    wild = {case: [0, 0, 0, 0, 0, 1000.0 * number] for number, case in enumerate(TEST)}
    plain = _plan(cohort.train(panel={"variable": 2})).meta["genes"]
    assert _plan(cohort.train(panel={"variable": 2}, **_table(cohort, tmp_path, **wild))).meta["genes"] == plain


def test_all_genes_of_the_table_are_a_panel_and_one_prediction_per_bag_holds_none_at_a_tile(cohort: Cohort) -> None:
    assert _plan(cohort.train(panel={"variable": "all"})).meta["genes"] == GENES
    small = cohort.train(attention={"level": "embedding"}, run={"batch_gb": 1e-6})
    assert _plan(small).meta["options"]["level"] == "embedding"


def test_a_hole_in_a_test_cases_label_is_not_looked_at_in_training(cohort: Cohort, tmp_path: Path) -> None:
    held = {TEST[0]: [1, 1, 1, np.nan, 1, 1]}
    assert _plan(cohort.train(**_table(cohort, tmp_path, **held))).meta["test"] == TEST
    with pytest.raises(SectionError, match=r"values that are absent or not finite .* P05/NULL1 = nan"):
        _plan(cohort.train(**_table(cohort, tmp_path, P05=[1, 1, 1, np.nan, 1, 1])))


WRONG: list[tuple[dict[str, Any], type[RaystpError], str]] = [
    ({"split": {"test": ["P77"]}}, ConfigError, "split.test: no case or patient 'P77' has both a label and a slide"),
    ({"split": {"test": [EMPTY]}}, ModelError, f"split.test: case '{EMPTY}' cannot be used: no tile was found"),
    ({"split": {"train": ["P00", "P43"]}}, ConfigError, "cases 'P43' are listed twice: a case is on one side"),
    ({"split": {"validation": ["P35"]}}, ModelError, "split.validation: 1 case is too few to choose an epoch"),
    ({"split": {"protocol": "section"}}, ConfigError, "cases are held out by patient"),
    ({"fit": {"batch_size": 40}}, ModelError, r"32 have both a label and tiles: set fit.batch_size=32"),
    ({"run": {"workers": 3}}, ModelError, "3 workers cannot share 1 batches of a step"),
    (
        {"split": {"validation": ["P34", "P35"]}, "fit": {"select": "best_pcc"}},
        ModelError,
        "needs 3, got 2",
    ),
    ({"cases": {"case": "patient"}}, SectionError, "has 0 columns 'patient', expected one with the names"),
    ({"cases": {"table": "/none/bulk.csv"}}, ConfigError, "no table of cases at /none/bulk.csv"),
    ({"cases": {"slides": "tcga"}}, SectionError, "has no TCGA barcode"),
    ({"panel": {"variable": 7}}, PanelError, "7 genes were requested; 6 of 6 vary between the 32 training cases"),
    ({"run": {"batch_gb": 1e-6}}, ModelError, r"above run.batch_gb=1e-06: set attention.level=embedding"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=[one[2][:40] for one in WRONG])
def test_what_cannot_be_trained_is_a_sentence_before_a_worker_starts(
    cohort: Cohort, wrong: tuple[dict[str, Any], type[RaystpError], str]
) -> None:
    changes, kind, sentence = wrong
    with pytest.raises(kind, match=sentence):
        _plan(cohort.train(**changes))


def test_genes_of_a_panel_that_the_table_lacks_are_named(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "panel.txt").write_text("HOT1\nHOT9\n")
    listed = {"name": "mine", "file": str(tmp_path / "panel.txt")}
    with pytest.raises(PanelError, match="1 of 2 genes of the panel are not in the table of cases: 'HOT9'"):
        _plan(cohort.train(panel=listed))
    assert _plan(cohort.train(panel={**listed, "absent": "drop"})).meta["genes"] == ["HOT1"]


def test_a_patient_of_two_cases_is_on_one_side(cohort: Cohort, tmp_path: Path) -> None:
    changes = _table(cohort, tmp_path, P01=None, one=3.0, two=3.0)
    slides = {f"{case}-a": case for case in CASES} | {"P38-b": "P38", "P01-a": "one", "P01-b": "two"}
    listed = tmp_path / "slides.csv"
    listed.write_text("\n".join(["slide,case", *(f"{slide},{case}" for slide, case in slides.items())]))
    changes["cases"]["slides"] = str(listed)
    assert {"one", "two"} <= set(_plan(cohort.train(**changes)).meta["train"])
    with pytest.raises(LeakError, match="patient 'P01' is on both sides: case 'two' trains or validates, 'one' tests"):
        _plan(cohort.train(**changes, split={"test": ["one"]}))
    assert _plan(cohort.train(**changes, split={"test": ["P01"]})).meta["test"] == ["one", "two"]
    listed.write_text("slide,case\nP01-a,one\nP02-a,one\n")
    with pytest.raises(ConfigError, match="case 'one' has slides of the patients 'P01', 'P02'; a case belongs to one"):
        _plan(cohort.train(**changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"spots": "spots/a"}, "spots: there is no such field"),
        ({"targets": None}, "targets: must be spots or cases, got None"),
        ({"targets": "spots"}, "cases: there is no such field"),
        ({"bulk": {"table": "a.csv"}}, "labels of whole cases are now `targets: cases`"),
        ({"model": "nh2st"}, "needs measured spots .*; from cases can learn: bleep, attention"),
        ({"split": {"validation_block": 0.2}}, "split.validation_block: there is no such field"),
        ({"bags": {"tiles": 4}}, "`bags.tiles` is now `bag_tiles`"),
        ({"cases": {"scale": "tpm"}}, "cases.scale: Input should be 'counts', 'expression' or 'signed'"),
    ],
)
def test_a_config_that_mixes_labels_is_told(cohort: Cohort, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        cohort.train(**changes)


@pytest.mark.parametrize(
    ("workers", "accumulate", "size"), [(1, 1, 31), (2, 1, 30), (4, 1, 28), (3, 2, 15), (2, 2, 14)]
)
def test_a_batch_of_all_cases_divides_among_the_workers_that_share_it(workers: int, accumulate: int, size: int) -> None:
    fit = FitOptions(batch_size=128, accumulate_batches=accumulate)
    assert limited_fit(fit, METHODS["bleep"], 31, parts=workers).batch_size == size
    assert limited_fit(fit, METHODS["attention"], 31, parts=workers) == fit  # compares no cases
