"""BLEEP's loss on matrices small enough to compute by hand, and its heads."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.bleep.model import Bleep, seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.contrastive.loss import contrastive_loss, soft_target
from raystp.models.training.options import FitOptions
from raystp.models.training.tower import attach_tower

V = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
X = torch.tensor([[1.0, 1.0], [0.0, 2.0], [1.0, 0.0]])


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _softmax(row: list[float]) -> list[float]:
    return [math.exp(x) / sum(math.exp(y) for y in row) for x in row]


def _by_hand(target: Callable[[int, int], float], temperature: float = 1.0) -> float:
    """Return the loss of V and X entry by entry, as the formula states it."""
    v, x = V.tolist(), X.tolist()
    logits = [[_dot(spot, image) / temperature for image in v] for spot in x]
    rows = [_softmax(row) for row in logits]
    columns = [_softmax([logits[i][j] for i in range(3)]) for j in range(3)]
    total = 0.0
    for i in range(3):
        of_spot = -sum(target(i, j) * math.log(rows[i][j]) for j in range(3))
        of_image = -sum(target(j, i) * math.log(columns[i][j]) for j in range(3))
        total += (of_spot + of_image) / 2
    return total / 3


def _smoothed(scale: float) -> Callable[[int, int], float]:
    v, x = V.tolist(), X.tolist()
    rows = [_softmax([(_dot(v[i], v[j]) + _dot(x[i], x[j])) / 2 * scale for j in range(3)]) for i in range(3)]
    return lambda i, j: rows[i][j]


def test_loss_of_three_equal_orthogonal_pairs_is_the_closed_form() -> None:
    loss = contrastive_loss(torch.eye(3), torch.eye(3), BleepOptions())
    assert float(loss) == pytest.approx(math.log(math.e + 2) - math.e / (math.e + 2), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_loss_equals_the_formula_by_hand(temperature: float) -> None:
    divided = contrastive_loss(V, X, BleepOptions(temperature=temperature))
    multiplied = contrastive_loss(V, X, BleepOptions(temperature=temperature, target_scale="mul"))
    assert float(divided) == pytest.approx(_by_hand(_smoothed(1 / temperature), temperature), abs=1e-5)
    assert float(multiplied) == pytest.approx(_by_hand(_smoothed(temperature), temperature), abs=1e-5)


def test_image_side_uses_the_transposed_target() -> None:
    target = _smoothed(1.0)
    assert float(contrastive_loss(V, X, BleepOptions())) != pytest.approx(_by_hand(lambda i, j: target(j, i)), abs=1e-3)


def test_target_rows_sum_to_one() -> None:
    for options in (BleepOptions(), BleepOptions(temperature=0.07), BleepOptions(target="identity")):
        torch.testing.assert_close(soft_target(V, X, options).sum(dim=1), torch.ones(3))


def test_divided_and_multiplied_targets_are_equal_at_temperature_one_only() -> None:
    def loss(temperature: float, scale: str) -> float:
        options = {"div": BleepOptions(temperature), "mul": BleepOptions(temperature, target_scale="mul")}
        return float(contrastive_loss(V, X, options[scale]))

    assert loss(1.0, "div") == loss(1.0, "mul")
    assert loss(0.5, "div") != pytest.approx(loss(0.5, "mul"), abs=1e-3)


def test_gradient_flows_through_the_target_unless_it_is_detached() -> None:
    def gradient(options: BleepOptions) -> Tensor:
        images = V.clone().requires_grad_()
        return torch.autograd.grad(contrastive_loss(images, X, options), images)[0]

    whole, detached = gradient(BleepOptions()), gradient(BleepOptions(detach_target=True))
    assert float(contrastive_loss(V, X, BleepOptions())) == float(
        contrastive_loss(V, X, BleepOptions(detach_target=True))
    )
    assert (whole - detached).abs().max() > 1e-2


def test_identity_target_is_the_cross_entropy_of_clip() -> None:
    logits = X @ V.T / 0.5
    to_images, to_spots = (functional.cross_entropy(side, torch.arange(3)) for side in (logits, logits.T))
    loss = contrastive_loss(V, X, BleepOptions(temperature=0.5, target="identity"))
    torch.testing.assert_close(loss, (to_images + to_spots) / 2)


def test_input_target_depends_on_the_inputs_only_and_needs_them() -> None:
    options = BleepOptions(target="input", input_temperature=0.01)
    orthogonal = (torch.eye(3), torch.eye(3))
    torch.testing.assert_close(soft_target(V, X, options, orthogonal), torch.eye(3))
    loss = contrastive_loss(V, X, options, orthogonal)
    torch.testing.assert_close(loss, contrastive_loss(V, X, BleepOptions(target="identity")))
    with pytest.raises(ModelError, match="without `inputs`"):
        contrastive_loss(V, X, options)


def test_normalised_loss_does_not_depend_on_the_length_of_an_embedding() -> None:
    options = BleepOptions(temperature=0.07, normalize_embeddings=True)
    torch.testing.assert_close(contrastive_loss(V * 5, X * 3, options), contrastive_loss(V, X, options))


def test_loss_stays_finite_for_embeddings_of_any_length() -> None:
    assert torch.isfinite(contrastive_loss(V * 1e3, X * 1e3, BleepOptions()))


def test_first_loss_of_the_published_heads_is_well_above_collapse() -> None:
    model = seeded_bleep(32, 20, BleepOptions(), seed=0)
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(64, 32, generator=generator), torch.randn(64, 20, generator=generator)
    assert model.loss(*model(*pairs)).item() > 1.5 * math.log(64)


def test_heads_return_rows_of_mean_zero_and_deviation_one() -> None:
    model = seeded_bleep(8, 5, BleepOptions(), seed=0).eval()
    for rows in (model.embed_images(torch.randn(4, 8)), model.embed_spots(torch.randn(4, 5))):
        assert rows.shape == (4, 256)
        torch.testing.assert_close(rows.mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(rows.var(dim=1, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)


def test_image_encoder_is_trained_with_the_heads_from_pixels() -> None:
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8))
    model = Bleep(8, 5, BleepOptions(target="input"))
    attach_tower(model, encoder, (0,), FitOptions())
    outputs = model(torch.randn(4, 3, 2, 2), torch.arange(1, 5), torch.randn(4, 5))
    torch.autograd.backward(model.loss(*outputs))
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_standardised_model_does_not_depend_on_affine_changes_of_its_features() -> None:
    features = np.random.default_rng(0).normal(size=(30, 4)) * [1, 10, 100, 0] + 5
    other = features * 7 - 3
    models = [seeded_bleep(4, 3, BleepOptions(), seed=0).eval() for _ in range(2)]
    for model, values in zip(models, (features, other), strict=True):
        model.standardize(values)
    one, two = (m.embed_images(torch.tensor(x).float()) for m, x in zip(models, (features, other), strict=True))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_seed_determines_the_first_weights_and_leaves_the_global_generator_unchanged() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, same, other = (seeded_bleep(4, 3, BleepOptions(), seed=seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["image_head.project.weight"], other["image_head.project.weight"])


def test_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ModelError, match="above 0, got temperature 0"):
        BleepOptions(temperature=0.0)
