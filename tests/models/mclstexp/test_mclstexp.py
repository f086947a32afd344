"""mclSTExp's model against an independent restatement, and what a spot's embedding depends on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.mclstexp.model import Mclstexp, seeded_mclstexp
from raystp.models.mclstexp.options import MCLSTEXP_FIT, MclstexpOptions
from raystp.models.mclstexp.places import section_places
from raystp.models.mclstexp.samples import SectionSpots, context_rows
from raystp.models.predictor import SpotSections
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout

IMAGE, GENES = 7, 6
SMALL = MclstexpOptions(dim=12, heads=2, head_dim=4)
PUBLISHED = replace(SMALL, sequence="batch", positions="learned", position_sd=1.0)
SECTIONS = SpotSections(
    np.repeat(np.arange(3), 20),
    np.array([[x * 80.0, y * 80.0, 64.0] for _ in range(3) for y in range(4) for x in range(5)]),
)
"""Three sections of 5 x 4 spots."""


def _pairs(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = len(SECTIONS.group)
    return torch.randn(count, IMAGE, generator=generator), torch.rand(count, GENES, generator=generator)


def _samples(options: MclstexpOptions, pairs: tuple[Tensor, Tensor] | None = None) -> SectionSpots:
    return SectionSpots.of(pairs or _pairs(), SECTIONS, section_places(options, SECTIONS, 50.0), options)


def _model(options: MclstexpOptions) -> Mclstexp:
    return seeded_mclstexp(IMAGE, GENES, options, seed=3)


def _restated_attention(x: Tensor, weights: dict[str, Tensor], layer: str, heads: int) -> Tensor:
    """Return the attention of one sequence, head by head: no bias but the output's, scale 1/sqrt(length)."""
    normed = _restated_norm(x, weights, f"{layer}.norm")
    query, (key, value) = weights[f"{layer}.query.weight"], weights[f"{layer}.key_value.weight"].chunk(2)
    joined = []
    for head in range(heads):
        at = slice(head * len(query) // heads, (head + 1) * len(query) // heads)
        scores = (normed @ query[at].T) @ (normed @ key[at].T).T / (len(query) / heads) ** 0.5
        shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        joined.append(shares @ (normed @ value[at].T))
    return torch.cat(joined, dim=1) @ weights[f"{layer}.out.0.weight"].T + weights[f"{layer}.out.0.bias"]


def _restated_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _restated_linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _restated_head(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    projected = _restated_linear(x, weights, f"{name}.project")
    refined = _restated_linear(_restated_gelu(projected), weights, f"{name}.refine.1")
    return _restated_norm(projected + refined, weights, f"{name}.norm")


def _restated_gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def _restated_loss(weights: dict[str, Tensor], images: Tensor, expression: Tensor, cells: Tensor) -> Tensor:
    """Return the published loss of one batch, from the formulas of its code."""
    h = expression + weights["codes.x.weight"][cells[:, 0]] + weights["codes.y.weight"][cells[:, 1]]
    for number in range(2):
        layer = f"transformer.layers.{number}"
        h = h + _restated_attention(h, weights, layer, heads=2)
        hidden = _restated_linear(
            _restated_norm(h, weights, f"{layer}.feedforward.0"), weights, f"{layer}.feedforward.1"
        )
        h = h + _restated_linear(_restated_gelu(hidden), weights, f"{layer}.feedforward.4")
    spots, tiles = _restated_head(h, weights, "spot_head"), _restated_head(images, weights, "image_head")
    own = torch.arange(len(images))
    return (functional.cross_entropy(spots @ tiles.T, own) + functional.cross_entropy(tiles @ spots.T, own)) / 2


def test_published_form_has_the_loss_and_the_gradients_of_an_independent_restatement() -> None:
    """Acceptance 1: sequence=batch, positions=learned, copied weights."""
    model, samples = _model(PUBLISHED).double(), _samples(PUBLISHED, (_pairs()[0].double(), _pairs()[1].double()))
    images, expression, places = samples.at(np.random.default_rng(0).permutation(60)[:16])
    loss = model.loss(*model(images, expression, places))
    torch.autograd.backward(loss)
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    restated = _restated_loss(weights, images, expression, places.long())
    torch.autograd.backward(restated)
    torch.testing.assert_close(loss, restated, atol=1e-6, rtol=0)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, weights[name].grad, atol=1e-6, rtol=0, msg=name)
    assert model.own.heads == 2


@pytest.mark.parametrize("sequence", ["section", "batch"])
def test_without_layers_and_positions_it_is_bleep_with_identity_targets(sequence: Any) -> None:
    """Acceptance 2: equal to the last bit, in weights, loss and gradients."""
    options = replace(SMALL, sequence=sequence, layers=0)
    bleep = seeded_bleep(IMAGE, GENES, BleepOptions(target="identity", dim=12, dropout=0.0), seed=3)
    model, rows = _model(options), np.random.default_rng(0).permutation(60)[:16]
    images, expression = _pairs()
    for one in (model, bleep):
        one.standardize(images.numpy())
    loss = model.loss(*model(*_samples(options).at(rows)))
    expected = bleep.loss(*bleep(images[rows], expression[rows]))
    for value in (loss, expected):
        torch.autograd.backward(value)
    assert torch.equal(loss, expected)
    for (name, own), (other_name, other) in zip(model.named_parameters(), bleep.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(own, other)
        assert own.grad is not None
        assert other.grad is not None
        assert torch.equal(own.grad, other.grad)


def _embedded(options: MclstexpOptions, rows: np.ndarray, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the embeddings of these spots, as a training batch of them has them."""
    _, expression, *at = _samples(options, pairs).at(rows)
    return _model(options).eval().embed_spots(expression, *at).detach()


@pytest.mark.parametrize("positions", ["none", "learned", "sincos"])
@pytest.mark.parametrize("context_spots", [512, 9])
def test_a_spots_embedding_depends_on_its_own_section_and_not_on_the_batch(positions: Any, context_spots: int) -> None:
    """Acceptance 3: with sequence=section; spots of other sections are permuted, and the batch is another one."""
    options = replace(SMALL, positions=positions, context_spots=context_spots)
    images, expression = _pairs()
    embedded = _embedded(options, np.array([4, 25, 47]), (images, expression))
    alone = _embedded(options, np.array([4]), (images, expression))
    many = _embedded(options, np.arange(60)[::-1].copy(), (images, expression))
    moved = torch.cat([expression[:20], expression[20:].flip(0)])
    other = _embedded(options, np.array([50, 4]), (images, moved))
    for one in (alone[0], many[-5], other[1]):
        torch.testing.assert_close(one, embedded[0], atol=1e-6, rtol=1e-5)
    near = context_rows(SECTIONS.boxes[:20], context_spots)
    moved = expression.clone()
    moved[near[near != 4]] = moved[near[near != 4]].flip(1)
    assert (_embedded(options, np.array([4]), (images, moved))[0] - embedded[0]).abs().max() > 1e-3


def test_with_the_published_sequence_a_spots_embedding_depends_on_its_batch() -> None:
    """Acceptance 3: the fault of sequence=batch."""
    embedded = [_embedded(PUBLISHED, np.array([4, other]), _pairs())[0] for other in (25, 47)]
    assert (embedded[0] - embedded[1]).abs().max() > 1e-3
    order = np.random.default_rng(0).permutation(60)
    permuted = _embedded(PUBLISHED, order, _pairs())
    torch.testing.assert_close(permuted, _embedded(PUBLISHED, np.arange(60), _pairs())[order], atol=1e-5, rtol=1e-5)


def test_places_are_cells_of_the_array_or_um_from_the_centre_of_each_section() -> None:
    learned = section_places(replace(SMALL, positions="learned"), SECTIONS, None)
    expected = [[x, y] for _ in range(3) for y in range(4) for x in range(5)]
    assert learned.tolist() == expected
    um = section_places(replace(SMALL, positions="sincos"), SECTIONS, 32.0)  # 0.5 um/px
    np.testing.assert_allclose(um, (np.array(expected) - [2, 1.5]) * 40, atol=1e-4)
    assert not section_places(SMALL, SECTIONS, None).any()
    with pytest.raises(ModelError, match="train the model again"):
        section_places(replace(SMALL, positions="sincos"), SECTIONS, None)
    long = SpotSections(np.zeros(300, np.int64), np.stack([np.arange(300.0) * 9, *np.ones((2, 300))], axis=1))
    with pytest.raises(ModelError, match="has codes of 256 columns and rows, and a section has 300"):
        section_places(replace(SMALL, positions="learned"), long, None)


def test_waves_of_the_places_change_nothing_before_the_first_step() -> None:
    _, expression, *at = _samples(replace(SMALL, positions="sincos")).at(np.arange(9))
    with_waves, without = (_model(replace(SMALL, positions=kind)).eval() for kind in ("sincos", "none"))
    assert torch.equal(with_waves.embed_spots(expression, *at), without.embed_spots(expression, *at))


def test_context_is_all_spots_or_evenly_spaced_ones_in_any_order() -> None:
    boxes = SECTIONS.boxes[:20]
    assert context_rows(boxes, 20).tolist() == list(range(20))
    few = context_rows(boxes, 7)
    assert len(few) == 7
    order = np.random.default_rng(0).permutation(20)
    np.testing.assert_array_equal(np.sort(order[context_rows(boxes[order], 7)]), few)


def test_optimiser_is_adam_with_an_l2_term() -> None:
    model, fit = _model(SMALL), FitOptions(lr=0.01, weight_decay=0.5)
    weight = torch.nn.Parameter(torch.tensor([2.0, -3.0]))
    optimizer = model.optimizer([weight], fit)
    weight.grad = torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([1.99, -2.99]))  # decoupled, it is 1.99 and -2.985
    published = (MCLSTEXP_FIT.epochs, MCLSTEXP_FIT.lr, MCLSTEXP_FIT.weight_decay, MCLSTEXP_FIT.batch_size)
    assert published == (90, 1e-4, 1e-3, 128)
    assert (MCLSTEXP_FIT.accumulate_batches, MCLSTEXP_FIT.select) == (1, "last")


def test_a_batch_that_ranks_share_is_no_sequence() -> None:
    model = _model(PUBLISHED)
    outputs = model(*_samples(PUBLISHED).at(np.arange(8)))
    with pytest.raises(ModelError, match=r"set run\.gather=false, or mclstexp\.sequence=section"):
        model.loss_part(RankLayout(0, 2, lambda rows: rows), *outputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": -1}, "layers must be finite and at least 0"),
        ({"context_spots": 0}, "context_spots must be finite and at least 1"),
        ({"dim": 0}, "dim must be finite and at least 1"),
        ({"position_sd": -0.1}, "position_sd must be finite and at least 0"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
