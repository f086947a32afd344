"""GeneQuery whose genes attend to spatial tokens: restated with numpy, and equal to its form of one vector."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from raystp.errors import ModelError
from raystp.models.genequery.model import GeneQuery, seeded_genequery
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.genequery.token_attention import TokenAttention
from raystp.models.methods import METHODS

TOKENS, CHANNELS, TEXT, GENES = 4, 3, 5, 6
OPTIONS = GeneQueryOptions(context="tokens", tokens=TOKENS, dim=16, heads=2, head_dim=8)


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _model(options: GeneQueryOptions, width: int = TOKENS * CHANNELS) -> GeneQuery:
    model = seeded_genequery(width, _normal(GENES, TEXT, seed=1), options, seed=0)
    model.standardize(_normal(50, width, seed=2) + 3)
    model.standardize_labels(np.abs(_normal(50, GENES, seed=3)))
    return model.eval()


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return cast("np.ndarray", weights / weights.sum())


def test_attention_equals_the_formula_gene_by_gene_and_head_by_head() -> None:
    attention = TokenAttention(16, heads=2, head_dim=8)
    tokens, texts = _normal(3, TOKENS, 16), _normal(GENES, 16, seed=1)
    found = attention(torch.from_numpy(tokens), torch.from_numpy(texts)).detach().numpy()
    query, key = (layer.weight.detach().numpy() for layer in (attention.query, attention.key))
    for tile, gene, head in np.ndindex(3, GENES, 2):
        own, part = slice(8 * head, 8 * head + 8), slice(8 * head, 8 * head + 8)
        scores = [(query[own] @ texts[gene]) @ (key[own] @ token) / np.sqrt(8) for token in tokens[tile]]
        expected = _softmax(np.array(scores)) @ tokens[tile][:, part]
        np.testing.assert_allclose(found[tile, gene, part], expected, atol=1e-5)


@pytest.mark.parametrize("fuse", ["add", "concat"])
def test_one_token_that_is_the_vector_gives_the_form_without_context(fuse: str) -> None:
    options = GeneQueryOptions(context="none", dim=16, heads=2, head_dim=8, fuse=fuse)  # type: ignore[arg-type]
    vector, tokens = (_model(one, CHANNELS) for one in (options, replace(options, context="tokens", tokens=1)))
    images, expression = torch.from_numpy(_normal(7, CHANNELS)), torch.from_numpy(np.abs(_normal(7, GENES)))
    expected, found = (model(images, expression) for model in (vector, tokens))
    torch.testing.assert_close(found[0], expected[0], atol=1e-6, rtol=1e-5)
    losses = [model.loss(*outputs) for model, outputs in ((vector, expected), (tokens, found))]
    own = dict(vector.named_parameters())
    gradients = torch.autograd.grad(losses[0], list(own.values()))
    others = torch.autograd.grad(losses[1], [dict(tokens.named_parameters())[name] for name in own])
    torch.testing.assert_close(others, gradients, atol=1e-6, rtol=1e-4)


def test_equal_tokens_give_what_one_of_them_gives_and_the_order_of_tokens_does_not_matter() -> None:
    model, one = _model(OPTIONS), _model(replace(OPTIONS, tokens=1), CHANNELS)
    values = model.state_dict()
    values |= {name: values[name][:CHANNELS] for name in ("image_mean", "image_scale")}
    one.load_state_dict(values)
    token, expression = _normal(5, CHANNELS), torch.zeros(5, GENES)
    repeated = torch.from_numpy(np.tile(token, TOKENS))
    torch.testing.assert_close(model(repeated, expression)[0], one(torch.from_numpy(token), expression)[0])
    images = torch.from_numpy(_normal(5, TOKENS * CHANNELS))
    turned = images.view(5, TOKENS, CHANNELS).flip(1).reshape(5, -1)
    predicted = model(images, expression)[0]
    torch.testing.assert_close(model(turned, expression)[0], predicted, atol=1e-6, rtol=1e-5)
    shifted = model(images.roll(1, dims=1), expression)[0]
    assert float((shifted - predicted).detach().abs().max()) > 1e-3


def test_a_missing_gene_adds_nothing_to_the_loss_and_every_parameter_is_trained() -> None:
    model, images = _model(OPTIONS), torch.from_numpy(_normal(5, TOKENS * CHANNELS))
    expression = torch.from_numpy(np.abs(_normal(5, GENES)))
    predicted, target = model(images, expression)
    expression[:, 2] = torch.nan
    lacking = model.loss(*model(images, expression))
    kept = [gene for gene in range(GENES) if gene != 2]
    torch.testing.assert_close(lacking, model.loss(predicted[:, kept], target[:, kept]))
    gradients = torch.autograd.grad(lacking, list(model.parameters()))
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_the_number_of_tokens_is_that_of_the_embeddings_and_each_head_has_a_part_of_a_token() -> None:
    assert METHODS["genequery"].tokens(OPTIONS) == TOKENS
    assert METHODS["genequery"].tokens(GeneQueryOptions()) == 0
    with pytest.raises(ModelError, match=r"length 13 cannot be divided into 4 tokens: set genequery.tokens"):
        _model(OPTIONS, 13)
    with pytest.raises(ModelError, match="dim 16 is no multiple of heads 3"):
        replace(OPTIONS, heads=3)
    assert "reads a map" in METHODS["genequery"].why_frozen({"context": "tokens"})
