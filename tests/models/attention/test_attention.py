"""Attention regression: weights sum to 1, padding changes nothing, and trunks per gene are separate models."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.attention.model import AttentionRegression, seeded_attention
from raystp.models.attention.options import GRAZIANI, AttentionOptions
from raystp.models.attention.predictor import AttentionPredictor
from raystp.models.store import load_state, save_state
from raystp.models.training.bags import BagSamples
from raystp.models.training.fit import TrainState, accumulate, fit
from raystp.models.training.options import FitOptions
from raystp.storage import StoragePath

SMALL = AttentionOptions(embedding=12, hidden=6)
DESIGNS = [
    SMALL,
    replace(SMALL, heads="per_gene"),
    replace(SMALL, heads="per_gene", trunk="per_gene"),
    replace(SMALL, level="embedding"),
    replace(SMALL, level="embedding", heads="per_gene"),
    replace(SMALL, level="embedding", heads="per_gene", trunk="per_gene"),
    replace(SMALL, pooling="mean"),
    replace(SMALL, pooling="mean", level="embedding", heads="per_gene", trunk="per_gene"),
    replace(SMALL, pooling="max"),
    replace(SMALL, pooling="exp"),
    replace(SMALL, pooling="lin"),
    replace(SMALL, gate=True, heads="per_gene", trunk="per_gene"),
]
every_design = pytest.mark.parametrize(
    "options", DESIGNS, ids=lambda o: f"{o.heads}-{o.trunk}-{o.level}-{o.pooling}-{o.gate}"
)


def _tolerance(options: AttentionOptions, usual: float) -> float:
    """Return 1e-4 for `lin`: its weights have both signs, and the sum that they are divided by may be small."""
    return 1e-4 if options.pooling == "lin" else usual


def _bags(sizes: list[int], width: int = 16, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(size, width)).astype(np.float32) for size in sizes]


def _samples(count: int = 12, genes: int = 3, seed: int = 0) -> BagSamples:
    rng = np.random.default_rng(seed)
    bags = _bags(rng.integers(5, 12, count).tolist(), seed=seed)
    return BagSamples.of(bags, rng.normal(size=(count, genes)))


def _model(options: AttentionOptions = SMALL, genes: int = 3, width: int = 16) -> AttentionRegression:
    model = seeded_attention(width, genes, options, seed=1).eval()
    for parameter in model.parameters():  # so that the attention of tiles differs clearly
        parameter.data *= 2
    return model


def _predictor(model: AttentionRegression) -> AttentionPredictor:
    genes = [f"g{column}" for column in range(len(model.label_mean))]
    return AttentionPredictor("attention", genes, len(model.feature_mean), model)


def _start(model: AttentionRegression, options: FitOptions) -> TrainState:
    return TrainState(model, model.loss, model.optimizer(model.parameters(), options))


def test_slide_prediction_is_the_attention_weighted_mean_of_tile_predictions_by_hand() -> None:
    model = seeded_attention(1, 1, AttentionOptions(embedding=1, hidden=1, clamp=3.0), seed=0).eval()
    for name, value in model.named_parameters():
        value.data.fill_(0.0 if name.endswith("bias") else 2.0 if "attend" in name or "local" in name else 1.0)
    x = np.array([-1.0, 0.5, 2.0])
    logits, local = 2 * np.tanh(x), np.array([-2.0, 1.0, 3.0])  # 2 * 2 = 4, clamped to 3
    weights = np.exp(logits) / np.exp(logits).sum()
    bag = torch.tensor(x[None, :, None], dtype=torch.float32)
    with torch.inference_mode():
        predicted, labels = model(bag, torch.ones(1, 3), torch.tensor([[0.25]]))
    assert float(predicted) == pytest.approx((weights * local).sum(), abs=1e-6)
    assert float(model.loss(predicted, labels)) == pytest.approx(((weights * local).sum() - 0.25) ** 2, abs=1e-6)


@every_design
def test_attention_sums_to_one_and_the_slide_is_between_its_lowest_and_highest_tile(
    options: AttentionOptions,
) -> None:
    predictor, (bag,) = _predictor(_model(options)), _bags([60])
    maps, predicted = predictor.maps(bag), predictor.predict_bag(bag)
    np.testing.assert_allclose(maps["attention"].sum(axis=0), 1.0, atol=_tolerance(options, 1e-6))
    if options.pooling != "lin":  # its weights have both signs
        assert (maps["attention"] >= 0).all()
        assert (maps["local"].min(axis=0) <= predicted + 1e-6).all()
        assert (maps["local"].max(axis=0) >= predicted - 1e-6).all()
    np.testing.assert_allclose(maps["contribution"].sum(axis=0), predicted, atol=1e-5)


@pytest.mark.parametrize(("pooling", "weight"), [("lin", lambda y: y), ("exp", np.exp)])
def test_pooling_by_the_predictions_themselves_equals_the_formula_by_hand(pooling: Any, weight: Any) -> None:
    model = _model(replace(SMALL, pooling=pooling))
    predictor, bags = _predictor(model), _bags([6, 3])
    pooled = model(*BagSamples.of(bags, np.zeros((2, 3))).at(np.arange(2)))[0].detach().numpy()
    for bag, own in zip(bags, pooled, strict=True):
        local = predictor.predict(bag).astype(np.float64)
        expected = (local * weight(local)).sum(axis=0) / weight(local).sum(axis=0)
        np.testing.assert_allclose(own, np.clip(expected, -10, 10), rtol=1e-4)
        rows, predict = predictor.removable(bag, "g1")
        assert predict(rows) == pytest.approx(own[1], rel=1e-4)


def test_gate_multiplies_the_hidden_layer_of_the_attention_by_a_sigmoid() -> None:
    model, (bag,) = _model(replace(SMALL, gate=True)), _bags([7])
    tile, x = model.tile, torch.from_numpy(bag)
    assert tile.hidden is not None
    assert tile.gate is not None
    assert tile.attend is not None
    embedded = x @ tile.embed.weight[0].T + tile.embed.bias[0]
    hidden = torch.tanh(embedded @ tile.hidden.weight[0].T + tile.hidden.bias[0])
    hidden = hidden * torch.sigmoid(embedded @ tile.gate.weight[0].T + tile.gate.bias[0])
    expected = hidden @ tile.attend.weight[0].T + tile.attend.bias[0]
    torch.testing.assert_close(model.tiles(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_optimiser_is_adamw_except_for_the_published_scaling_of_instances() -> None:
    published = replace(SMALL, feature_scaling="published")
    chosen = [one.chosen_optimizer for one in (SMALL, published, replace(published, level="embedding"))]
    assert chosen == ["adamw", "sgd", "adamw"]
    assert replace(SMALL, optimizer="sgd").chosen_optimizer == "sgd"


@every_design
def test_prediction_of_a_bag_of_one_tile_is_that_of_its_tile(options: AttentionOptions) -> None:
    predictor, (bag,) = _predictor(_model(options)), _bags([1])
    np.testing.assert_allclose(predictor.predict_bag(bag), predictor.predict(bag)[0], atol=1e-6)


@every_design
def test_padding_of_any_value_changes_no_prediction(options: AttentionOptions) -> None:
    model, samples = _model(options), BagSamples.of(_bags([5, 9, 2]), np.zeros((3, 3)))
    features, mask, labels = samples.at(np.arange(3))
    assert features.shape == (3, 9, 16)
    together = model(features, mask, labels)[0]
    alone = torch.cat([model(*samples.at(np.array([bag])))[0] for bag in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    with_nan = torch.where(mask[..., None] == 0, torch.tensor(float("nan")), features)
    torch.testing.assert_close(model(with_nan, mask, labels)[0], together, atol=0, rtol=0)


@every_design
def test_predictions_of_a_batch_equal_those_bag_by_bag(options: AttentionOptions) -> None:
    model, bags = _model(options), _bags([5, 9, 2])
    batch = model(*BagSamples.of(bags, np.zeros((3, 3))).at(np.arange(3)))[0].detach().numpy()
    np.testing.assert_allclose(
        batch, [_predictor(model).predict_bag(bag) for bag in bags], atol=_tolerance(options, 1e-5)
    )


def test_trunks_per_gene_are_separate_models_of_one_gene() -> None:
    options = replace(SMALL, heads="per_gene", trunk="per_gene", dropout=0.0)
    whole, samples = _model(options), _samples()
    batch = samples.at(np.arange(len(samples)))
    predicted, labels = whole(*batch)
    torch.autograd.backward(whole.loss(predicted, labels))
    gradients = {name: value.grad for name, value in whole.named_parameters()}
    for gene in range(3):
        one = whole.for_genes([gene])
        assert one.options == options
        alone, label = one(batch[0], batch[1], batch[2][:, [gene]])
        torch.testing.assert_close(alone[:, 0], predicted[:, gene], atol=1e-6, rtol=1e-5)
        torch.autograd.backward(one.loss(alone, label))
        for name, value in one.named_parameters():
            gradient = gradients[name]
            assert gradient is not None
            torch.testing.assert_close(value.grad, 3 * gradient[[gene]], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_trunks_per_gene_trained_together_equal_those_trained_alone(optimizer: Any) -> None:
    options = replace(SMALL, heads="per_gene", trunk="per_gene", dropout=0.0, optimizer=optimizer)
    fitting, samples = FitOptions(epochs=3, batch_size=4, accumulate_batches=1, lr=1e-2, weight_decay=0.01), _samples()
    together = _start(_model(options), fitting)
    alone = [_start(_model(options).for_genes([gene]), fitting) for gene in range(3)]
    list(fit(together, samples, fitting))
    for gene, one in enumerate(alone):
        list(fit(one, replace(samples, labels=samples.labels[:, [gene]]), fitting))
    batch = samples.at(np.arange(len(samples)))
    with torch.inference_mode():
        apart = torch.cat([one.model(*batch[:2], batch[2][:, [gene]])[0] for gene, one in enumerate(alone)], dim=1)
        torch.testing.assert_close(together.model(*batch)[0], apart, atol=1e-5, rtol=1e-5)


@every_design
def test_a_model_of_some_genes_has_the_maps_of_the_whole_model(options: AttentionOptions) -> None:
    model, (bag,) = _model(options), _bags([20])
    model.standardize_labels(np.random.default_rng(0).normal(size=(9, 3)))
    expected = _predictor(model).maps(bag)
    for name, values in _predictor(model).maps(bag, genes=["g2", "g0"]).items():
        np.testing.assert_allclose(values, expected[name][:, [2, 0]], atol=1e-6)


def test_dropout_is_on_in_training_only() -> None:
    model, batch = _model(), _samples().at(np.arange(4))
    assert torch.equal(model(*batch)[0], model(*batch)[0])
    model.train()
    assert not torch.equal(model(*batch)[0], model(*batch)[0])


def test_a_frozen_encoder_gets_no_gradient() -> None:
    encoder, pixels = nn.Linear(4, 16), np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)

    def tiles(bag: int, chosen: np.ndarray | None) -> np.ndarray:
        seen = pixels[bag] if chosen is None else pixels[bag][chosen]
        with torch.inference_mode():
            out: np.ndarray = encoder(torch.from_numpy(seen)).numpy()
        return out

    samples = BagSamples(tiles, np.full(6, 5), np.ones((6, 3)), [str(number) for number in range(6)])
    accumulate(_start(_model(), FitOptions()), samples, np.arange(6).reshape(2, 3))
    assert all(parameter.grad is None for parameter in encoder.parameters())


def _gradients(model: AttentionRegression) -> list[Tensor]:
    return [value.grad.clone() for value in model.parameters() if value.grad is not None]


@every_design
def test_gradient_of_bags_is_the_same_gathered_or_accumulated_as_in_one_batch(options: AttentionOptions) -> None:
    samples, rows = _samples(8), np.arange(8)
    model = _model(replace(options, dropout=0.0))
    torch.autograd.backward(model.loss(*model(*samples.at(rows))))
    assert all(value.grad is not None for value in model.parameters())
    expected = _gradients(model)
    model.zero_grad()
    halves = [model(*samples.at(half)) for half in np.split(rows, 2)]
    torch.autograd.backward(model.loss(*(torch.cat(side) for side in zip(*halves, strict=True))))
    for one, other in zip(_gradients(model), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    model.zero_grad()
    accumulate(_start(model, FitOptions()), samples, rows.reshape(8, 1))
    for one, other in zip(_gradients(model), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_run_equals_the_uninterrupted_one_with_sampled_tiles(tmp_path: Path, optimizer: Any) -> None:
    options = FitOptions(epochs=4, batch_size=1, accumulate_batches=3, lr=1e-2)
    folder = StoragePath.of(tmp_path / "state")

    def run() -> tuple[TrainState, BagSamples]:
        state = _start(_model(replace(SMALL, optimizer=optimizer)), options)
        return state, replace(_samples(), bag_tiles=4, seed=7, epoch=lambda: state.epoch)

    uninterrupted, samples = run()
    list(fit(uninterrupted, samples, options))
    first, samples = run()
    for row in fit(first, samples, options):
        if row["epoch"] == 1:
            save_state(folder, first)
            break
    second, samples = run()
    load_state(folder, second)
    list(fit(second, samples, options))
    for name, value in uninterrupted.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])


def test_a_checkpoint_of_another_design_is_refused(tmp_path: Path) -> None:
    folder = StoragePath.of(tmp_path / "state")
    save_state(folder, _start(_model(), FitOptions()))
    with pytest.raises(ModelError, match="is of another model"):
        load_state(folder, _start(_model(replace(SMALL, heads="per_gene")), FitOptions()))


def test_predictions_are_in_the_units_of_the_labels() -> None:
    labels = np.array([[100.0, 7.0], [104.0, 7.0], [102.0, 7.0]])
    model = seeded_attention(16, 2, SMALL, seed=0).eval()
    model.standardize_labels(labels)
    for value in model.tile.local.parameters():
        value.data.zero_()
    np.testing.assert_allclose(_predictor(model).predict_bag(_bags([5])[0]), [102.0, 7.0])
    model.tile.local.bias.data.fill_(1.0)
    np.testing.assert_allclose(
        _predictor(model).predict_bag(_bags([5])[0]), [102.0 + labels[:, 0].std(), 8.0], rtol=1e-6
    )


def test_seed_determines_the_first_weights_and_leaves_the_global_generator_unchanged() -> None:
    before = torch.get_rng_state()
    one, two = (seeded_attention(16, 3, SMALL, seed=4) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_published_model_is_one_per_gene_with_sgd() -> None:
    model = seeded_attention(8, 2, GRAZIANI, seed=0)
    assert model.tile.embed.weight.shape == (2, 128, 8)
    optimizer = model.optimizer(model.parameters(), FitOptions(lr=1e-4, weight_decay=0.01))
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["nesterov"]
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(2e-4, 0.005)]
    assert asdict(GRAZIANI)["clamp"] == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dropout": 1.0}, "a dropout from 0 to below 1"),
        ({"clamp": 0.0}, "a clamp above 0"),
        ({"embedding": 0}, "widths of 1 or more"),
        ({"level": "embedding", "pooling": "max"}, "no tile has a weight"),
        ({"level": "embedding", "pooling": "lin"}, "no tile has a weight"),
        ({"pooling": "mean", "gate": True}, "no attention is there to gate"),
        ({"trunk": "per_gene"}, 'set heads="per_gene"'),
    ],
)
def test_invalid_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        AttentionOptions(**wrong)
