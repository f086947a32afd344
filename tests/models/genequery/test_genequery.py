"""GeneQuery's tokens, masks, scaling and loss: laws, and small cases by hand."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from raystp.errors import ModelError
from raystp.models import transformer as transformer_module
from raystp.models.genequery.model import GeneQuery, seeded_genequery
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.genequery.samples import SectionGenes
from raystp.models.genequery.scaling import gene_scaling, min_max
from raystp.models.transformer import Transformer

IMAGE, TEXT, GENES = 7, 5, 6
TINY = GeneQueryOptions(dim=16, heads=2, head_dim=8, feedforward=32)
GENE = {
    "gene": TINY,
    "gene, concat": replace(TINY, fuse="concat"),
    "none": replace(TINY, context="none"),
    "none, concat, min-max": replace(TINY, context="none", fuse="concat", scaling="min_max"),
    "gene, min-max": replace(TINY, scaling="min_max"),
    "tokens": replace(TINY, context="tokens", tokens=IMAGE),
}
SPOT = {
    "spot": replace(TINY, context="spot"),
    "spot, concat": replace(TINY, context="spot", fuse="concat"),
    "spot, min-max": replace(TINY, context="spot", scaling="min_max"),
    "spot, centred": replace(TINY, context="spot", scaling="centred"),
}


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _model(options: GeneQueryOptions) -> GeneQuery:
    model = seeded_genequery(IMAGE, _normal(GENES, TEXT, seed=1), options, seed=0)
    model.standardize(_normal(50, IMAGE, seed=2))
    model.standardize_labels(np.abs(_normal(50, GENES, seed=3)), np.repeat([0, 1], 25))
    return model.eval()


def _sections(sizes: tuple[int, ...] = (4, 9)) -> SectionGenes:
    return SectionGenes.of(
        [torch.from_numpy(_normal(n, IMAGE, seed=n)) for n in sizes],
        [torch.from_numpy(np.abs(_normal(n, GENES, seed=100 + n))) for n in sizes],
    )


@pytest.mark.parametrize(("often", "left"), [("once", 0.8), ("twice", 0.64)])
def test_tokens_pass_dropout_once_or_twice_before_the_transformer(often: Any, left: float) -> None:
    options = replace(TINY, dropout=0.2, token_dropout=often)
    model, images = _model(options).train(), torch.ones(4000, 1, options.dim)
    seen = []
    assert model.transformer is not None
    model.transformer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.predictions(model.tokens(images, torch.ones(1, 1, options.dim)))
    assert float((seen[0] != 0).float().mean()) == pytest.approx(left, abs=0.01)
    model.eval()
    once = _model(replace(options, token_dropout="once"))
    tokens = model.tokens(images[:3], torch.ones(1, 1, options.dim))
    torch.testing.assert_close(model.predictions(tokens), once.predictions(tokens))


@pytest.mark.parametrize("options", GENE.values(), ids=GENE)
def test_permuting_genes_permutes_predictions_and_targets(options: GeneQueryOptions) -> None:
    images, expression = torch.from_numpy(_normal(3, IMAGE)), torch.from_numpy(np.abs(_normal(3, GENES)))
    model, order = _model(options), np.random.default_rng(0).permutation(GENES)
    predicted, target = model(images, expression)
    for buffer in (model.text, model.offset, model.scale):
        buffer.copy_(buffer[torch.from_numpy(order)])
    permuted, permuted_target = model(images, expression[:, order])
    torch.testing.assert_close(permuted, predicted[:, order], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(permuted_target, target[:, order])


@pytest.mark.parametrize("options", SPOT.values(), ids=SPOT)
def test_permuting_spots_permutes_predictions_and_targets(options: GeneQueryOptions) -> None:
    model, (features, expression, mask, gene) = _model(options), _sections((9, 9)).at(np.array([1, 8]))
    order = torch.from_numpy(np.random.default_rng(0).permutation(9))
    predicted, target, _ = model(features, expression, mask, gene)
    permuted, permuted_target, _ = model(features[:, order], expression[:, order], mask, gene)
    torch.testing.assert_close(permuted, predicted[:, order], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(permuted_target, target[:, order])


@pytest.mark.parametrize("options", SPOT.values(), ids=SPOT)
def test_padding_of_any_value_changes_neither_predictions_nor_loss_nor_gradients(options: GeneQueryOptions) -> None:
    model, samples = _model(options), _sections()
    features, expression, mask, gene = samples.at(np.array([2]))
    assert mask.sum() == 4
    whole = model(features[:, :4], expression[:, :4], mask[:, :4], gene)
    expected = torch.autograd.grad(model.loss(*whole), list(model.parameters()))
    for value in (0.0, 1e3, torch.nan):
        features[~mask], expression[~mask] = value, 1e3
        padded = model(features, expression, mask, gene)
        for one, other in zip(padded[:2], whole[:2], strict=True):
            torch.testing.assert_close(one[:, :4], other, atol=1e-5, rtol=1e-5)
        seen = torch.autograd.grad(model.loss(*padded), list(model.parameters()))
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)


def test_attention_equals_the_formula() -> None:
    transformer = Transformer(replace(TINY, depth=1, dropout=0.0)).eval()
    tokens, mask = torch.from_numpy(_normal(1, 5, 16)), torch.tensor([[True, True, True, False, True]])
    layer = transformer.layers[0]
    assert isinstance(layer, transformer_module.TransformerLayer)
    x = layer.norm(tokens[0])
    heads = []
    for head in range(2):
        at = slice(8 * head, 8 * head + 8)
        query, key, value = x @ layer.query.weight[at].T, *(x @ part[at].T for part in layer.key_value.weight.chunk(2))
        scores = (query @ key.T / 8**0.5).masked_fill(~mask, -torch.inf)
        heads.append(torch.softmax(scores, dim=1) @ value)
    attended = tokens[0] + layer.out(torch.cat(heads, dim=1))
    torch.testing.assert_close(
        transformer(tokens, mask)[0], attended + layer.feedforward(attended), atol=1e-6, rtol=1e-5
    )


def test_query_equal_to_a_context_token_gets_its_output_and_queries_are_independent() -> None:
    transformer = Transformer(TINY).eval()
    context, others = torch.from_numpy(_normal(2, 9, 16)), torch.from_numpy(_normal(2, 3, 16, seed=1))
    out = transformer(context)
    together = transformer(context, queries=torch.cat([context[:, 3:5], others], dim=1))
    torch.testing.assert_close(together[:, :2], out[:, 3:5], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together[:, 2:], transformer(context, queries=others), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scores", [1, 50, 1 << 25])
def test_attention_in_parts_equals_attention_at_once(monkeypatch: pytest.MonkeyPatch, scores: int) -> None:
    transformer = Transformer(TINY).eval()
    context, mask = torch.from_numpy(_normal(2, 9, 16)), torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    expected = transformer(context, mask)
    monkeypatch.setattr(transformer_module, "SCORES_AT_ONCE", scores)
    with torch.inference_mode():
        torch.testing.assert_close(transformer(context, mask), expected.detach(), atol=1e-6, rtol=1e-5)


def test_min_max_ignores_padding_and_scales_a_constant_to_zero() -> None:
    values = torch.tensor([[2.0, 4.0, 3.0, 100.0], [5.0, 5.0, 5.0, 0.0]])
    mask = torch.tensor([[True, True, True, False]] * 2)
    assert torch.equal(min_max(values, mask), torch.tensor([[0.0, 1.0, 0.5, 0.0], [0.0] * 4]))
    assert torch.equal(min_max(torch.full((2, 3), 7.0)), torch.zeros(2, 3))


@pytest.mark.parametrize("scaling", ["standardised", "centred"])
def test_scaling_and_back_is_identity_also_for_a_constant_gene(
    scaling: Literal["standardised", "centred"],
) -> None:
    expression = np.abs(_normal(40, GENES))
    expression[:, 2] = 1.25
    model = _model(replace(TINY, scaling=scaling))
    model.standardize_labels(expression)
    scaled = model.scaled(torch.from_numpy(expression))
    assert torch.equal(scaled[:, 2], torch.zeros(40))
    back = model.offset + model.scale * scaled
    np.testing.assert_allclose(back.numpy(), expression, atol=1e-5)


def test_min_max_is_scaled_back_by_the_mean_extremes_of_sections_or_spots() -> None:
    expression = np.array([[0.0, 1.0], [2.0, 1.0], [1.0, 3.0], [5.0, 3.0]])
    scaling = gene_scaling(expression, np.array([0, 0, 1, 1]), "min_max", "spot")
    assert scaling.tolist() == [[0.5, 2.0], [3.0, 0.0]]
    assert gene_scaling(expression, np.zeros(4, dtype=np.int64), "min_max", "gene").tolist() == [[1.25] * 2, [1.5] * 2]


def test_loss_is_the_mean_squared_error_without_padding() -> None:
    model = _model(SPOT["spot"])
    predicted, target = torch.tensor([[1.0, 2.0, 9.0], [0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0], [3.0, 0, 0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert float(model.loss(predicted, target, mask)) == pytest.approx((1 + 4 + 9) / 3)
    assert float(model.loss(predicted, target)) == pytest.approx((1 + 4 + 81 + 9) / 6)


@pytest.mark.parametrize("options", [*GENE.values(), *SPOT.values()], ids=[*GENE, *SPOT])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_that_is_split_and_gathered_has_the_loss_and_the_gradients_of_one_process(
    options: GeneQueryOptions, parts: int
) -> None:
    model, rows = _model(options), np.random.default_rng(4).permutation(12)[:8]

    def outputs(chosen: np.ndarray) -> tuple[Tensor, ...]:
        if options.context == "spot":
            return tuple(model(*_sections().at(chosen)))
        images, expression = _normal(12, IMAGE), np.abs(_normal(12, GENES))
        return tuple(model(torch.from_numpy(images[chosen]), torch.from_numpy(expression[chosen])))

    whole = model.loss(*outputs(rows))
    split = zip(*(outputs(part) for part in np.split(rows, parts)), strict=True)
    gathered = model.loss(*(torch.cat(values) for values in split))
    torch.testing.assert_close(gathered, whole, atol=1e-6, rtol=1e-5)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(gathered, parameters), torch.autograd.grad(whole, parameters), atol=1e-6, rtol=1e-4
    )


def test_seed_determines_the_first_weights_and_leaves_the_global_generator_unchanged() -> None:
    before = torch.get_rng_state()
    texts = _normal(GENES, TEXT)
    first, same, other = (seeded_genequery(IMAGE, texts, TINY, seed=seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["text_head.weight"], other["text_head.weight"])


def test_sample_is_a_section_and_a_gene() -> None:
    samples = _sections()
    assert len(samples) == 2 * GENES
    features, expression, mask, gene = samples.at(np.array([GENES + 2, 5]))
    assert gene.tolist() == [2, 5]
    assert mask.sum(dim=1).tolist() == [9, 4]
    np.testing.assert_array_equal(expression[0], np.abs(_normal(9, GENES, seed=109))[:, 2])
    np.testing.assert_array_equal(features[1, :4], _normal(4, IMAGE, seed=4))


def test_unfit_samples_and_options_are_refused() -> None:
    good, bad = torch.zeros(2, IMAGE), torch.full((2, IMAGE), torch.nan)
    with pytest.raises(ModelError, match=r"image features of 2 spots hold nan or infinity \('b: 2'\)"):
        SectionGenes.of([good, bad], [torch.zeros(2, 3)] * 2, ["a", "b"])
    with pytest.raises(ModelError, match=r"1 of 2 sections have no spots \('b'\)"):
        SectionGenes.of([good, good[:0]], [torch.zeros(2, 3), torch.zeros(0, 3)], ["a", "b"])
    with pytest.raises(ModelError, match="features and expression of the same spots"):
        SectionGenes.of([good], [torch.zeros(3, 3)])
    with pytest.raises(ModelError, match="nan or infinity for 2 genes"):
        seeded_genequery(IMAGE, np.full((2, TEXT), np.inf, dtype=np.float32), TINY, seed=0)
    with pytest.raises(ModelError, match="heads 0"):
        GeneQueryOptions(heads=0)
