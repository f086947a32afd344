"""Predictions that are scored together: comparable, complete, and matched with measured spots."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, resolve
from raystp.errors import ConfigError, SectionError
from raystp.expression.sections import SectionCounts, load_counts
from raystp.models.store import load_model, save_model
from raystp.steps.evaluate.predictions import Prediction, gene_sets_of, open_models
from raystp.steps.evaluate.spots.controls import (
    LOG_TOTAL,
    SECTION_MEAN,
    control_outcomes,
    on_predicted_spots,
    seen_gene_controls,
)
from raystp.steps.evaluate.spots.outcomes import predicted_sections, section_outcomes
from raystp.storage import StoragePath

STATISTICS: dict[str, Any] = {"training_mean": [1.0, 2.0, 3.0, 4.0], "training_variance": [4.0, 3.0, 2.0, 1.0]}


def _finish(store: StoragePath, step: str, name: str, **parts: Any) -> ArtifactWriter:
    fingerprint = "0123456789ab"
    config, inputs = parts.get("config") or {}, parts.get("inputs") or {}
    return ArtifactWriter(store / step / f"{name}-{fingerprint}", step, name, fingerprint, inputs, config)


def _predict(store: StoragePath, name: str = "a", model: str = "toy", **parts: Any) -> Artifact:
    """Leave a prediction of slide S3: tile n of gene g is n + g; the last tile has no spot."""
    sources = {
        "model": resolve(store.uri, f"train/{model}", "train"),
        "embeddings": resolve(store.uri, "embed/toy", "embed"),
    }
    inputs = {role: one.manifest.folder for role, one in sources.items()}
    writer = _finish(store, "impute", name, config=parts.get("config"), inputs=inputs)
    columns = resolve(store.uri, "tile/toy", "tile").table("tiles/S3.parquet", tables.TILES).to_pydict()
    columns["spot"][-1] = None
    expression = np.add.outer(np.arange(6.0), np.arange(4.0)).astype(np.float32)
    table = tables.of_columns([*columns.values(), tables.vectors(expression)], tables.predictions(4))
    (writer.path / "predictions" / "S3.parquet").write_table(table)
    notes = {"slides": ["S3"], "protocol": "patient", "panel": "all"}
    return writer.finish({}, [], notes | parts.get("notes", {}))


def _other_model(store: StoragePath) -> str:
    """Leave `train/other`, the model of `train/toy` again."""
    writer = _finish(store, "train", "other")
    save_model(writer.path, *load_model(resolve(store.uri, "train/toy", "train").path))
    return writer.finish({}, [], {}).manifest.name


def _opened(store: StoragePath, *predictions: Artifact) -> list[Prediction]:
    models = open_models(list(predictions), store.uri)
    return [replace(one, meta={**one.meta, **STATISTICS}) for one in models]


def _measured(spots: Artifact, models: list[Prediction]) -> dict[str, SectionCounts]:
    return {name: load_counts(spots, name) for name in predicted_sections(spots, models)}


def test_spots_with_a_tile_are_scored_in_the_order_of_the_tiles(toy_store: StoragePath) -> None:
    (model,) = _opened(toy_store, _predict(toy_store))
    measured = _measured(resolve(toy_store.uri, "spots/toy", "spots"), [model])
    outcome = section_outcomes(model, measured)["S3"]
    assert list(measured) == ["S3"]
    assert outcome.predicted[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(outcome.measured, measured["S3"].expression(model.genes)[:5])


def test_controls_use_the_measurement_of_the_test_section_and_no_image(toy_store: StoragePath) -> None:
    (model,) = _opened(toy_store, _predict(toy_store))
    spots = resolve(toy_store.uri, "spots/toy", "spots")
    measured = _measured(spots, [model])
    controls = control_outcomes(spots, model, measured, planted=None)
    assert list(controls) == [LOG_TOTAL, SECTION_MEAN]
    mean = controls[SECTION_MEAN]["S3"]
    np.testing.assert_allclose(mean.predicted, np.repeat(mean.measured.mean(axis=0, keepdims=True), 6, axis=0))


def test_controls_are_scored_on_the_spots_of_the_model(toy_store: StoragePath) -> None:
    (model,) = _opened(toy_store, _predict(toy_store))
    spots = resolve(toy_store.uri, "spots/toy", "spots")
    measured = _measured(spots, [model])
    outcome = section_outcomes(model, measured)["S3"]
    turned = replace(outcome, measured=outcome.measured[::-1], xy=outcome.xy[::-1])
    controls = control_outcomes(spots, model, measured, planted=None)
    for own in (outcome, turned):
        for one in on_predicted_spots(controls, {"S3": own}).values():
            np.testing.assert_array_equal(one["S3"].measured, own.measured)
            np.testing.assert_array_equal(one["S3"].xy, own.xy)
            assert len(one["S3"].predicted) == 5


def test_unseen_genes_are_scored_apart_and_beside_the_mean_of_the_seen(toy_store: StoragePath) -> None:
    (model,) = _opened(toy_store, _predict(toy_store))
    model = replace(model, meta={**model.meta, "unseen": ["B"]})
    sets = gene_sets_of([model], None)
    assert (sets["seen"].tolist(), sets["unseen"].tolist()) == ([0, 2, 3], [1])
    measured = _measured(resolve(toy_store.uri, "spots/toy", "spots"), [model])
    outcomes = {model.name: section_outcomes(model, measured)}
    (control,) = seen_gene_controls([model], outcomes).values()
    np.testing.assert_allclose(control["S3"].predicted[:, 1], np.arange(5) + 5 / 3, rtol=1e-6)
    with pytest.raises(ConfigError, match="trained without different genes"):
        gene_sets_of([model, replace(model, meta={**model.meta, "unseen": ["C"]})], None)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"notes": {"panel": "other"}}, "toy has panel 'all', other has 'other'; run one evaluation for each"),
        ({"notes": {"protocol": "section"}}, "toy has protocol 'patient', other has 'section'"),
        ({"config": {"genes": ["A"]}}, "holds only 1 genes; predict the whole panel"),
        ({"notes": {"output": "neighbours"}}, "holds neighbours only; predict the whole panel"),
        ({"model": "toy"}, "several models have the name 'toy'; train each with its own `name`"),
    ],
)
def test_predictions_that_cannot_be_compared_are_refused(
    toy_store: StoragePath, parts: dict[str, Any], sentence: str
) -> None:
    first = _predict(toy_store)
    other = _predict(toy_store, "b", **{"model": _other_model(toy_store), **parts})
    with pytest.raises(ConfigError, match=sentence):
        open_models([first, other], toy_store.uri)


def test_models_of_one_method_are_named_by_their_artifacts(toy_store: StoragePath) -> None:
    both = [_predict(toy_store), _predict(toy_store, "b", _other_model(toy_store))]
    assert [one.name for one in open_models(both[:1], toy_store.uri)] == ["gene_mean"]
    assert [one.name for one in open_models(both, toy_store.uri)] == ["toy", "other"]


@pytest.mark.parametrize(
    ("file", "measured", "first"),
    [
        (None, 5, "No known leak"),
        ("/bench/var_50genes.json", 5, "The panel is a list"),
        ("/all_genes.json", 4, "No known leak"),
    ],
)
def test_a_given_panel_is_a_leak_that_cannot_be_excluded_unless_it_is_of_all_genes(
    toy_store: StoragePath, file: str | None, measured: int, first: str
) -> None:
    (one,) = _opened(toy_store, _predict(toy_store))
    manifest = replace(one.model.manifest, config={**one.model.manifest.config, "panel": {"file": file}})
    assert replace(one, model=replace(one.model, manifest=manifest)).protocol(measured).leak.startswith(first)


def test_a_slide_without_measured_spots_cannot_be_scored(toy_store: StoragePath) -> None:
    (model,) = _opened(toy_store, _predict(toy_store, notes={"slides": ["S9"]}))
    with pytest.raises(SectionError, match=r"on a slide that all models predict \(predicted: 'S9'\)"):
        predicted_sections(resolve(toy_store.uri, "spots/toy", "spots"), [model])
