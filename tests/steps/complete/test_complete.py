"""`complete` leaves completed sections and a model; alone or together, at once or after a stop, they are the same."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.errors import ConfigError, PanelError
from raystp.expression.completed import CompletedSection, load_completed
from raystp.expression.sections import load_counts
from raystp.models.store import load_completion, load_model
from raystp.steps.complete import step as complete
from raystp.steps.complete.config import CompletedGenes
from raystp.steps.complete.genes import choose_genes
from raystp.steps.complete.work import CompletionGenes, CompletionTask, FitTask, complete_section, fit_completion
from raystp.steps.evaluate import step as evaluate
from raystp.steps.impute import step as impute
from raystp.steps.train import step as train
from raystp.storage import StoragePath
from tests.conftest import ROOT

SPACKLE = {"steps": 100, "feedforward": 64, "neighbours": 6, "layers": 1, "batch_size": 64, "check_every": 50}
PATIENTS = ["patient-A", "patient-B", "patient-C"]

ray = pytest.mark.ray


def _config(store: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "spots": "spots/smoke",
        "genes": {"count": 24},
        "spackle": SPACKLE,
        "split": {"train": ["patient-A"], "validation": ["patient-B"]},
        "run": {"store": str(store)},
    }
    return complete.CONFIG.of({**values, **changes})


@pytest.fixture(scope="module")
def spackle(smoke_store: Path) -> Artifact:
    return complete.run(_config(smoke_store))


def _sections(artifact: Artifact) -> dict[str, CompletedSection]:
    return {name: load_completed(artifact, name) for name in artifact.manifest.notes["sections"]}


def _assert_equal(first: Artifact, second: Artifact) -> None:
    for name, section in _sections(first).items():
        other = load_completed(second, name)
        assert (section.spots, section.genes) == (other.spots, other.genes)
        np.testing.assert_array_equal(section.values, other.values)
        np.testing.assert_array_equal(section.real, other.real)


@ray
def test_the_layers_are_the_measured_values_with_every_zero_replaced(spackle: Artifact, smoke_store: Path) -> None:
    spots = resolve(str(smoke_store), "spots/smoke", "spots")
    assert list(spackle.manifest.notes["sections"]) == PATIENTS
    genes = spackle.manifest.notes["genes"]
    assert len(genes) == 24
    for name, section in _sections(spackle).items():
        counts = load_counts(spots, name)
        measured = counts.expression(genes)
        np.testing.assert_array_equal(section.real, measured > 0)
        np.testing.assert_array_equal(section.values[section.real], measured[section.real])
        assert (section.values[~section.real] > 0).mean() > 0.99
        with (spackle.path / "sections" / f"{name}.h5ad").local() as path, h5py.File(path) as file:
            assert file["layers/real"].dtype == bool
            raw = counts.matrix[:, counts.gene_names.find(genes)]
            assert file["X/data"][:].sum() == raw.sum()
        entry = spackle.manifest.notes["sections"][name]
        assert (entry["spots"], entry["genes"]) == (len(counts.spots), 24)
        assert entry["real"] == pytest.approx(section.real.mean())


@ray
def test_errors_on_hidden_entries_fall_from_zero_to_the_median_to_spackle(spackle: Artifact, smoke_store: Path) -> None:
    rows = spackle.table("errors.parquet", tables.COMPLETION_ERRORS).to_pylist()
    errors = {row["method"]: row["mse"] for row in rows}
    assert list(errors) == ["median", "gene mean", "linear", "spackle"]
    spots = resolve(str(smoke_store), "spots/smoke", "spots")
    held = load_counts(spots, "patient-B").expression(spackle.manifest.notes["genes"])
    zeros = np.square(held[held > 0]).mean()  # what filling zeros costs, on average
    assert errors["spackle"] < errors["median"] < zeros
    steps = spackle.table("steps.parquet", tables.COMPLETION_STEPS).to_pylist()
    assert [row["step"] for row in steps] == [50, 100]
    assert all(row["validation_mse"] > 0 for row in steps)
    assert "errors on counted entries that were hidden" in spackle.manifest.notes["summary"]
    assert "patient-B       spackle" in spackle.manifest.notes["summary"]


@ray
def test_a_section_completed_alone_without_ray_is_the_section_completed_with_others(
    spackle: Artifact, smoke_store: Path, tmp_path: Path
) -> None:
    spots, notes = resolve(str(smoke_store), "spots/smoke", "spots"), spackle.manifest.notes
    names = CompletionGenes(tuple(notes["genes"]), {}, ("patient-A",))
    target = StoragePath.of(tmp_path)
    options = _config(smoke_store).spackle
    fit_completion(FitTask(spots, names, ("patient-B",), "spackle", options, target))
    result = complete_section(CompletionTask(spots, names, "patient-C", target))
    assert result == notes["sections"]["patient-C"]
    for name, array in load_completion(spackle.path)[1].items():
        np.testing.assert_allclose(load_completion(target)[1][name], array, atol=1e-5, err_msg=name)
    shutil.copy(spackle.path.local_path / "completion.safetensors", tmp_path)
    shutil.copy(spackle.path.local_path / "completion.json", tmp_path)
    (tmp_path / "sections" / "patient-C.h5ad").unlink()
    complete_section(CompletionTask(spots, names, "patient-C", target))
    alone = load_completed(Artifact(target, spackle.manifest), "patient-C")
    np.testing.assert_array_equal(alone.values, load_completed(spackle, "patient-C").values)


@pytest.mark.faults
@ray
def test_a_run_that_was_stopped_continues_and_equals_one_that_was_not(smoke_store: Path) -> None:
    changes = {"name": "stopped", "method": "linear"}
    whole = complete.run(_config(smoke_store, **changes))
    before = _sections(whole)
    folder = whole.path.local_path
    model = (folder / "completion.json").stat().st_mtime_ns
    kept = (folder / "sections" / "patient-A.h5ad").stat().st_mtime_ns
    (folder / "manifest.json").unlink()  # as after a kill: one section is absent, one is cut
    (folder / "sections" / "patient-B.h5ad").unlink()
    cut = folder / "sections" / "patient-C.h5ad"
    cut.write_bytes(cut.read_bytes()[:1000])
    again = complete.run(_config(smoke_store, **changes))
    assert (folder / "completion.json").stat().st_mtime_ns == model
    assert (folder / "sections" / "patient-A.h5ad").stat().st_mtime_ns == kept
    for name, section in _sections(again).items():
        np.testing.assert_array_equal(section.values, before[name].values)
    assert again.manifest.notes == whole.manifest.notes
    (folder / "manifest.json").unlink()
    (folder / "completion.json").unlink()  # killed while the completion was written: it is fitted again
    fitted = complete.run(_config(smoke_store, **changes))
    _assert_equal(fitted, again)


@pytest.mark.faults
@ray
def test_a_model_trained_on_completed_labels_is_scored_on_measured_counts(smoke_store: Path) -> None:
    run = {"store": str(smoke_store), "tracking": "none"}
    made = complete.run(_config(smoke_store, name="chain", method="linear"))
    values: dict[str, Any] = {
        "model": "ridge",
        "spots": "spots/smoke",
        "embeddings": "embed/smoke",
        "panel": {"variable": 40},
        "split": {"test": ["patient-C"], "train": ["patient-A", "patient-B"]},
        "run": run,
    }
    predictions = []
    for name, completed in (("with", "complete/chain"), ("without", None)):
        train.run(train.CONFIG.of({**values, "name": name, "completed": completed}))
        one = {"name": name, "model": f"train/{name}", "embeddings": "embed/smoke", "slides": ["patient-C"]}
        impute.run(impute.CONFIG.of({**one, "run": {"store": str(smoke_store)}}))
        predictions.append(f"impute/{name}")
    asked = {"name": "completed", "spots": "spots/smoke", "predictions": predictions, "permutations": 1, "draws": 100}
    scored = evaluate.run(evaluate.CONFIG.of({**asked, "run": run}))
    rows = scored.table("scores.parquet", tables.SCORES).to_pylist()
    found = {
        row["model"]: row for row in rows if (row["section"], row["genes"], row["metric"]) == ("mean", "all", "MSE")
    }
    genes = resolve(str(smoke_store), "train/with", "train").manifest.notes["completed"]["genes"]
    assert found["with"]["value"] != found["without"]["value"]
    sentence = f"`with`: trained on labels of {genes} of 40 genes that linear completed ({made.manifest.folder}"
    assert sentence in scored.manifest.notes["summary"]
    assert made.manifest.folder in (scored.path / "report.html").read_bytes().decode()
    truth = load_counts(resolve(str(smoke_store), "spots/smoke", "spots"), "patient-C")
    prediction = resolve(str(smoke_store), "impute/with", "impute")
    table = prediction.table("predictions/patient-C.parquet", tables.predictions(40))
    row_of = {spot: row for row, spot in enumerate(table["spot"].to_pylist())}
    predicted = tables.matrix(table["expression"])[[row_of[spot] for spot in truth.spots]]
    panel = load_model(resolve(str(smoke_store), "train/with", "train").path)[2]["genes"]
    errors = np.square(predicted - truth.expression(panel))
    assert found["with"]["value"] == pytest.approx(errors.mean(), rel=1e-4)


@ray
def test_a_section_that_cannot_be_read_is_a_failure_and_the_others_go_on(smoke_store: Path, tmp_path: Path) -> None:
    spots = resolve(str(smoke_store), "spots/smoke", "spots")
    folder = tmp_path / spots.manifest.folder
    shutil.copytree(spots.path.local_path, folder)
    (folder / "sections" / "patient-C.h5ad").write_bytes(b"no section")
    made = complete.run(_config(tmp_path, method="median", split={"train": ["patient-A"]}))
    (failure,) = made.failures().to_pylist()
    assert (failure["slide"], failure["stage"]) == ("patient-C", "complete")
    assert "is not a readable HDF5 file" in failure["reason"]
    assert list(made.manifest.notes["sections"]) == ["patient-A", "patient-B"]
    assert "summary" not in made.manifest.notes  # no validation sections, no table
    shutil.copy(spots.path.local_path / "sections" / "patient-C.h5ad", folder / "sections")
    again = complete.run(_config(tmp_path, method="median", split={"train": ["patient-A"]}, run=_retry(tmp_path)))
    assert again.path == made.path
    assert list(again.manifest.notes["sections"]) == PATIENTS


def _retry(store: Path) -> dict[str, Any]:
    return {"store": str(store), "retry_failed": True}


def test_genes_are_chosen_on_training_sections_alone(toy_store: StoragePath) -> None:
    spots = resolve(toy_store.uri, "spots/toy", "spots")
    genes, about = choose_genes(CompletedGenes(count=2), spots, ("S1", "S2"))
    assert len(genes) == 2
    assert about.startswith("the 2 genes of highest mean Moran's I of 4 with a count in 70% of the spots of S1, S2")
    for name in ("S3", "S4"):  # held out: not read
        (spots.path / "sections" / f"{name}.h5ad").write_bytes(b"")
    assert choose_genes(CompletedGenes(count=2), spots, ("S1", "S2"))[0] == genes


def test_a_listed_gene_that_no_training_section_has_is_refused(toy_store: StoragePath, tmp_path: Path) -> None:
    spots = resolve(toy_store.uri, "spots/toy", "spots")
    (tmp_path / "genes.txt").write_text("C\nA\n")
    assert choose_genes(CompletedGenes(file=str(tmp_path / "genes.txt")), spots, ("S1",))[0] == ["C", "A"]
    (tmp_path / "genes.txt").write_text("C\nnowhere\n")
    with pytest.raises(PanelError, match="1 of 2 genes of the panel are in no training section: 'nowhere'"):
        choose_genes(CompletedGenes(file=str(tmp_path / "genes.txt")), spots, ("S1",))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": ["S9"]}, "no section 'S9'"),
        ({"train": ["P1"], "validation": ["S4"]}, "'S4' are listed twice"),
    ],
)
def test_unknown_and_repeated_sections_are_refused(toy_store: StoragePath, split: dict[str, Any], message: str) -> None:
    config = complete.CONFIG.of({"spots": "spots/toy", "split": split, "run": {"store": toy_store.uri}})
    with pytest.raises(ConfigError, match=message):
        complete.run(config)


def test_options_of_other_methods_do_not_count_as_other_work() -> None:
    values = {"spots": "spots/toy", "split": {"train": ["S1"]}, "run": {"store": "/s"}, "method": "linear"}
    one, same = complete.CONFIG.of(values), complete.CONFIG.of({**values, "spackle": {"steps": 3}})
    other = complete.CONFIG.of({**values, "linear": {"alpha": 3.0}})
    assert one.fingerprint_values() == same.fingerprint_values() != other.fingerprint_values()
    assert "median" not in one.fingerprint_values()
    assert complete.CONFIG.load(ROOT / "conf" / "complete" / "smoke.yaml").method == "linear"
