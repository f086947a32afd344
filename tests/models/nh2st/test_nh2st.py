"""NH2ST's contrast by hand, its attention, and the inputs that a prediction depends on."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import raystp.models.nh2st.contrast as contrast_module
from raystp.errors import ModelError
from raystp.models.nh2st.attention import AttentionLayer, CrossAttention
from raystp.models.nh2st.contrast import contrast, contrast_logits
from raystp.models.nh2st.model import Nh2st, nh2st_loss, seeded_nh2st
from raystp.models.nh2st.options import NH2ST_FIT, Nh2stOptions

SMALL = Nh2stOptions(dim=16, heads=4, tokens=3)
KINDS = {
    "faithful": Nh2stOptions(form="faithful", dim=16, heads=4, tokens=3),
    "mended": SMALL,
    "mended, vectors": Nh2stOptions(dim=16, heads=4),
    "mended, with neighbours": Nh2stOptions(dim=16, heads=4, tokens=3, neighbours_at_inference=True),
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def _inputs(samples: int = 6, *, seed: int = 0) -> list[Tensor]:
    """Return the arguments of `forward`: 12 features, 7 genes, 9 nodes, some of them absent."""
    generator = torch.Generator().manual_seed(seed)
    near = torch.randn(samples, 9, 12, generator=generator)
    genes = torch.randn(samples, 9, 7, generator=generator)
    mask = torch.rand(samples, 9, generator=generator) > 0.3
    mask[:, 0] = True
    return [near[:, 0], near, genes[:, 0], genes, mask]


def _model(options: Nh2stOptions = SMALL) -> Nh2st:
    return seeded_nh2st(12, 7, options, seed=1).eval()


def _contrast_by_hand(first: list[list[float]], second: list[list[float]], temperature: float, factor: float) -> float:
    """Return the contrast entry by entry, as the formula states it."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for i, row in enumerate(first):
        logits = [cosine(row, other) / temperature * (1.0 if i == j else factor) for j, other in enumerate(second)]
        total += math.log(sum(math.exp(logit) for logit in logits)) - logits[i]
    return total / len(first)


def test_contrast_keeps_the_diagonal_and_scales_the_rest_to_a_tenth() -> None:
    first, second = (functional.normalize(torch.randn(5, 4), dim=1) for _ in range(2))
    plain = first @ second.T / 0.05
    for start, chunk in ((0, first), (2, first[2:4])):
        logits = contrast_logits(chunk, second, start=start, temperature=0.05, negatives=0.1)
        own = torch.zeros(5, 5, dtype=torch.bool).fill_diagonal_(True)[start : start + len(chunk)]  # noqa: FBT003 -- torch takes the value by position
        torch.testing.assert_close(logits[own], plain[start : start + len(chunk)][own])
        torch.testing.assert_close(logits[~own], plain[start : start + len(chunk)][~own] * 0.1)


@pytest.mark.parametrize(("temperature", "factor"), [(0.05, 0.1), (1.0, 0.1), (0.3, 1.0)])
def test_contrast_equals_cross_entropy_by_hand(temperature: float, factor: float) -> None:
    first, second = [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 3.0], [-1.0, 0.5]]
    value = contrast(torch.tensor(first), torch.tensor(second), temperature, negatives=factor)
    assert float(value) == pytest.approx(_contrast_by_hand(first, second, temperature, factor), abs=1e-5)


def test_contrast_of_equal_orthogonal_sides_has_the_closed_form() -> None:
    assert float(contrast(torch.eye(4), torch.eye(4), 0.5)) == pytest.approx(math.log(1 + 3 * math.exp(-2)), abs=1e-6)


def test_contrast_has_one_direction_only() -> None:
    first, second = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(contrast(first, second, 0.2)) != pytest.approx(float(contrast(second, first, 0.2)), abs=1e-3)


def _with_gradient(value: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    sides = [torch.randn(50, 8, generator=generator, requires_grad=True) for _ in range(2)]
    loss = value(*sides)
    return [loss.detach(), *torch.autograd.grad(loss, sides)]


def test_contrast_in_chunks_has_the_same_value_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _with_gradient(lambda a, b: contrast(a, b, 0.05))
    monkeypatch.setattr(contrast_module, "CHUNK", 7)
    torch.testing.assert_close(_with_gradient(lambda a, b: contrast(a, b, 0.05)), whole, atol=1e-6, rtol=1e-5)


def test_contrast_in_chunks_keeps_no_matrix_of_all_rows_by_all_rows_for_its_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[int] = []

    def keep(values: Tensor) -> Tensor:
        kept.append(values.numel())
        return values

    def largest() -> int:
        kept.clear()
        sides = [torch.randn(512, 4, requires_grad=True) for _ in range(2)]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
            contrast(sides[0], sides[1], 0.05)
        return max(kept)

    monkeypatch.setattr(contrast_module, "CHUNK", 512)
    assert largest() >= 512 * 512
    monkeypatch.setattr(contrast_module, "CHUNK", 32)
    assert largest() <= 512 * 4


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_contrast_of_parts_against_all_averages_to_the_whole(parts: int) -> None:
    size = 50 // parts

    def split_contrast(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([contrast(a[i : i + size], b, 0.05, start=i) for i in range(0, 50, size)]).mean()

    split = _with_gradient(split_contrast)
    torch.testing.assert_close(split, _with_gradient(lambda a, b: contrast(a, b, 0.05)), atol=1e-6, rtol=1e-5)


def test_loss_is_the_sum_of_the_error_and_the_weighted_contrasts() -> None:
    outputs = [torch.randn(5, 4) for _ in range(6)]
    options = Nh2stOptions(weight_query=2.0, weight_neighbour=0.25, temperature_query=0.1, temperature_neighbour=0.2)
    loss = nh2st_loss((outputs[0], outputs[1]), (outputs[2], outputs[3]), (outputs[4], outputs[5]), options)
    error = ((outputs[0] - outputs[1]) ** 2).mean()
    expected = error + 2 * contrast(outputs[2], outputs[3], 0.1) + 0.25 * contrast(outputs[4], outputs[5], 0.2)
    torch.testing.assert_close(loss, expected)


def test_attention_to_one_key_adds_the_same_to_all_queries_and_to_several_does_not() -> None:
    layer = AttentionLayer(8, heads=2, hidden=8, dropout=0.5).eval()
    keys, queries = torch.randn(1, 4, 8), torch.randn(1, 2, 8)
    for number, equal in ((1, True), (4, False)):
        added = layer.attended(queries, keys[:, :number])
        assert torch.allclose(added[0, 0], added[0, 1], atol=1e-6) == equal
    value = layer.answer(layer.norm(keys[:, :1])).chunk(2, dim=-1)[1]
    torch.testing.assert_close(layer.attended(queries, keys[:, :1]), layer.out(value).expand(1, 2, 8))


def test_attention_ignores_masked_keys() -> None:
    attention = CrossAttention(8, heads=2, depth=2, mlp_ratio=2.0, dropout=0.5).eval()
    queries, keys = torch.randn(3, 2, 8), torch.randn(3, 5, 8)
    mask = torch.tensor([True, True, False, True, False]).expand(3, 5)
    torch.testing.assert_close(attention(queries, keys, mask), attention(queries, keys[:, [0, 1, 3]]))


@every_kind
def test_outputs_have_a_row_per_sample(options: Nh2stOptions) -> None:
    prediction, target, *views = _model(options)(*_inputs())
    assert prediction.shape == target.shape == (6, 7)
    assert [tuple(view.shape) for view in views] == [(6, 16)] * 4


@every_kind
def test_outputs_of_a_sample_do_not_depend_on_the_others(options: Nh2stOptions) -> None:
    model, inputs = _model(options), _inputs()
    alone = [model(*(value[row : row + 1] for value in inputs)) for row in range(6)]
    for whole, *rows in zip(model(*inputs), *alone, strict=True):
        torch.testing.assert_close(whole, torch.cat(rows), atol=1e-5, rtol=1e-5)


@every_kind
def test_values_of_absent_nodes_change_nothing(options: Nh2stOptions) -> None:
    model, inputs = _model(options), _inputs()
    other = _inputs(seed=5)
    absent = ~inputs[4][..., None]
    changed = [inputs[0], torch.where(absent, other[1], inputs[1]), inputs[2], torch.where(absent, other[3], inputs[3])]
    torch.testing.assert_close(model(*changed, inputs[4]), model(*inputs))


@every_kind
def test_order_of_the_neighbours_changes_nothing(options: Nh2stOptions) -> None:
    model, inputs = _model(options), _inputs()
    order = torch.tensor([0, 5, 3, 8, 1, 2, 7, 4, 6])
    permuted = [inputs[0], inputs[1][:, order], inputs[2], inputs[3][:, order], inputs[4][:, order]]
    torch.testing.assert_close(model(*permuted), model(*inputs), atol=1e-5, rtol=1e-5)


@every_kind
def test_prediction_uses_no_expression_and_neighbours_only_where_the_options_say_so(
    options: Nh2stOptions,
) -> None:
    model, inputs, other = _model(options), _inputs(), _inputs(seed=5)
    prediction = model(*inputs)[0]
    assert torch.equal(model(*inputs[:2], other[2], other[3], inputs[4])[0], prediction)
    near = model(inputs[0], other[1], *inputs[2:])[0]
    assert torch.equal(near, prediction) != options.neighbours_at_inference
    torch.testing.assert_close(model.predict(inputs[0], inputs[1], inputs[4]), prediction)
    if options.neighbours_at_inference:
        with pytest.raises(ModelError, match="pass `near_features` and `mask`"):
            model.predict(inputs[0])
    else:
        torch.testing.assert_close(model.predict(inputs[0]), prediction)


@every_kind
def test_every_parameter_is_trained(options: Nh2stOptions) -> None:
    model = _model(options)
    torch.autograd.backward(model.loss(*model(*_inputs())))
    single = {"fusion.layers.0.ask.weight"} if options.form == "faithful" else set()
    untrained = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum()}
    assert untrained == single  # with a single key, the query has no effect


def test_faithful_form_at_the_published_size_has_the_published_layers() -> None:
    with torch.device("meta"):
        model = Nh2st(25088, 250, Nh2stOptions(form="faithful", tokens=49))
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes["encode_image.weight"] == (512, 25088)
    assert shapes["image_graph.first.theta.weight"] == (1024, 25088)
    assert shapes["image_graph.second.theta.weight"] == (512, 1024)
    assert shapes["gene_graph.first.theta.weight"] == (1024, 512)
    assert shapes["decode.1.weight"] == (250, 256)
    assert sum(value.numel() for value in model.parameters()) == pytest.approx(42.5e6, rel=0.02)


def test_standardised_model_does_not_depend_on_affine_changes_of_its_channels() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 12))
    scale, shift = np.tile([1.0, 10.0, 100.0, 0.1], 3), np.tile([5.0, 0.0, -40.0, 1.0], 3)
    models = [_model() for _ in range(2)]
    out = []
    for model, values in zip(models, (features, features * scale + shift), strict=True):
        model.standardize(values)
        out.append(model.predict(torch.tensor(values).float()))
    torch.testing.assert_close(*out, atol=1e-4, rtol=1e-4)
    means = models[0].image_mean.reshape(3, 4)
    torch.testing.assert_close(means[0], means[2])
    np.testing.assert_allclose(means[0], features.reshape(90, 4).mean(axis=0), atol=1e-6)


@every_kind
def test_centred_labels_add_the_mean_to_the_prediction_and_take_it_from_what_is_encoded(options: Nh2stOptions) -> None:
    inputs, mean = _inputs(), torch.arange(7.0)
    plain, centred, published = _model(options), _model(options), _model(replace(options, labels="published"))
    centred.center_labels(mean.numpy())
    published.center_labels(mean.numpy())
    shifted = [inputs[0], inputs[1], inputs[2] + mean, inputs[3] + mean, inputs[4]]
    prediction, target, *views = centred(*shifted)
    expected = plain(*inputs)
    torch.testing.assert_close(prediction, expected[0] + mean)
    torch.testing.assert_close(target, expected[1] + mean)
    torch.testing.assert_close(views, list(expected[2:]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(centred.loss(prediction, target, *views), plain.loss(*expected), atol=1e-5, rtol=1e-5)
    assert not published.label_mean.any()


def test_seed_determines_the_first_weights_and_leaves_the_global_generator_unchanged() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, same, other = (seeded_nh2st(12, 7, SMALL, seed=seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["encode_image.weight"], other["encode_image.weight"])


def test_learning_rate_decreases_by_a_tenth_every_fifty_epochs() -> None:
    rates = [_model().learning_rate(epoch, NH2ST_FIT) for epoch in (0, 49, 50, 99, 100, 199)]
    assert rates == pytest.approx([5e-4, 5e-4, 4.5e-4, 4.5e-4, 4.05e-4, 3.645e-4])
    optimizer = _model().optimizer(_model().parameters(), NH2ST_FIT)
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == 5e-4
    assert optimizer.param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature_query": 0.0}, "temperature_query 0.0"),
        ({"dim": 20, "heads": 8}, "dim 20, heads 8"),
        ({"tokens": 0}, "tokens 0"),
        ({"dropout": 1.0}, "got 1.0"),
        ({"form": "faithful", "neighbours_at_inference": True}, "from the patch alone"),
    ],
)
def test_invalid_options_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Nh2stOptions(**given)


def test_features_that_cannot_be_divided_into_tokens_are_refused() -> None:
    with pytest.raises(ModelError, match="length 13 cannot be divided into 3 tokens"):
        Nh2st(13, 7, SMALL)
