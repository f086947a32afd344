"""A gene missing in one training and one test section: scores equal those computed by hand over what was measured."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from raystp import tables
from raystp.artifacts import Artifact, resolve
from raystp.errors import SectionError
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.expression.genes.panel import panel_aliases
from raystp.expression.schema import read_section, write_section
from raystp.index.open import open_reference_index
from raystp.models.methods import open_predictor
from raystp.models.predictor import ContrastivePredictor
from raystp.models.store import load_model, save_model
from raystp.steps.evaluate import step as evaluate
from raystp.steps.evaluate.predictions import open_models
from raystp.steps.evaluate.spots.outcomes import compare_sections
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.train import step as train
from raystp.storage import StoragePath
from tests.steps.conftest import GENES, add_joint, counts_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

IDS = [f"ENSG{number:011d}" for number in range(4)]
TRAIN = ["S1", "S2", "S4"]
MISSING = {"S2": "D", "S3": "C"}


def expression(section: str) -> np.ndarray:
    """Return log1p CP10k over the genes that a section measured, NaN for the other one."""
    counts = counts_of(section)
    measured = np.array([gene != MISSING.get(section) for gene in GENES])
    values = np.full(counts.shape, np.nan)
    own = counts[:, measured]
    values[:, measured] = np.log1p(own / own.sum(axis=1, keepdims=True) * 1e4)
    return values


def features(section: str) -> np.ndarray:
    return np.array([[["S1", "S2", "S3", "S4"].index(section), tile] for tile in range(6)], np.float64)


def rewrite(store: StoragePath, section: str, kept: list[str], names: list[str] | None = None) -> None:
    file = resolve(store.uri, "spots/toy", "spots").path / "sections" / f"{section}.h5ad"
    adata: ad.AnnData = read_section(file)[:, kept].copy()
    if names is None:
        adata.var["gene_ids"] = [IDS[GENES.index(gene)] for gene in kept]
    else:
        adata.var_names = names
    write_section(file, adata)


@pytest.fixture
def store(toy_store: StoragePath) -> StoragePath:
    """The toy store: S2, of the training, lacks D; S3, of the test, lacks C and names its genes by Ensembl ids."""
    for section in ("S1", "S2", "S4"):
        rewrite(toy_store, section, [gene for gene in GENES if gene != MISSING.get(section)])
    rewrite(toy_store, "S3", ["A", "B", "D"], [f"{IDS[n]}.{n + 2}" for n in (0, 1, 3)])
    return toy_store


def _trained(store: StoragePath, model: str, folder: Path, **more: Any) -> Artifact:
    (folder / "panel.txt").write_text("\n".join(GENES))
    values: dict[str, Any] = {"name": model, "model": model, "spots": "spots/toy", "embeddings": "embed/toy"}
    values |= {"split": {"test": ["P3"]}, "panel": {"file": str(folder / "panel.txt")}, "run": _run(store), **more}
    return train.run(train.CONFIG.of(values))


def _run(store: StoragePath) -> dict[str, Any]:
    return {"store": store.uri, "tracking": "none"}


def _predicted(store: StoragePath, name: str, model: str, **more: Any) -> Artifact:
    values = {"name": name, "model": model, "embeddings": "embed/toy", "spots": "spots/toy", "slides": ["S3"]}
    return impute.run(impute.CONFIG.of({**values, "run": {"store": store.uri}, **more}))


def _matrix(prediction: Artifact) -> np.ndarray:
    table = prediction.table("predictions/S3.parquet", tables.predictions(4))
    return np.asarray(tables.matrix(table["expression"]), np.float64)


def _by_hand(model: str, alpha: float) -> np.ndarray:
    """Return what each baseline predicts of S3, gene by gene from the sections that measured it."""
    out = np.empty((6, 4))
    for column, gene in enumerate(GENES):
        own = [section for section in TRAIN if MISSING.get(section) != gene]
        x = np.concatenate([features(section) for section in own])
        y = np.concatenate([expression(section)[:, column] for section in own])
        if model == "gene_mean":
            out[:, column] = y.mean()
        elif model == "ridge":
            mean, scale = x.mean(axis=0), x.std(axis=0)
            out[:, column] = Ridge(alpha).fit((x - mean) / scale, y).predict((features("S3") - mean) / scale)
        else:
            everything = np.concatenate([features(section) for section in TRAIN])
            mean, scale = everything.mean(axis=0), everything.std(axis=0)
            unit = [(side - mean) / scale for side in (features("S3"), x)]
            unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in unit]
            nearest = np.argsort(-(unit[0] @ unit[1].T), axis=1, kind="stable")[:, :2]
            out[:, column] = y[nearest].mean(axis=1)
    return out


def _scores(artifact: Artifact) -> dict[tuple[str, str, str, str], float]:
    rows = artifact.table("scores.parquet", tables.SCORES).to_pylist()
    return {(row["model"], row["section"], row["genes"], row["metric"]): row["value"] for row in rows}


def test_scores_of_the_baselines_are_those_by_hand(store: StoragePath, tmp_path: Path) -> None:
    truth, measured = expression("S3"), [0, 1, 3]
    predictions = {}
    for model in ("ridge", "knn", "gene_mean"):
        made = _trained(store, model, tmp_path, **({"knn": {"k": 2}} if model == "knn" else {}))
        assert made.manifest.notes["warnings"]["S2"][0].startswith("3 of 4 genes of the panel are measured here")
        predictions[model] = _matrix(_predicted(store, model, f"train/{model}"))
        alpha = float(load_model(made.path)[1].get("alpha", 0.0))
        if model != "knn":  # equal distances are ordered arbitrarily
            np.testing.assert_allclose(predictions[model], _by_hand(model, alpha), atol=1e-4)
    values = {"spots": "spots/toy", "predictions": [f"impute/{model}" for model in predictions], "permutations": 1}
    scored = evaluate.run(evaluate.CONFIG.of({"name": "e", **values, "draws": 100, "run": _run(store)}))
    scores = _scores(scored)
    for model, predicted in predictions.items():
        errors = (predicted - truth)[:, measured]
        assert scores[model, "S3", "all", "MSE"] == pytest.approx(np.square(errors).mean(), rel=1e-4)
        assert scores[model, "mean", "all", "MAE"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    pcc = pcc_per_gene(predictions["ridge"][:, measured], truth[:, measured])[0]
    assert scores["ridge", "S3", "all", "PCC"] == pytest.approx(np.mean(pcc), abs=1e-4)
    assert scores["ridge", "pooled", "all", "PCC"] == pytest.approx(np.mean(pcc), abs=1e-4)
    assert scores["section mean", "S3", "all", "MSE"] == pytest.approx(truth[:, measured].var(axis=0).mean(), rel=1e-4)
    (first, *_) = scored.manifest.notes["warnings"]["S3"]
    assert first == "3 of 4 genes of the panel are measured here; scores are over these, and n/a for 'C'"
    assert first in scored.manifest.notes["summary"]
    assert first.replace("'", "&#39;") in (scored.path / "report.html").read_bytes().decode()


def _add_bleep(store: StoragePath) -> tuple[str, Any, dict[str, Any]]:
    """Leave `train/joint`, a contrastive model of S1, S2 and S4 that was never trained, and return it."""
    add_joint(store)
    model = resolve(store.uri, "train/joint", "train")
    kind, arrays, meta = load_model(model.path)
    mean = np.nanmean(np.concatenate([expression(section) for section in TRAIN]), axis=0).tolist()
    aliases = panel_aliases(resolve(store.uri, "spots/toy", "spots"), GENES)
    meta = {**meta, "train": TRAIN, "training_mean": mean, "training_variance": mean, "gene_aliases": aliases}
    save_model(model.path, kind, arrays, meta)
    return kind, arrays, meta


def test_neighbours_vote_only_for_what_their_section_measured(store: StoragePath) -> None:
    stacked = np.concatenate([expression(section) for section in TRAIN])
    kind, arrays, record = _add_bleep(store)
    values = {"name": "i", "model": "train/joint", "spots": "spots/toy", "embeddings": "embed/toy"}
    one = index.run(index.CONFIG.of({**values, "run": {"store": store.uri}}))
    many = index.run(index.CONFIG.of({**values, "name": "j", "shards": 3, "run": {"store": store.uri}}))
    assert one.manifest.notes["bank"]["unmeasured"] == {"S2": [3]}
    assert one.manifest.notes["warnings"] == {
        "S2": ["3 of 4 genes of the panel are measured here; its spots have no vote for 'D'"]
    }
    model = open_predictor(kind, arrays, record)
    assert isinstance(model, ContrastivePredictor)
    opened = open_reference_index(one.path, one.manifest.notes["bank"])
    rows = opened.search(model.embed_images(features("S3").astype(np.float32)), 8)[1]
    of_section = np.asarray(TRAIN)[np.repeat(np.arange(3), 6)]
    assert opened.rows["section"].to_pylist() == of_section.tolist()
    wanted = np.nanmean(stacked[rows], axis=1)
    for number, made in enumerate((one, many)):
        prediction = _predicted(store, f"p{number}", "train/joint", index=f"index/{made.manifest.name}", k=8)
        np.testing.assert_allclose(_matrix(prediction), wanted, atol=1e-4)
    extended = index.run(index.CONFIG.of({"name": "few", **values, "reference": ["S2"], "run": {"store": store.uri}}))
    alone = _predicted(store, "alone", "train/joint", index=f"index/{extended.manifest.name}", k=3, spread=True)
    assert np.isnan(_matrix(alone)[:, 3]).all()
    assert alone.manifest.notes["warnings"]["S3"][0].startswith("6 of 24 values have no prediction (NaN)")
    compared = compare_sections(resolve(store.uri, "spots/toy", "spots"), open_models([alone], store.uri))
    outcome = compared.outcomes["bleep"]["S3"]
    np.testing.assert_allclose(outcome.predicted[:, :2], _matrix(alone)[:, :2])
    assert np.isnan(outcome.measured).all(axis=0).tolist() == [False, False, True, True]
    assert any(warning.startswith("bleep: 6 values") for warning in compared.warnings["S3"])


def test_a_section_with_other_gene_names_is_a_failure_with_both_kinds_of_names(
    store: StoragePath, tmp_path: Path
) -> None:
    _trained(store, "ridge", tmp_path)
    _predicted(store, "r", "train/ridge")
    rewrite(store, "S3", [f"{IDS[n]}.{n + 2}" for n in (0, 1, 3)], ["gene-1", "gene-2", "gene-3"])
    values = {"name": "e", "spots": "spots/toy", "predictions": ["impute/r"], "permutations": 0, "run": _run(store)}
    with pytest.raises(SectionError, match=r"'S3' shares 0 of the 4 genes.*'A', 'B', 'C'.*'gene-1', 'gene-2'"):
        evaluate.run(evaluate.CONFIG.of(values))


def test_a_named_slide_without_embeddings_is_a_failure_with_the_reason(store: StoragePath) -> None:
    embed = resolve(store.uri, "embed/toy", "embed")
    lost: list[dict[str, object]] = [{"slide": "S9", "stage": "embed", "reason": "it has no tile"}]
    (embed.path / "failures.parquet").write_table(tables.of_rows(lost, tables.FAILURES))
    manifest = embed.path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"failures": 0', b'"failures": 1'))
    made = _predicted(store, "lost", "train/toy", slides=["S3", "S9"])
    assert made.manifest.notes["slides"] == ["S3"]
    assert made.failures().to_pylist() == [
        {"slide": "S9", "stage": "impute", "reason": "it failed at embed: it has no tile"}
    ]


def test_null_validates_nothing(store: StoragePath) -> None:
    values = {"spots": "spots/toy", "embeddings": "embed/toy", "model": "ridge", "run": {"store": store.uri}}
    config = train.CONFIG.of({**values, "split": {"test": ["P3"], "validation": None, "validation_block": None}})
    assert (config.split.validation, config.validates) == ([], False)
    cases = {"targets": "cases", "embeddings": "embed/toy", "model": "attention", "cases": {"table": "t.csv"}}
    config = train.CONFIG.of({**cases, "split": {"test": ["P3"], "validation": None}})
    assert (config.split.validation, config.validates) == ([], False)
