"""Completed labels are for training spots alone; nothing that is held out is in them, and no score is taken on them."""

from collections.abc import Callable, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pytest

from raystp.artifacts import Artifact, ArtifactWriter, resolve
from raystp.errors import ArtifactError, ConfigError, LeakError, SectionError
from raystp.expression.completed import read_completed, write_completed
from raystp.expression.schema import read_section, write_section
from raystp.expression.sections import load_counts
from raystp.expression.training_set import TrainingSetSpec, load_measured, load_training_set
from raystp.models.store import load_model
from raystp.steps.evaluate import step as evaluate
from raystp.steps.train import step as train
from raystp.steps.train.spots.completed import completed_sentence
from raystp.storage import StoragePath
from tests.steps.conftest import PATIENTS

COMPLETED = ["D", "B"]
"""Two of the four genes, in an order of their own."""

Finished = Callable[[StoragePath, str, str, Mapping[str, Any]], Artifact]


@pytest.fixture
def spots(toy_store: StoragePath) -> Artifact:
    """The toy's spots, with a zero in the gene D of each section's first spot."""
    found = resolve(toy_store.uri, "spots/toy", "spots")
    for slide in PATIENTS:
        file = found.path / "sections" / f"{slide}.h5ad"
        adata: ad.AnnData = read_section(file)
        counts = adata.X.toarray()
        counts[0, 3] = 0
        adata.X = type(adata.X)(counts)
        write_section(file, adata)
    return found


@pytest.fixture
def completed(toy_store: StoragePath, spots: Artifact) -> Artifact:
    """A completion of S1, S2 and S4, fitted on S1 alone: 9 at each missing entry."""
    notes = {
        "method": "median",
        "genes": COMPLETED,
        "patients": {"S1": "P1"},
        "sections": {name: {"spots": 6} for name in ("S1", "S2", "S4")},
    }
    writer = ArtifactWriter(
        toy_store / "complete" / "toy-0123456789ab",
        "complete",
        "toy",
        "0123456789ab",
        {"spots": spots.manifest.folder},
        {},
    )
    for name in ("S1", "S2", "S4"):
        counts = load_counts(spots, name)
        values = counts.expression(COMPLETED)
        values = np.where(values > 0, values, np.float32(9))
        write_completed(writer.path / "sections" / f"{name}.h5ad", counts, COMPLETED, values)
    return writer.finish({}, [{"slide": "S3", "stage": "complete", "reason": "no light"}], notes)


def _spec(spots: Artifact, completed: Artifact | None, **changes: Any) -> TrainingSetSpec:
    embed = resolve(spots.path.parent.parent.uri, "embed/toy", "embed")
    values: dict[str, Any] = {"train": ("S2", "S1"), "validation": ("S4",), "validation_block": 0.0}
    genes = ("A", "B", "C", "D")
    return TrainingSetSpec(spots=spots, images=embed, **{**values, **changes}, genes=genes, completed=completed)


def test_only_zeros_of_completed_genes_of_training_spots_change(spots: Artifact, completed: Artifact) -> None:
    spec = _spec(spots, completed)
    (train_spots, held), (measured, measured_held) = load_training_set(spec), load_measured(spec)
    changed = train_spots.expression != measured.expression
    assert np.argwhere(changed).tolist() == [[0, 3], [6, 3]]  # the first spot of each section, the gene D
    assert (train_spots.expression[changed] == 9).all()
    assert held is not None
    assert measured_held is not None
    np.testing.assert_array_equal(held.expression, measured_held.expression)
    np.testing.assert_array_equal(train_spots.totals, measured.totals)
    np.testing.assert_array_equal(load_training_set(_spec(spots, None))[0].expression, measured.expression)


def test_a_validation_block_keeps_its_measured_labels(spots: Artifact, completed: Artifact) -> None:
    spec = _spec(spots, completed, validation=(), validation_block=0.5)
    (train_spots, held), (_, measured) = load_training_set(spec), load_measured(spec)
    assert held is not None
    assert measured is not None
    np.testing.assert_array_equal(held.expression, measured.expression)
    assert (train_spots.expression == 9).any()


def test_a_section_that_failed_to_complete_is_named_with_its_reason(spots: Artifact, completed: Artifact) -> None:
    with pytest.raises(SectionError, match=r"'S3' is not completed in .*; it failed: no light"):
        load_training_set(_spec(spots, completed, train=("S3",), validation=()))


def _config(store: StoragePath, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "name": "toy-completed",
        "model": "gene_mean",
        "spots": "spots/toy",
        "embeddings": "embed/toy",
        "completed": "complete/toy",
        "panel": {"variable": 4},
        "split": {"test": ["P3"], "train": ["S1", "S2"]},
        "run": {"store": store.uri, "tracking": "none"},
    }
    return train.CONFIG.of({**values, **changes})


def test_the_model_names_its_completed_labels_and_keeps_measured_gene_sets(
    toy_store: StoragePath, completed: Artifact
) -> None:
    made = train.run(_config(toy_store))
    _, arrays, meta = load_model(made.path)
    measured = train.run(_config(toy_store, completed=None))
    _, plain_arrays, plain = load_model(measured.path)
    assert made.manifest.fingerprint != measured.manifest.fingerprint
    assert made.manifest.inputs["completed"] == completed.manifest.folder
    assert made.manifest.config["completed"] == "complete/toy"
    assert "completed" not in plain
    assert meta["completed"] == {
        "artifact": "complete/toy-0123456789ab",
        "method": "median",
        "fitted_on": ["S1"],
        "genes": 2,
        "panel": 4,
    }
    assert made.manifest.notes["completed"] == meta["completed"]
    assert completed_sentence(meta["completed"]).startswith("trained on labels of 2 of 4 genes that median completed")
    assert meta["training_mean"] == plain["training_mean"]
    assert meta["training_variance"] == plain["training_variance"]
    gene = meta["genes"].index("D")
    (mean,), (plain_mean,) = arrays.values(), plain_arrays.values()
    assert mean[gene] == pytest.approx(plain_mean[gene] + 2 * 9 / 12, rel=1e-5)


def test_a_training_without_completed_labels_keeps_its_fingerprint_whatever_the_field(toy_store: StoragePath) -> None:
    assert "completed" not in _config(toy_store).fingerprint_values()


@pytest.mark.parametrize(
    ("split", "leaks"),
    [
        ({"test": ["S1"], "train": ["S2"]}, True),
        ({"test": ["S4"], "train": ["S2"]}, True),  # another section of S1's patient
        ({"test": ["S4"], "train": ["S1", "S2"], "protocol": "section"}, False),
        ({"test": ["S1"], "train": ["S2"], "protocol": "section"}, True),
        ({"test": ["S3"], "train": ["S2"]}, False),
    ],
)
@pytest.mark.usefixtures("completed")
def test_a_completion_fitted_on_what_is_held_out_is_refused(
    toy_store: StoragePath, split: dict[str, Any], *, leaks: bool
) -> None:
    config = _config(toy_store, split=split)
    if leaks:
        with pytest.raises(LeakError, match=r"was fitted on 'S1', of the (patients|sections) that are held out"):
            train.run(config)
    else:
        assert train.run(config).manifest.notes["completed"]["genes"] == 2


@pytest.mark.usefixtures("completed")
def test_a_section_that_the_completion_was_fitted_on_is_known_to_the_model(toy_store: StoragePath) -> None:
    _, _, meta = load_model(train.run(_config(toy_store, split={"test": ["P3"], "train": ["S2"]})).path)
    assert meta["train"] == ["S2"]
    assert meta["patients"] == {"S2": "P2", "S1": "P1"}
    assert meta["slides"] == ["S2", "S1"]


def test_completed_labels_of_other_spots_are_refused(
    toy_store: StoragePath, completed: Artifact, finished: Finished
) -> None:
    spots = resolve(toy_store.uri, "spots/toy", "spots")
    finished(toy_store, "spots", "other", spots.manifest.notes)
    with pytest.raises(ConfigError, match=r"completes spots/toy-\w+, and the training reads spots/other-"):
        train.run(_config(toy_store, spots="spots/other"))
    assert completed.path.exists()


@pytest.mark.usefixtures("completed")
def test_a_panel_without_a_completed_gene_is_refused(toy_store: StoragePath, tmp_path: Any) -> None:
    (tmp_path / "panel.txt").write_text("A\nC\n")
    with pytest.raises(ConfigError, match=r"none of the 2 genes of the panel is in .*: list the panel's genes"):
        train.run(_config(toy_store, panel={"file": str(tmp_path / "panel.txt")}))


def test_evaluate_cannot_be_given_completed_sections(
    toy_store: StoragePath, completed: Artifact, finished: Finished
) -> None:
    finished(toy_store, "impute", "none", {})
    values = {"name": "e", "predictions": ["impute/none"], "run": {"store": toy_store.uri, "tracking": "none"}}
    reference = completed.path.uri
    for role in ("spots", "predictions"):
        given: dict[str, Any] = {**values, "spots": "spots/toy", role: reference if role == "spots" else [reference]}
        with pytest.raises(ArtifactError, match="is an artifact of the 'complete' step; give one of the"):
            evaluate.run(evaluate.CONFIG.of(given))
    assert "completed" not in evaluate.CONFIG.variant({}).model_fields
    with pytest.raises(SectionError, match="has no uns"):  # not a measured section either
        read_section(completed.path / "sections" / "S1.h5ad")
    with pytest.raises(SectionError, match="is not a completed section of version 1"):
        read_completed(resolve(toy_store.uri, "spots/toy", "spots").path / "sections" / "S1.h5ad")
