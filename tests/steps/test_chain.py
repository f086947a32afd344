"""The whole path on the smoke cohort, by the configs that stand in conf/, through the command line's own door."""

import json
import re
from pathlib import Path

import anndata as ad
import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from raystp import cli, tables
from raystp.artifacts import Artifact, resolve
from raystp.cli import result
from tests.conftest import ROOT

CONF = ROOT / "conf"
STEPS = ("spots", "tile", "embed", "train", "index", "impute", "evaluate")

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def statuses(smoke_store: Path) -> dict[str, int]:
    """Run every step by its smoke config, in order; return the exit statuses."""
    store = f"run.store={smoke_store}"
    return {step: cli.main([step, "--config", str(CONF / step / "smoke.yaml"), "--set", store]) for step in STEPS}


@pytest.fixture(scope="module")
def store(smoke_store: Path, statuses: dict[str, int]) -> str:
    assert set(statuses) == set(STEPS)
    return str(smoke_store)


def test_only_the_step_at_which_a_slide_failed_ends_with_status_3(statuses: dict[str, int]) -> None:
    assert statuses == dict.fromkeys(STEPS, result.DONE) | {"embed": result.INCOMPLETE}


def test_the_damaged_slide_is_a_row_of_the_failures_table(store: str) -> None:
    (row,) = resolve(store, "embed/smoke", "embed").failures().to_pylist()
    assert (row["slide"], row["stage"]) == ("damaged", "embed")
    assert "damaged.svs" in row["reason"]


def test_a_finished_step_run_again_computes_nothing_and_says_so(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(Path(store))
    for step in STEPS:
        cli.main([step, "--config", str(CONF / step / "smoke.yaml"), "--set", f"run.store={store}"])
        assert "nothing was computed" in capsys.readouterr().out
    assert _files(Path(store)) == before


def test_predictions_follow_the_conventions_of_scanpy_and_squidpy(store: str) -> None:
    prediction = resolve(store, "impute/smoke", "impute")
    adata = ad.read_h5ad(prediction.path.local_path / "anndata" / "patient-C.h5ad")
    measured = ad.read_h5ad(resolve(store, "spots/smoke", "spots").path.local_path / "sections" / "patient-C.h5ad")
    assert adata.obs_names.tolist() == measured.obs_names.tolist()
    np.testing.assert_array_equal(adata.obsm["spatial"], measured.obsm["spatial"])
    assert {"in_tissue", "array_row", "array_col"} <= set(adata.obs.columns)
    (library,) = adata.uns["spatial"].values()
    assert {"tissue_hires_scalef", "spot_diameter_fullres"} <= set(library["scalefactors"])
    assert library["images"]["hires"].ndim == 3
    assert adata.layers["measured"].shape == adata.shape


def test_a_slide_that_was_never_measured_is_predicted_over_its_tissue(store: str) -> None:
    prediction = resolve(store, "impute/smoke", "impute")
    table = prediction.table("predictions/unmeasured.parquet", tables.predictions(50))
    assert table.num_rows > 50
    assert set(table["spot"].to_pylist()) == {None}


def test_the_report_is_one_page_that_fetches_nothing(store: str) -> None:
    page = _report(resolve(store, "evaluate/smoke", "evaluate"))
    markup = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)  # Bokeh's own has links that nothing follows
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", markup)
    assert "log total counts" in page
    assert re.search(r'"name":"patient-C".*?"distance":true,"beyond":0', page)
    assert "damaged" in page


def test_the_report_and_its_run_in_mlflow_name_each_other(store: str) -> None:
    scored = resolve(store, "evaluate/smoke", "evaluate")
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.`raystp.artifact` = '{scored.manifest.folder}'")
    assert re.search(rf"MLflow</dt><dd>experiment smoke, run\s+{run.info.run_name}</dd>", _report(scored))
    assert run.data.tags["raystp.report"] == str(scored.path / "report.html")
    assert run.data.tags["raystp.protocol"] == "patient"
    assert "report.html" in {one.path for one in client.list_artifacts(run.info.run_id)}
    assert run.inputs is not None
    read = {f"{one.dataset.name}-{one.dataset.digest}" for one in run.inputs.dataset_inputs}
    assert read == set(scored.manifest.inputs.values())


def test_the_demo_ends_well_although_a_slide_is_damaged(smoke_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--config", str(CONF / "demo" / "smoke.yaml"), "--set", f"run.store={smoke_store}"]
    assert cli.main(arguments) == result.DONE
    told = capsys.readouterr().out
    assert "planted mean" in told
    assert "damaged" in told
    assert "report.html" in told
    last = json.loads(told.splitlines()[-1])
    assert (last["status"], last["failures"]) == ("done", 1)
    assert last["first_failures"][0]["slide"] == "damaged"
    _check_the_comparison_against_the_planted_truth(Path(last["artifact"]))


def _check_the_comparison_against_the_planted_truth(scored: Path) -> None:
    """On planted genes BLEEP is better than the gene mean, and worse than the truth; on the others no model differs."""
    rows = {
        (row["genes"], row["model"], row["against"]): row
        for row in pq.read_table(scored / "comparison.parquet").to_pylist()
        if row["metric"] == "PCC"
    }
    better, worse = rows["planted", "bleep", "gene_mean"], rows["planted", "bleep", "planted mean"]
    assert better["difference"] > 0 > worse["difference"]
    assert max(better["p_holm"], worse["p_holm"]) < 0.05
    models = ("ridge", "knn", "gene_mean")
    assert (
        min(row["p_holm"] for (genes, _, other), row in rows.items() if genes == "no signal" and other in models) > 0.05
    )
    (_, spread) = pq.read_table(scored / "spread.parquet").to_pylist()
    assert spread["within_1"] == pytest.approx(0.683, abs=0.1)  # neighbours vary as much as the measurements do
    assert spread["within_2"] == pytest.approx(0.954, abs=0.05)


def _report(artifact: Artifact) -> str:
    return (artifact.path / "report.html").read_bytes().decode()


def _files(folder: Path) -> dict[str, int]:
    """Return the time of every file but the tracking database, which is opened in passing."""
    return {str(p): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file() and "mlflow" not in p.name}
