"""A training from pixels, as a worker builds it: any method, its score per epoch, and what is refused before it starts.

Without Ray. A whole run with an embedding by the trained encoder is in `test_train`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raystp import tables
from raystp.artifacts import resolve
from raystp.digests import content_id
from raystp.errors import ConfigError, ModelError
from raystp.expression.training_set import load_training_set
from raystp.models.arrays import encoder_weights, tower_identity
from raystp.models.methods import METHODS
from raystp.models.training.fit import fit
from raystp.models.training.setup import start
from raystp.steps.embedding_source import open_embeddings_for
from raystp.steps.train.config import TrainConfig
from raystp.steps.train.spots import plan as spots
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.steps.train.spots.learner import SpotsLearner
from raystp.storage import StoragePath
from tests.steps.conftest import MPP, PATIENTS, SIDE, finish

ABLE = [name for name, method in METHODS.items() if not method.frozen_reason({})]
NARROW: dict[str, dict[str, Any]] = {
    "bleep": {"dim": 8},
    "mclstexp": {"dim": 8, "layers": 1, "heads": 1, "head_dim": 4},
    "genequery": {"dim": 8, "depth": 1, "heads": 1, "head_dim": 4, "feedforward": 8},
    "nh2st": {"dim": 8, "heads": 1},
    "attention": {"embedding": 8, "hidden": 4},
}


def _drawn_tiles(store: StoragePath, folder: Path) -> None:
    """Add `tile/drawn`: the toy's tiles with 224 px, on slides of noise."""
    toy = resolve(store.uri, "tile/toy", "tile")
    artifact = finish(store, "tile", "drawn", {"side": SIDE * MPP, "pixels": 224, "patients": PATIENTS})
    rows = []
    for number, (slide, patient) in enumerate(PATIENTS.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (192, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{slide}.png")
        table = toy.table(f"tiles/{slide}.parquet", tables.TILES)
        (artifact.path / "tiles" / f"{slide}.parquet").write_table(table)
        content = content_id(StoragePath.of(folder / f"{slide}.png"))
        values = [slide, str(folder / f"{slide}.png"), patient, content, MPP, "table", 160, 192, True, 0.5, 6]
        rows.append(dict(zip(tables.SLIDES.names, values, strict=True)))
    (artifact.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))


def _values(store: StoragePath, kind: str, **changes: Any) -> dict[str, Any]:
    fit = {"epochs": 2, "batch_size": 4, "accumulate_batches": 1, "lr": 1e-3, "encoder_lr": 1e-3, "select": "best"}
    values = {
        "spots": "spots/toy",
        "tiles": "tile/drawn",
        "encoder": {"name": "tiny"},
        "model": kind,
        **({kind: NARROW[kind]} if kind in NARROW else {}),
        "panel": {"variable": 4},
        "split": {"test": ["S3"], "validation": ["S2"]},
        "text": {"encoder": "random"},
        "bags": {"parts": 3},
        "fit": fit,
        "run": {"store": store.uri, "tracking": "none"},
    }
    return values | changes


def _learner(values: dict[str, Any]) -> SpotsLearner:
    config = TrainConfig.of(values)
    assert isinstance(config, SpotsTrainConfig)
    learner = spots.plan_training(config, spots.open_sources(config)).learner
    assert isinstance(learner, SpotsLearner)
    return learner


@pytest.mark.parametrize("kind", ABLE)
def test_each_method_trains_an_encoder_from_pixels_and_scores_its_epochs(
    toy_store: StoragePath, tmp_path: Path, kind: str
) -> None:
    _drawn_tiles(toy_store, tmp_path)
    augment = {"stain": "macenko", "stain_strength": 0.1}
    learner = _learner(_values(toy_store, kind, augment=augment))
    train, validation = load_training_set(learner.spec)
    assert validation is not None
    setup = learner.setup(train, validation, torch.device("cpu"))
    assert learner.pixels is not None
    options = learner.pixels.fit
    state = start(setup, options)
    before = {name: value.clone() for name, value in encoder_weights_of(state.model).items()}
    rows = list(fit(state, setup.train, options, validation=setup.validation, score=setup.score))
    assert all(np.isfinite(row["validation_mse"] or np.nan) and row["validation_loss"] is not None for row in rows)
    assert all(not torch.equal(value, before[name]) for name, value in encoder_weights_of(state.model).items())
    arrays = {name: value.detach().numpy() for name, value in state.model.state_dict().items()} | setup.extra
    predicted = learner.predict(arrays, train, validation)
    assert predicted.shape == validation.expression.shape
    assert encoder_weights(arrays).keys() == before.keys()


def encoder_weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.get_submodule("tower").state_dict())


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        (
            "ridge",
            {},
            r"'ridge' cannot be trained from `tiles`, because it is fitted at once.*can be: bleep, mclstexp, ",
        ),
        ("genequery", {"genequery": {"context": "spot"}}, r"genequery\.context=spot reads all spots of a section"),
        ("nh2st", {"nh2st": {"tokens": 4}}, r"nh2st\.tokens=4 reads a map"),
        ("bleep", {"neighbour_mean": 4}, "`neighbour_mean` averages cached features"),
        ("bleep", {"encoder": {"trained": "train/toy"}}, r"encoder\.trained: a training starts from"),
        ("bleep", {"fit": {"layer_decay": 2}}, r"layer_decay must be from 0 to 1, got 2"),
        ("bleep", {"augment": {"stain": "he"}}, "augment.stain"),
    ],
)
def test_what_no_encoder_can_be_trained_with_is_refused_with_the_reason(
    toy_store: StoragePath, kind: str, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        TrainConfig.of(_values(toy_store, kind, **changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fit": {"encoder_lr": 1e-4}}, r"fit\.encoder_lr: only where .* remove it"),
        ({"augment": {"stain": "hed"}, "fit": {"layer_decay": 0.5}}, r"fit\.layer_decay and augment: .* remove them"),
    ],
)
def test_options_of_an_encoder_that_is_not_trained_are_refused(
    toy_store: StoragePath, changes: dict[str, Any], named: str
) -> None:
    values = _values(toy_store, "bleep", tiles=None, encoder=None, embeddings="embed/toy", fit={})
    with pytest.raises(ConfigError, match=named):
        TrainConfig.of(values | changes)
    assert "augment" not in TrainConfig.of(values).fingerprint_values()


def test_tiles_that_do_not_fit_the_encoder_are_refused_before_any_worker(toy_store: StoragePath) -> None:
    with pytest.raises(ConfigError, match=r"encoder 'tiny' expects tiles of 224 px, \S+ has 32 px"):
        _learner(_values(toy_store, "bleep", tiles="tile/toy"))
    finish(toy_store, "tile", "both", {"side": 16.0, "scales": [16.0, 32.0], "pixels": 224, "patients": PATIENTS})
    folders = [resolve(toy_store.uri, name, "tile").path.local_path for name in ("tile/both", "tile/toy")]
    (folders[0] / "tiles").symlink_to(folders[1] / "tiles")
    with pytest.raises(ConfigError, match=r"has tiles of several sizes \('16\.0 um', '32\.0 um'\)"):
        _learner(_values(toy_store, "bleep", tiles="tile/both"))


def test_a_model_with_an_encoder_of_its_own_reads_the_embeddings_of_that_encoder_only(toy_store: StoragePath) -> None:
    model = finish(toy_store, "train", "own", {})
    identity = tower_identity(model.manifest.fingerprint)
    tile = {"side": SIDE * MPP, "pixels": 32, "patients": PATIENTS}
    finish(toy_store, "embed", "own", tile | {"encoder": {"trained": "train/own"}, "encoder_identity": identity})
    meta = {"trained_tower": True}
    assert open_embeddings_for(meta, toy_store.uri, "embed/own", model.path).manifest.name == "own"
    with pytest.raises(ModelError, match=r"is of another encoder \(seed:0\), and .* with encoder\.trained="):
        open_embeddings_for(meta, toy_store.uri, "embed/toy", model.path)
