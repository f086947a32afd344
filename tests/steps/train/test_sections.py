"""A model that embeds spots in their section: its index and its predictions are those of the sections in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import resolve
from raystp.expression.training_set import join_section, stack_sections
from raystp.models.methods import open_predictor
from raystp.models.predictor import SectionPredictor
from raystp.models.store import load_model
from raystp.steps.impute import step as impute
from raystp.steps.index import step as index
from raystp.steps.train import step as train
from raystp.steps.train.retrieval import Retrieval, retrieve

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


@pytest.mark.faults
def test_predictions_through_an_index_of_mclstexp_equal_those_in_memory(smoke_store: Path) -> None:
    """Acceptance 4 of mclSTExp: each section is embedded by a task of its own."""
    run: dict[str, Any] = {"store": str(smoke_store), "tracking": "none"}
    sources = {"name": "sections", "embeddings": "embed/smoke", "run": run}
    made = train.run(
        train.CONFIG.of(
            {
                **sources,
                "spots": "spots/smoke",
                "model": "mclstexp",
                "panel": {"variable": 20},
                "split": {"test": ["patient-C"], "validation": ["patient-B"]},
                "mclstexp": {"layers": 1, "heads": 2, "head_dim": 8, "positions": "sincos", "context_spots": 20},
                "fit": {"epochs": 2, "batch_size": 32, "lr": 1e-2, "select": "best_pcc"},
            }
        )
    )
    run = {"store": str(smoke_store)}
    sources |= {"model": "train/sections", "run": run}
    index.run(index.CONFIG.of({**sources, "spots": "spots/smoke", "shards": 2}))
    options = {"index": "index/sections", "k": 7, "weights": "inverse_square", "slides": ["patient-C"]}
    prediction = impute.run(impute.CONFIG.of({**sources, **options}))
    kind, arrays, meta = load_model(made.path)
    model = open_predictor(kind, arrays, meta)
    assert isinstance(model, SectionPredictor)
    assert model.needs_sections
    spots, images = (resolve(str(smoke_store), f"{step}/smoke", step) for step in ("spots", "embed"))
    names = [*meta["train"], *meta["validation"]]
    reference = stack_sections([join_section(spots, images, name) for name in names], tuple(meta["genes"]))
    test = join_section(spots, images, "patient-C")
    expected = retrieve(model, reference, test.features, Retrieval(k=7, weights="inverse_square"))
    table = prediction.table("predictions/patient-C.parquet", tables.predictions(20))
    row_of = {spot: row for row, spot in enumerate(table["spot"].to_pylist())}
    rows = [row_of[spot] for spot in test.counts.spots]
    np.testing.assert_allclose(tables.matrix(table["expression"])[rows], expected, atol=1e-5)
