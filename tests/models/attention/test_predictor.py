"""A stored attention model: chunks, order and workers do not change predictions, and maps follow the tiles."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystp.errors import ModelError
from raystp.models.attention.model import AttentionRegression, seeded_attention
from raystp.models.attention.options import AttentionOptions
from raystp.models.attention.predictor import AttentionPredictor, RunningPool
from raystp.models.methods import open_predictor
from raystp.models.store import load_model, save_model
from raystp.storage import StoragePath

SMALL = AttentionOptions(embedding=12, hidden=6)
GENES = ["ERBB2", "FASN", "MUC1"]
DESIGNS = [
    SMALL,
    replace(SMALL, heads="per_gene"),
    replace(SMALL, heads="per_gene", trunk="per_gene"),
    replace(SMALL, level="embedding", heads="per_gene"),
    replace(SMALL, pooling="mean"),
    replace(SMALL, pooling="max"),
]
every_design = pytest.mark.parametrize("options", DESIGNS, ids=lambda o: f"{o.heads}-{o.trunk}-{o.level}-{o.pooling}")


def _model(options: AttentionOptions) -> AttentionRegression:
    model = seeded_attention(16, 3, options, seed=1).eval()
    for parameter in model.parameters():
        parameter.data *= 3
    rng = np.random.default_rng(0)
    model.standardize(rng.normal(2.0, 3.0, size=(50, 16)))
    model.standardize_labels(rng.normal(5.0, 2.0, size=(20, 3)))
    return model


def _predictor(options: AttentionOptions = SMALL, chunk: int | None = None) -> AttentionPredictor:
    return AttentionPredictor("attention", GENES, 16, _model(options), chunk)


def _bag(tiles: int = 120) -> np.ndarray:
    return np.random.default_rng(5).normal(2.0, 3.0, size=(tiles, 16)).astype(np.float32)


@every_design
def test_chunk_size_changes_no_prediction(options: AttentionOptions) -> None:
    bag, whole = _bag(), _predictor(options)
    for chunk in (1, 7, 120):
        part = _predictor(options, chunk)
        np.testing.assert_allclose(part.predict_bag(bag), whole.predict_bag(bag), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(part.predict(bag), whole.predict(bag), rtol=1e-5, atol=1e-5)
        for name, values in part.maps(bag).items():
            np.testing.assert_allclose(values, whole.maps(bag)[name], rtol=1e-4, atol=1e-5)


@every_design
def test_order_of_tiles_changes_no_slide_and_permutes_its_maps(options: AttentionOptions) -> None:
    bag, predictor = _bag(), _predictor(options)
    order = np.random.default_rng(0).permutation(len(bag))
    np.testing.assert_allclose(predictor.predict_bag(bag[order]), predictor.predict_bag(bag), rtol=1e-5)
    for name, values in predictor.maps(bag[order]).items():
        np.testing.assert_allclose(values, predictor.maps(bag)[name][order], rtol=1e-4, atol=1e-6)


@every_design
def test_pools_of_several_workers_merge_to_the_slide(options: AttentionOptions) -> None:
    predictor, tiles = _predictor(options), torch.from_numpy(_bag())
    pools = [RunningPool(predictor.model) for _ in range(4)]
    with torch.inference_mode():
        for pool, part in zip(pools[:3], tiles.tensor_split([5, 90]), strict=True):  # the fourth has no tiles
            pool.add(part)
    for pool in pools[1:]:
        pools[0].merge(pool)
    np.testing.assert_allclose(pools[0].value(), predictor.predict_bag(_bag()), rtol=1e-6)


@every_design
def test_contributions_sum_to_the_difference_of_the_slide_from_the_training_mean(options: AttentionOptions) -> None:
    predictor, maps = _predictor(options), _predictor(options).maps(_bag())
    mean = predictor.model.label_mean.numpy()
    np.testing.assert_allclose(maps["attention"].sum(axis=0), 1.0, atol=1e-5)
    np.testing.assert_array_equal(maps["local"], predictor.predict(_bag()))
    np.testing.assert_allclose(maps["contribution"], maps["attention"] * (maps["local"] - mean), atol=1e-5)
    np.testing.assert_allclose(mean + maps["contribution"].sum(axis=0), predictor.predict_bag(_bag()), rtol=1e-5)


def test_attention_of_extreme_logits_neither_overflows_nor_vanishes() -> None:
    model = _model(SMALL)
    assert model.tile.attend is not None
    model.tile.attend.weight.data *= 1e4
    predictor = AttentionPredictor("attention", GENES, 16, model, chunk=11)
    predicted, maps = predictor.predict_bag(_bag()), predictor.maps(_bag())
    assert np.isfinite(predicted).all()
    np.testing.assert_allclose(predicted, (maps["attention"] * maps["local"]).sum(axis=0), rtol=1e-5)


@every_design
def test_a_stored_model_keeps_its_predictions(tmp_path: Path, options: AttentionOptions) -> None:
    predictor, folder = _predictor(options), StoragePath.of(tmp_path / "model")
    save_model(
        folder, "attention", predictor.model.state_dict(), {"genes": GENES, "d_image": 16, "options": asdict(options)}
    )
    kind, arrays, meta = load_model(folder)
    back = open_predictor(kind, arrays, meta)
    assert isinstance(back, AttentionPredictor)
    assert (back.kind, kind, back.genes, back.d_image) == ("attention", "attention", GENES, 16)
    np.testing.assert_array_equal(back.predict_bag(_bag()), predictor.predict_bag(_bag()))
    np.testing.assert_array_equal(back.maps(_bag(), ["MUC1"])["local"], predictor.maps(_bag(), ["MUC1"])["local"])


@every_design
def test_tiles_can_be_removed_without_computing_the_others_again(options: AttentionOptions) -> None:
    predictor, bag = _predictor(options), _bag()
    kept = np.random.default_rng(3).permutation(len(bag))[:17]
    for column, gene in enumerate(GENES):
        parts, predict = predictor.removable(bag, gene)
        scale, mean = (float(values[column]) for values in (predictor.model.label_scale, predictor.model.label_mean))
        for rows in (kept, kept[:1], np.arange(len(bag))):
            assert predict(parts[rows]) * scale + mean == pytest.approx(
                predictor.predict_bag(bag[rows])[column], rel=1e-4
            )


def test_a_slide_without_tiles_is_refused_for_any_length_of_its_features() -> None:
    for predict in (_predictor().predict_bag, _predictor().maps, lambda bag: _predictor().removable(bag, "FASN")):
        with pytest.raises(ModelError, match="a slide without tiles"):
            predict(np.zeros((0, 1), np.float32))


def test_unfit_features_and_genes_are_refused() -> None:
    predictor, with_nan = _predictor(), _bag()
    with_nan[4, 2] = np.nan
    functions: tuple[Any, ...] = (predictor.predict, predictor.predict_bag, predictor.maps)
    for predict in functions:
        with pytest.raises(ModelError, match="reads 16 image features, got 15: they are from another encoder"):
            predict(_bag()[:, :15])
        with pytest.raises(ModelError, match="1 of 120 rows of image features for the attention model hold nan"):
            predict(with_nan)
    for predict in functions[1:]:
        with pytest.raises(ModelError, match="a slide without tiles"):
            predict(_bag()[:0])
    with pytest.raises(ModelError, match="no gene 'TP53'; it has 'ERBB2'"):
        predictor.maps(_bag(), ["FASN", "TP53"])
    with pytest.raises(ModelError, match="one or more `genes`, got none"):
        predictor.maps(_bag(), [])


@pytest.mark.parametrize(
    "wrong", [{"options": {"temperature": 1.0}}, {"options": asdict(SMALL), "genes": GENES[:2]}, {}], ids=str
)
def test_arrays_or_options_of_another_model_are_refused(wrong: dict[str, Any]) -> None:
    arrays = {name: value.numpy() for name, value in _model(SMALL).state_dict().items()}
    with pytest.raises(ModelError, match="do not fit method 'attention'"):
        open_predictor("attention", arrays, {"genes": GENES, "d_image": 16, **wrong})


LARGE = """
import resource, numpy as np, torch
from raystp.models.attention.model import AttentionOptions, seeded_attention
from raystp.models.attention.predictor import AttentionPredictor
torch.set_num_threads(1)
genes = 2000
model = seeded_attention(8, genes, AttentionOptions(heads="per_gene", embedding=16, hidden=8), seed=0).eval()
predictor = AttentionPredictor("attention", [str(g) for g in range(genes)], 8, model)
predictor.predict_bag(np.ones((9, 8), np.float32))
bag = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert np.isfinite(predictor.predict_bag(bag)).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_of_a_slide_is_that_of_a_chunk() -> None:
    out = subprocess.run([sys.executable, "-c", LARGE], check=True, capture_output=True, text=True, timeout=120)
    assert float(out.stdout) < 230  # MiB; of 20,000 x 2,000 logits one float64 copy is 305
