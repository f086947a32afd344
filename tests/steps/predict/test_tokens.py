"""predict with a model that reads spatial tokens: from slides to expression, as embed and impute of the same tiles."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from raystp.artifacts import resolve
from raystp.errors import ConfigError
from raystp.steps.embed import step as embed
from raystp.steps.impute import step as impute
from raystp.steps.predict import step as predict
from raystp.steps.publish import step as publish
from raystp.steps.train import step as train

GRID = 7
TOKENS = GRID**2
FIT = {"epochs": 2, "batch_size": 16, "accumulate_batches": 1, "lr": 1e-3, "select": "last", "patience": None}
MODELS: dict[str, dict[str, Any]] = {
    "genequery": {
        "text": {"encoder": "random"},
        "genequery": {
            "context": "tokens",
            "tokens": TOKENS,
            "dim": 16,
            "depth": 1,
            "heads": 2,
            "head_dim": 8,
            "feedforward": 16,
        },
    },
    "nh2st": {"nh2st": {"dim": 16, "heads": 2, "tokens": TOKENS}},
}


@pytest.fixture(scope="module")
def tokens(smoke_store: Path) -> str:
    """Embed the smoke cohort's tiles with their spatial tokens; return the reference."""
    run = {"store": str(smoke_store)}
    embed.run(
        embed.CONFIG.of(
            {"name": "tokens", "tiles": "tile/smoke", "encoder": {"name": "tiny"}, "tokens": GRID, "run": run}
        )
    )
    return "embed/tokens"


def _train(store: Path, method: str, embeddings: str) -> None:
    values = {
        "name": f"tokens-{method}",
        "model": method,
        "spots": "spots/smoke",
        "embeddings": embeddings,
        "panel": {"variable": 20},
        "split": {"test": ["patient-C"]},
        "fit": FIT,
        **MODELS[method],
    }
    train.run(train.CONFIG.of({**values, "run": {"store": str(store), "tracking": "none"}}))


@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.parametrize("method", list(MODELS))
def test_a_model_that_reads_tokens_predicts_slides_as_impute_does(
    smoke_store: Path, tmp_path: Path, tokens: str, method: str
) -> None:
    run, model = {"store": str(smoke_store)}, f"train/tokens-{method}"
    _train(smoke_store, method, tokens)
    known = {"name": f"tokens-{method}", "embeddings": tokens, "model": model, "slides": ["unmeasured"], "run": run}
    imputed = impute.run(impute.CONFIG.of(known))
    expected = ad.read_h5ad(imputed.path.local_path / "anndata" / "unmeasured.h5ad")
    assert np.isfinite(expected.X).all()
    assert np.asarray(expected.X).std(axis=0).min() > 0  # tiles differ
    published = tmp_path / "published"
    publish.run(publish.CONFIG.of({"model": model, "out": str(published), "run": run}))
    cohort = resolve(str(smoke_store), "demo/smoke", "demo").path.local_path
    slides = tmp_path / "slides.csv"
    slides.write_text(f"slide,path,patient\nunmeasured,{cohort}/slides/unmeasured.svs,unmeasured\n")
    for store, named in ((smoke_store, model), (tmp_path / "other", str(published))):
        out = tmp_path / f"out-{Path(store).name}"
        values = {"slides": str(slides), "model": named, "out": str(out), "run": {"store": str(store)}}
        predict.run(predict.CONFIG.of({"name": f"tokens-{method}", **values}))
        found = ad.read_h5ad(out / "unmeasured.h5ad")
        assert found.var_names.tolist() == expected.var_names.tolist()
        np.testing.assert_array_equal(found.X, expected.X)


@pytest.mark.ray
@pytest.mark.faults
def test_embeddings_without_the_tokens_are_refused_with_the_step_that_keeps_them(
    smoke_store: Path, tokens: str
) -> None:
    _train(smoke_store, "genequery", tokens)
    values = {"name": "none", "embeddings": "embed/smoke", "model": "train/tokens-genequery"}
    with pytest.raises(ConfigError, match=r"embed.*tokens"):
        impute.run(impute.CONFIG.of({**values, "run": {"store": str(smoke_store)}}))
