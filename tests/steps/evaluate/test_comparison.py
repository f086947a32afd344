"""Models that differ only in their seed are one model of a comparison; a curve is of the same methods and sections."""

from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, resolve
from raystp.errors import ConfigError
from raystp.evaluate.metrics.gene_scores import GeneScores, genes_table
from raystp.expression.labels import Labels
from raystp.models.store import load_model, save_model
from raystp.steps.evaluate.comparison import seed_groups
from raystp.steps.evaluate.curve import curve_of
from raystp.steps.evaluate.predictions import Prediction, open_models
from raystp.storage import StoragePath
from tests.steps.conftest import GENES


def _write(
    store: StoragePath, step: str, name: str, *, config: dict[str, Any], inputs: dict[str, str]
) -> ArtifactWriter:
    return ArtifactWriter(store / step / f"{name}-0123456789ab", step, name, "0123456789ab", inputs, config)


def _predict(store: StoragePath, name: str, *, seed: int = 0, **parts: Any) -> Artifact:
    """Leave a model that was trained with a seed, and its prediction."""
    config = {"model": "gene_mean", "name": name, "fit": {"seed": seed, "epochs": parts.get("epochs", 5)}}
    writer = _write(store, "train", name, config=config, inputs={"spots": "spots/toy"})
    kind, arrays, meta = load_model(resolve(store.uri, "train/toy", "train").path)
    save_model(writer.path, kind, arrays, meta | parts.get("meta", {}))
    model = writer.finish({}, [], {})
    inputs = {"model": model.manifest.folder, "embeddings": resolve(store.uri, "embed/toy", "embed").manifest.folder}
    notes = {"slides": ["S3"], "protocol": "patient", "panel": "all"}
    return _write(store, "impute", name, config={"k": parts.get("k", 5)}, inputs=inputs).finish({}, [], notes)


def _models(store: StoragePath, *predictions: Artifact) -> list[Prediction]:
    return open_models(list(predictions), store.uri)


def test_models_that_differ_only_in_their_seed_are_a_group(toy_store: StoragePath) -> None:
    made = [_predict(toy_store, f"s{seed}", seed=seed) for seed in range(3)]
    others = [
        _predict(toy_store, "longer", seed=3, epochs=9),
        _predict(toy_store, "nearer", seed=4, k=2),
        _predict(toy_store, "again", seed=5, epochs=7),
        _predict(toy_store, "same seed", seed=5, epochs=7),
    ]
    groups = seed_groups(_models(toy_store, *made, *others), toy_store.uri)
    assert groups == {"gene_mean, mean of 3 seeds": ("s0", "s1", "s2")}
    assert seed_groups(_models(toy_store, made[0], *others), toy_store.uri) == {}


def _scores(model: str, section: str, *pcc: float) -> GeneScores:
    return GeneScores(model, section, np.ones(4, np.int64), np.array(pcc), 1.0 - np.array(pcc))


def _evaluate(store: StoragePath, prediction: Artifact, model: str, section: str = "S3") -> Artifact:
    writer = _write(store, "evaluate", "small", config={}, inputs={"prediction 0": prediction.manifest.folder})
    scores = [_scores(model, name, 0.1, 0.2, 0.3, 0.4) for name in (section, "mean")]
    (writer.path / "genes.parquet").write_table(genes_table(scores, GENES))
    return writer.finish({}, [], {})


def test_a_curve_has_the_evaluations_points_under_the_names_of_the_models_here(toy_store: StoragePath) -> None:
    whole, small = _predict(toy_store, "whole"), _predict(toy_store, "small", meta={"train": ["S2"]})
    models = _models(toy_store, whole)
    scores = [_scores("gene_mean", name, 0.5, 0.5, 0.6, 0.8) for name in ("S3", "mean")]
    points = curve_of(models, scores, [_evaluate(toy_store, small, "gene_mean")], toy_store.uri)
    assert [(one.model, one.sections, one.trained) for one in points] == [
        ("gene_mean", 1, ["S2"]),
        ("gene_mean", 2, ["S1", "S2"]),
    ]
    assert [one.pcc for one in points] == pytest.approx([0.25, 0.6])
    assert curve_of(models, scores, [], toy_store.uri) == []


def test_a_curve_of_other_sections_or_methods_is_refused(toy_store: StoragePath) -> None:
    whole, small = _predict(toy_store, "whole"), _predict(toy_store, "small")
    models = _models(toy_store, whole)
    scores = [_scores("gene_mean", name, 0.5, 0.5, 0.6, 0.8) for name in ("S3", "mean")]
    elsewhere = _evaluate(toy_store, small, "gene_mean", "S4")
    with pytest.raises(ConfigError, match="tests the sections 'S4', this evaluation tests 'S3'"):
        curve_of(models, scores, [elsewhere], toy_store.uri)
    both = _models(toy_store, whole, small)
    scores = [_scores(one.name, name, 0.5, 0.5, 0.6, 0.8) for one in both for name in ("S3", "mean")]
    with pytest.raises(ConfigError, match="give evaluations of the same methods in the same order"):
        curve_of(both, scores, [_evaluate(toy_store, small, "gene_mean")], toy_store.uri)


def test_a_curve_of_other_labels_is_refused(toy_store: StoragePath) -> None:
    whole = _predict(toy_store, "whole")
    counts = _predict(toy_store, "counts", meta={"labels": Labels(totals="none").record})
    scores = [_scores("gene_mean", name, 0.5, 0.5, 0.6, 0.8) for name in ("S3", "mean")]
    with pytest.raises(ConfigError, match="is of labels in log1p counts, this evaluation of log1p CP10k"):
        curve_of(_models(toy_store, whole), scores, [_evaluate(toy_store, counts, "gene_mean")], toy_store.uri)


def test_an_earlier_evaluation_without_scores_of_genes_names_the_next_command(toy_store: StoragePath) -> None:
    whole = _predict(toy_store, "whole")
    old = _write(toy_store, "evaluate", "old", config={}, inputs={"prediction 0": whole.manifest.folder})
    table = tables.of_rows([], tables.SCORES)
    (old.path / "scores.parquet").write_table(table)
    with pytest.raises(ConfigError, match=r"has no genes\.parquet: run `raystp evaluate` again"):
        curve_of(_models(toy_store, whole), [], [old.finish({}, [], {})], toy_store.uri)
