"""BLEEP on whole cases through all steps: trained, indexed, predicted, scored; a known patient is refused."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raystp import tables
from raystp.errors import ConfigError, LeakError, ModelError
from raystp.models.store import load_model
from raystp.steps.evaluate import step as evaluate
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.train import step as train
from tests.steps.train.case_cohort import CASES, GENES, TEST, Cohort, draw_cohort

OPTIONS = {"embedding": 16, "hidden": 8, "dim": 16}
# Four cases of validation say little of an epoch; they choose k.
FIT = {"epochs": 60, "lr": 5e-3, "batch_size": 16, "select": "last", "patience": None}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return draw_cohort(tmp_path_factory.mktemp("bulk"))


def _run(cohort: Cohort, **more: Any) -> dict[str, Any]:
    return {"run": {"store": str(cohort.store), **more}}


@pytest.mark.ray
@pytest.mark.faults
def test_cases_are_retrieved_from_an_index_of_cases_and_a_patient_in_it_is_refused(
    cohort: Cohort,
    ray_session: None,  # noqa: ARG001 -- Ray must be up
) -> None:
    changes = {"model": "bleep", "bleep": OPTIONS, "fit": FIT}
    config = cohort.train("joint", attention=None, **changes)
    model = train.run(config)
    _, _, meta = load_model(model.path)
    assert meta["retrieval"]["k"] in (5, 8)  # at most a quarter of 32 training cases
    table = {"cases": {"table": str(cohort.table)}}
    asked = {"name": "joint", "model": "train/joint", "embeddings": "embed/bulk"}
    made = index.run(index.CONFIG.of({**asked, **table, **_run(cohort)}))
    assert made.manifest.rows["rows"] == 36
    assert set(made.manifest.notes["patients"]) == set(CASES[:-8])
    assert "P01-b" in made.manifest.notes["slides"]
    predicted = impute.run(impute.CONFIG.of({**asked, "index": "index/joint", **_run(cohort)}))
    assert {slide[:3] for slide in predicted.manifest.notes["slides"]} - {"P99"} == set(TEST)
    scored = evaluate.run(
        evaluate.CONFIG.of(
            {
                "name": "joint",
                "targets": "cases",
                **table,
                "predictions": ["impute/joint"],
                "permutations": 2,
                **_run(cohort, tracking="none"),
            }
        )
    )
    genes = pd.read_csv(scored.path.local_path / "genes.csv").set_index(["model", "gene"])
    assert genes.loc["bleep"]["pcc"][GENES[:3]].mean() > 0.4, genes
    rows = {(row["model"], row["metric"]) for row in scored.table("scores.parquet", tables.SCORES).to_pylist()}
    assert {("kNN on mean features", "PCC"), ("bleep", "genes with PCC >= 0.4")} <= rows
    everyone = impute.run(
        impute.CONFIG.of({**asked, "name": "all", "index": "index/joint", "k": "all", **_run(cohort)})
    )
    labels = pd.read_csv(cohort.table).set_index("case").loc[CASES[:-8]]
    slide = ad.read_h5ad(everyone.path.local_path / "anndata" / "P38-b.h5ad")
    np.testing.assert_allclose(slide.var["slide"], labels[slide.var_names].mean(), rtol=1e-4)
    with pytest.raises(LeakError, match="the model or its index was built from 'P02-a'"):
        impute.run(
            impute.CONFIG.of({**asked, "name": "own", "index": "index/joint", "slides": ["P02-a"], **_run(cohort)})
        )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"spots": "spots/a", "cases": {"table": "a.csv"}}, "set either `spots` .* or `cases`"),
        ({}, "a new index needs spots"),
        ({"base": "index/a", "model": None, "cases": {"table": "a.csv"}, "without": ["P"]}, "one change at a time"),
    ],
)
def test_an_index_has_one_kind_of_labels(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        index.CONFIG.of({"model": "train/a", "embeddings": "embed/a", **changes})


def test_a_target_of_given_features_is_refused_for_cases(cohort: Cohort) -> None:
    with pytest.raises((ConfigError, ModelError), match='target="input" compares given features'):
        cohort.train(model="bleep", bleep={"target": "input"}, attention=None)


def test_a_relative_gene_set_is_refused_in_a_submitted_job(tmp_path: Path) -> None:
    values = {"targets": "cases", "cases": {"table": str(tmp_path / "a.csv")}, "predictions": ["impute/a"]}
    values |= _run_of(tmp_path)
    evaluate.CONFIG.of({**values, "sets": {"PAM50": str(tmp_path / "pam50.txt")}}).check_absolute()
    with pytest.raises(ConfigError, match=r"sets: 'pam50\.txt' is relative"):
        evaluate.CONFIG.of({**values, "sets": {"PAM50": "pam50.txt"}}).check_absolute()


def _run_of(folder: Path) -> dict[str, Any]:
    return {"run": {"store": str(folder), "tracking": "none"}}
