"""GeneQuery's predictions depend neither on other genes nor on the parts computed at a time; errors."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch

from raystp.errors import ModelError
from raystp.models import transformer as transformer_module
from raystp.models.arrays import Arrays
from raystp.models.genequery import predictor as predictor_module
from raystp.models.genequery.model import GeneQuery, seeded_genequery
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.genequery.predictor import GeneQueryPredictor, open_genequery
from raystp.models.method import ModelMeta
from raystp.models.methods import open_predictor
from raystp.models.store import load_model, save_model
from raystp.storage import StoragePath

IMAGE, TEXT = 7, 5
NAMES = [f"G{number}" for number in range(6)]
TINY = GeneQueryOptions(dim=16, heads=2, head_dim=8, feedforward=32)
KINDS = {
    "gene": TINY,
    "gene, concat": replace(TINY, fuse="concat"),
    "gene, min-max": replace(TINY, scaling="min_max"),
    "none": replace(TINY, context="none"),
    "tokens": replace(TINY, context="tokens", tokens=IMAGE),
    "spot": replace(TINY, context="spot"),
    "spot, few": replace(TINY, context="spot", context_tiles=4, scaling="min_max"),
    "spot, centred": replace(TINY, context="spot", scaling="centred"),
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
IDENTITY: dict[str, object] = {"name": "hashed", "dim": TEXT}


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


TEXTS = _normal(len(NAMES), TEXT, seed=1)
NEW = _normal(2, TEXT, seed=5)


def _meta(model: GeneQuery) -> ModelMeta:
    return {"genes": NAMES, "d_image": IMAGE, "options": dict(vars(model.options)), "text_encoder": IDENTITY}


def _opened(options: GeneQueryOptions = TINY) -> GeneQueryPredictor:
    model = seeded_genequery(IMAGE, TEXTS, options, seed=0)
    model.standardize(_normal(50, IMAGE, seed=2))
    model.standardize_labels(np.abs(_normal(50, len(NAMES), seed=3)), np.repeat([0, 1], 25))
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    return open_genequery(arrays, _meta(model))


@every_kind
def test_named_genes_are_predicted_as_by_default_in_the_given_order(options: GeneQueryOptions) -> None:
    predictor, features = _opened(options), _normal(11, IMAGE)
    all_genes = predictor.predict(features)
    assert all_genes.shape == (11, 6)
    np.testing.assert_allclose(predictor.predict(features, genes=NAMES), all_genes, atol=1e-5)
    np.testing.assert_allclose(predictor.predict(features, genes=["G4", "G1"]), all_genes[:, [4, 1]], atol=1e-5)
    given = predictor.predict(features, genes=["G4", "G1"], texts=TEXTS[[4, 1]])
    np.testing.assert_allclose(given, all_genes[:, [4, 1]], atol=1e-5)


@every_kind
def test_prediction_of_an_unseen_gene_does_not_depend_on_the_other_genes(options: GeneQueryOptions) -> None:
    predictor, features = _opened(options), _normal(11, IMAGE)
    alone = predictor.predict(features, genes=["NEW"], texts=NEW[:1])
    among = predictor.predict(features, genes=["G3", "OTHER", "NEW"], texts=np.stack([TEXTS[3], NEW[1], NEW[0]]))
    np.testing.assert_allclose(among[:, 2:], alone, atol=1e-5)
    np.testing.assert_allclose(among[:, 0], predictor.predict(features)[:, 3], atol=1e-5)
    assert np.isfinite(alone).all()
    assert np.ptp(alone) > 0


@every_kind
@pytest.mark.parametrize("values", [1, 1000])
def test_predictions_in_parts_equal_predictions_at_once(
    options: GeneQueryOptions, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, features = _opened(options), _normal(11, IMAGE)

    def predictions() -> list[np.ndarray]:
        return [predictor.predict(features), predictor.predict(features, genes=["NEW", "OTHER"], texts=NEW)]

    at_once = predictions()
    monkeypatch.setattr(predictor_module, "VALUES_AT_ONCE", values)
    monkeypatch.setattr(transformer_module, "SCORES_AT_ONCE", values)
    for one, other in zip(predictions(), at_once, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_all_tiles_are_predicted_whether_the_context_holds_all_of_them_or_not() -> None:
    whole, few = (_opened(replace(TINY, context="spot", context_tiles=most)) for most in (100, 5))
    features = _normal(11, IMAGE)
    # Equal tiles: a context of some of them has the same attention as one of all of them.
    alike = np.repeat(features[:1], 11, axis=0)
    np.testing.assert_allclose(few.predict(alike), whole.predict(alike), atol=1e-5)
    np.testing.assert_allclose(few.predict(features[:5]), whole.predict(features[:5]), atol=1e-6)
    assert few.predict(features).shape == (11, 6)


def test_scaling_of_an_unseen_gene_is_estimated_from_its_text_within_the_trained_range() -> None:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(80, 3)).astype(np.float32)
    mean, deviation = 2 + 0.5 * texts[:, 0], np.exp(0.3 * texts[:, 1])
    expression = (mean + deviation * rng.normal(size=(300, 80))).astype(np.float32)
    model = seeded_genequery(IMAGE, texts[:60], TINY, seed=0)
    model.standardize_labels(expression[:, :60])
    offset, scale = (value.numpy() for value in model.estimated_scaling(torch.from_numpy(texts[60:])))
    assert np.corrcoef(offset, mean[60:])[0, 1] > 0.95
    assert np.corrcoef(scale, deviation[60:])[0, 1] > 0.95
    far = model.estimated_scaling(torch.full((1, 3), 1e6))
    assert float(far[0]) == float(model.offset.max())
    assert float(far[1]) == pytest.approx(float(model.scale.max()))


@every_kind
def test_stored_model_keeps_its_predictions_and_its_text_encoder(options: GeneQueryOptions, tmp_path: Path) -> None:
    predictor, features = _opened(options), _normal(5, IMAGE)
    folder = StoragePath.of(tmp_path)
    save_model(folder, "genequery", predictor.model.state_dict(), _meta(predictor.model))
    kind, arrays, meta = load_model(folder)
    again = open_genequery(arrays, cast("ModelMeta", meta))
    assert (kind, again.kind, again.genes, again.d_image) == ("genequery", "genequery", NAMES, IMAGE)
    assert again.text_encoder == IDENTITY
    np.testing.assert_array_equal(again.predict(features), predictor.predict(features))


def test_no_tiles_or_no_genes_give_empty_predictions() -> None:
    assert _opened().predict(_normal(0, IMAGE)).shape == (0, 6)
    assert _opened().predict(_normal(3, IMAGE), genes=[]).shape == (3, 0)


@pytest.mark.parametrize("context", ["gene", "spot"])
def test_thousands_of_tokens_make_no_matrix_of_their_scores(context: Literal["gene", "spot"]) -> None:
    genes = 6000 if context == "gene" else 2
    options = replace(TINY, context=context, context_tiles=6000)
    model = seeded_genequery(IMAGE, _normal(genes, TEXT), options, seed=0)
    predictor = GeneQueryPredictor("genequery", [str(n) for n in range(genes)], IMAGE, model.eval())
    tiles = 2 if context == "gene" else 6000
    scores: list[int] = []

    def attended(queries: torch.Tensor, keys: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        scores.append(queries.shape[0] * queries.shape[1] * queries.shape[2] * keys.shape[2])
        return attend(queries, keys, *rest, **options)

    attend = torch.nn.functional.scaled_dot_product_attention
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attended)
        assert predictor.predict(_normal(tiles, IMAGE)).shape == (tiles, genes)
    assert max(scores) <= transformer_module.SCORES_AT_ONCE < 6000 * 6000 * 2


def test_unfit_genes_texts_and_features_are_refused() -> None:
    predictor, features = _opened(), _normal(4, IMAGE)
    with pytest.raises(ModelError, match=r"2 of 3 genes were not trained on and have no text: 'A', 'B'; pass"):
        predictor.predict(features, genes=["A", "G1", "B"])
    with pytest.raises(ModelError, match="got 2 texts without the names"):
        predictor.predict(features, texts=NEW)
    with pytest.raises(ModelError, match="got 2 texts for 3 genes"):
        predictor.predict(features, genes=["A", "B", "C"], texts=NEW)
    with pytest.raises(ModelError, match="1 genes were trained with another text than the one given: 'G1'"):
        predictor.predict(features, genes=["G1", "A"], texts=NEW)
    with pytest.raises(ModelError, match="reads 5 numbers of a gene's text, got 4"):
        predictor.predict(features, genes=["A"], texts=NEW[:1, :4])
    with pytest.raises(ModelError, match="reads 7 image features, got 6"):
        predictor.predict(features[:, :6])
    features[2] = np.nan
    with pytest.raises(ModelError, match="1 of 4 rows of image features for the genequery model hold nan"):
        predictor.predict(features)


def test_arrays_of_another_model_are_refused() -> None:
    model = seeded_genequery(IMAGE, TEXTS, TINY, seed=0)
    arrays: Arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    meta: dict[str, object] = {**_meta(model), "seen": NAMES, "unseen": []}
    wrong: list[tuple[Arrays, dict[str, object]]] = [
        ({name: value for name, value in arrays.items() if name != "text"}, meta),
        ({name: value for name, value in arrays.items() if name != "answer.bias"}, meta),
        (arrays, {**meta, "genes": NAMES[:-1], "seen": NAMES[:-1]}),
        (arrays, {**meta, "options": {"width": 3}}),
    ]
    assert open_predictor("genequery", arrays, meta).genes == NAMES
    for given, changed in wrong:
        with pytest.raises(ModelError, match="do not fit method 'genequery'"):
            open_predictor("genequery", given, changed)
    with pytest.raises(ModelError, match="texts of 6 genes and names of 5"):
        open_predictor("genequery", *wrong[2])
