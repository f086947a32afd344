"""GeneQuery's answers: whoever else is asked, in whatever pieces, from disk and back; and what it refuses."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.genequery import predictor as genequery_predictor
from raystp.models.genequery import transformer as genequery_attention
from raystp.models.genequery.model import seeded_genequery
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.genequery.predictor import GeneQueryPredictor, genequery_meta, ready_genequery
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
    "spot": replace(TINY, context="spot"),
    "spot, few": replace(TINY, context="spot", context_tiles=4, scaling="min_max"),
    "spot, centred": replace(TINY, context="spot", scaling="centred"),
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
IDENTITY = {"name": "hashed", "dim": TEXT}


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


TEXTS = _normal(len(NAMES), TEXT, seed=1)
NEW = _normal(2, TEXT, seed=5)


def _ready(options: GeneQueryOptions = TINY, tower: nn.Module | None = None) -> GeneQueryPredictor:
    model = seeded_genequery(IMAGE, TEXTS, options, seed=0, tower=tower)
    if tower is None:
        model.standardize(_normal(50, IMAGE, seed=2))
    model.standardize_labels(np.abs(_normal(50, len(NAMES), seed=3)), np.repeat([0, 1], 25))
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    return ready_genequery(arrays, genequery_meta(NAMES, model, IDENTITY))


@every_kind
def test_genes_asked_for_by_name_are_answered_as_by_default_in_the_order_asked(options: GeneQueryOptions) -> None:
    ready, features = _ready(options), _normal(11, IMAGE)
    every = ready.predict(features)
    assert every.shape == (11, 6)
    np.testing.assert_allclose(ready.predict(features, genes=NAMES), every, atol=1e-5)
    np.testing.assert_allclose(ready.predict(features, genes=["G4", "G1"]), every[:, [4, 1]], atol=1e-5)
    given = ready.predict(features, genes=["G4", "G1"], texts=TEXTS[[4, 1]])
    np.testing.assert_allclose(given, every[:, [4, 1]], atol=1e-5)


@every_kind
def test_gene_never_trained_on_is_answered_whoever_else_is_asked_for(options: GeneQueryOptions) -> None:
    ready, features = _ready(options), _normal(11, IMAGE)
    alone = ready.predict(features, genes=["NEW"], texts=NEW[:1])
    among = ready.predict(features, genes=["G3", "OTHER", "NEW"], texts=np.stack([TEXTS[3], NEW[1], NEW[0]]))
    np.testing.assert_allclose(among[:, 2:], alone, atol=1e-5)
    np.testing.assert_allclose(among[:, 0], ready.predict(features)[:, 3], atol=1e-5)
    assert np.isfinite(alone).all()
    assert np.ptp(alone) > 0


@every_kind
@pytest.mark.parametrize("numbers", [1, 1000])
def test_pieces_change_no_answer(options: GeneQueryOptions, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, features = _ready(options), _normal(11, IMAGE)
    asked = {"genes": ["NEW", "OTHER"], "texts": NEW}
    wanted = [ready.predict(features), ready.predict(features, **asked)]  # type: ignore[arg-type]  # its two arguments
    monkeypatch.setattr(genequery_predictor, "NUMBERS", numbers)
    monkeypatch.setattr(genequery_attention, "SCORES", numbers)
    seen = [ready.predict(features), ready.predict(features, **asked)]  # type: ignore[arg-type]  # the same
    for one, other in zip(seen, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_slide_of_fewer_tiles_than_the_context_is_read_whole_and_one_of_more_gives_every_tile_an_answer() -> None:
    whole, few = (_ready(replace(TINY, context="spot", context_tiles=most)) for most in (100, 5))
    features = _normal(11, IMAGE)
    # The readers' way, forced by one tile less in the context than there are, on tiles that are all alike but one.
    alike = np.repeat(features[:1], 11, axis=0)
    np.testing.assert_allclose(few.predict(alike), whole.predict(alike), atol=1e-5)
    np.testing.assert_allclose(few.predict(features[:5]), whole.predict(features[:5]), atol=1e-6)
    assert few.predict(features).shape == (11, 6)


def test_scale_of_an_unseen_gene_is_guessed_from_its_text_and_stays_among_the_trained_ones() -> None:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(80, 3)).astype(np.float32)
    mean, deviation = 2 + 0.5 * texts[:, 0], np.exp(0.3 * texts[:, 1])
    expression = (mean + deviation * rng.normal(size=(300, 80))).astype(np.float32)
    model = seeded_genequery(IMAGE, texts[:60], TINY, seed=0)
    model.standardize_labels(expression[:, :60])
    offset, scale = (value.numpy() for value in model.ways_back(torch.from_numpy(texts[60:])))
    assert np.corrcoef(offset, mean[60:])[0, 1] > 0.95
    assert np.corrcoef(scale, deviation[60:])[0, 1] > 0.95
    far = model.ways_back(torch.full((1, 3), 1e6))
    assert float(far[0]) == float(model.offset.max())
    assert float(far[1]) == pytest.approx(float(model.scale.max()))


@every_kind
def test_stored_model_answers_as_before_and_remembers_its_text_encoder(
    options: GeneQueryOptions, tmp_path: Path
) -> None:
    ready, features = _ready(options), _normal(5, IMAGE)
    place = StoragePath.of(tmp_path)
    save_model(place, "genequery", ready.model.state_dict(), genequery_meta(NAMES, ready.model, IDENTITY))
    kind, arrays, meta = load_model(place)
    again = ready_genequery(arrays, meta)
    assert (kind, again.kind, again.genes, again.d_image) == ("genequery", "genequery", NAMES, IMAGE)
    assert again.text_encoder == IDENTITY
    np.testing.assert_array_equal(again.predict(features), ready.predict(features))


def test_model_with_a_tower_answers_from_the_towers_features() -> None:
    ready = _ready(tower=nn.Linear(3, IMAGE))
    assert ready.model.tower is None
    assert ready.predict(_normal(5, IMAGE)).shape == (5, 6)


def test_no_tiles_or_no_genes_give_empty_answers() -> None:
    assert _ready().predict(_normal(0, IMAGE)).shape == (0, 6)
    assert _ready().predict(_normal(3, IMAGE), genes=[]).shape == (3, 0)


@pytest.mark.parametrize("context", ["gene", "spot"])
def test_thousands_of_tokens_never_make_a_matrix_of_their_scores(context: Literal["gene", "spot"]) -> None:
    genes = 6000 if context == "gene" else 2
    options = replace(TINY, context=context, context_tiles=6000)
    model = seeded_genequery(IMAGE, _normal(genes, TEXT), options, seed=0)
    ready = GeneQueryPredictor("genequery", [str(n) for n in range(genes)], IMAGE, model.eval())
    tiles = 2 if context == "gene" else 6000
    held: list[int] = []

    def attended(queries: torch.Tensor, keys: torch.Tensor, *_: torch.Tensor, **__: object) -> torch.Tensor:
        held.append(queries.shape[0] * queries.shape[1] * queries.shape[2] * keys.shape[2])
        return attend(queries, keys, *_, **__)  # type: ignore[arg-type]  # passed on

    attend = torch.nn.functional.scaled_dot_product_attention
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attended)
        assert ready.predict(_normal(tiles, IMAGE)).shape == (tiles, genes)
    assert max(held) <= genequery_attention.SCORES < 6000 * 6000 * 2


def test_what_cannot_be_answered_is_refused_in_a_sentence() -> None:
    ready, features = _ready(), _normal(4, IMAGE)
    with pytest.raises(ModelError, match=r"2 of 3 genes were not trained on and have no text: 'A', 'B'; give"):
        ready.predict(features, genes=["A", "G1", "B"])
    with pytest.raises(ModelError, match="2 texts came without the names"):
        ready.predict(features, texts=NEW)
    with pytest.raises(ModelError, match="3 genes are asked for with 2 texts"):
        ready.predict(features, genes=["A", "B", "C"], texts=NEW)
    with pytest.raises(ModelError, match="1 genes were trained with another text than the one given: 'G1'"):
        ready.predict(features, genes=["G1", "A"], texts=NEW)
    with pytest.raises(ModelError, match="reads 5 numbers of a gene's text, got 4"):
        ready.predict(features, genes=["A"], texts=NEW[:1, :4])
    with pytest.raises(ModelError, match="reads 7 image features, got 6"):
        ready.predict(features[:, :6])
    features[2] = np.nan
    with pytest.raises(ModelError, match="in 1 of 4 rows"):
        ready.predict(features)


def test_arrays_of_another_model_are_refused_in_a_sentence() -> None:
    model = seeded_genequery(IMAGE, TEXTS, TINY, seed=0)
    arrays: Arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    meta = genequery_meta(NAMES, model, IDENTITY)
    wrong: list[tuple[Arrays, Mapping[str, object]]] = [
        ({name: value for name, value in arrays.items() if name != "text"}, meta),
        ({name: value for name, value in arrays.items() if name != "answer.bias"}, meta),
        (arrays, {**meta, "genes": NAMES[:-1]}),
        (arrays, {**meta, "options": {"width": 3}}),
    ]
    for given, words in wrong:
        with pytest.raises(ModelError, match="not those of a genequery model"):
            ready_genequery(given, words)
    with pytest.raises(ModelError, match="6 genes, and 5 names"):
        genequery_meta(NAMES[:-1], model, IDENTITY)
