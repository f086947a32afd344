"""NH2ST learns a simulated signal and nothing from shuffled labels; ranks and a resume change nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raystp.models.nh2st.model import Nh2st, seeded_nh2st
from raystp.models.nh2st.options import NH2ST_FIT, Nh2stOptions
from raystp.models.nh2st.samples import NeighbourSamples
from raystp.models.store import load_state, save_state
from raystp.models.training.fit import TrainState, accumulate, fit
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout
from raystp.models.training.score import ValidationScore
from raystp.storage import StoragePath

SIDE, IMAGE, GENES, PROGRAMS = 16, 24, 40, 8
TINY = Nh2stOptions(dim=16, heads=2, dropout=0.1)
KINDS = {
    "faithful": replace(TINY, form="faithful"),
    "mended": TINY,
    "mended, map": replace(TINY, tokens=3),
    "mended, with neighbours": replace(TINY, neighbours_at_inference=True),
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
SHORT = FitOptions(epochs=14, lr=2e-2, weight_decay=0.0, batch_size=32, accumulate_batches=1, seed=0)


def _section(seed: int, *, shuffled: bool = False, smooth_labels: bool = False) -> NeighbourSamples:
    """Return a square section: features and expression are linear in the same programs, plus noise on both sides."""
    rng, weights = np.random.default_rng(seed), np.random.default_rng(99)
    row, column = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE])
    program = rng.normal(size=(len(row), PROGRAMS))
    program[:, :3] += np.column_stack([np.sin(row / 3), np.cos(column / 3), row > column])
    features = program @ weights.normal(size=(PROGRAMS, IMAGE)) + 0.3 * rng.normal(size=(len(row), IMAGE))
    expression = 1 + program @ weights.normal(size=(PROGRAMS, GENES)) + 0.3 * rng.normal(size=(len(row), GENES))
    if shuffled:
        expression = rng.permuted(expression, axis=0)  # separately: one order for all genes has few degrees of freedom
    step = np.array([(0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
    near = np.stack([row, column], axis=1)[:, None] + step
    mask = ((near >= 0) & (near < SIDE)).all(axis=2)
    rows = np.where(mask, near[..., 0] * SIDE + near[..., 1], np.arange(len(row))[:, None])
    images, genes = (torch.tensor(values, dtype=torch.float32) for values in (features, expression))
    return NeighbourSamples.of(images, genes, rows, mask, smooth_labels=smooth_labels)


def _start(options: Nh2stOptions, fit_options: FitOptions = SHORT) -> TrainState:
    model = seeded_nh2st(IMAGE, GENES, options, seed=0)
    model.standardize(_section(0).features.numpy())
    return TrainState(model, model.loss, model.optimizer(model.parameters(), fit_options))


def _pcc(model: nn.Module, test: NeighbourSamples) -> float:
    """Return the mean over genes of the correlation over spots; predictions are from images alone."""
    assert isinstance(model, Nh2st)
    features, near, _, _, mask = test.at(np.arange(len(test)))
    with torch.inference_mode():
        predicted = model.eval().predict(features, near, mask).numpy()
    measured = test.expression.numpy()
    return float(np.mean([np.corrcoef(predicted[:, gene], measured[:, gene])[0, 1] for gene in range(GENES)]))


def _gradients(model: nn.Module) -> list[Tensor]:
    return [value.grad.clone() for value in model.parameters() if value.grad is not None]


@every_kind
def test_simulated_signal_is_learned_and_shuffled_labels_give_a_score_of_zero(options: Nh2stOptions) -> None:
    test = _section(1)
    scores: dict[bool, float] = {}
    for shuffled in (False, True):
        state = _start(options)
        list(fit(state, _section(0, shuffled=shuffled), SHORT))
        scores[shuffled] = _pcc(state.model, test)
    assert scores[False] > 0.85  # the gene mean has none; the noise limits it to 0.96
    assert abs(scores[True]) < 0.1


@every_kind
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_batch_that_is_split_and_gathered_has_the_loss_and_the_gradients_of_one_process(
    options: Nh2stOptions, parts: int
) -> None:
    samples, rows = _section(0), np.random.default_rng(4).permutation(SIDE**2)[:64]
    one, many = (seeded_nh2st(IMAGE, GENES, replace(options, dropout=0.0), seed=0) for _ in range(2))
    whole = one.loss(*one(*samples.at(rows)))
    torch.autograd.backward(whole)
    outputs = [many(*samples.at(part)) for part in np.split(rows, parts)]
    gathered = [torch.cat(values) for values in zip(*outputs, strict=True)]

    def gather_of(own: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
        return lambda part: next(whole for one, whole in zip(own, gathered, strict=True) if one is part)

    parts_of_loss = [many.loss_part(RankLayout(rank, parts, gather_of(own)), *own) for rank, own in enumerate(outputs)]
    loss = torch.stack(parts_of_loss).mean()
    torch.autograd.backward(loss)
    torch.testing.assert_close(loss, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(_gradients(many), _gradients(one), atol=1e-5, rtol=1e-4)


def test_gradient_of_whole_batches_is_the_mean_over_ranks_with_dropout() -> None:
    samples, batches = _section(0), np.random.default_rng(4).permutation(SIDE**2)[:64].reshape(4, 16)
    alone, many = _start(TINY), [_start(TINY) for _ in range(2)]
    loss = accumulate(alone, samples, batches, key=(0, 0, 0))
    losses = [accumulate(one, samples, batches, RankLayout(rank, 2), key=(0, 0, 0)) for rank, one in enumerate(many)]
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    for whole, *parts in zip(_gradients(alone.model), *(_gradients(one.model) for one in many), strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, atol=1e-6, rtol=1e-5)


def _weights(state: TrainState) -> dict[str, Float[Tensor, "..."]]:
    return {name: value.clone() for name, value in state.model.state_dict().items()}


def test_same_seed_gives_the_same_weights_and_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    options = replace(SHORT, epochs=4)
    runs = [_start(TINY, options) for _ in range(3)]
    for run in runs[:2]:
        list(fit(run, _section(0), options))
    list(fit(runs[2], _section(0), replace(options, epochs=2)))
    save_state(StoragePath.of(tmp_path), runs[2])
    resumed = _start(TINY, options)
    load_state(StoragePath.of(tmp_path), resumed)
    list(fit(resumed, _section(0), options))
    for other in (runs[1], resumed):
        assert all(torch.equal(value, _weights(other)[name]) for name, value in _weights(runs[0]).items())


def test_published_training_selects_by_the_validation_score() -> None:
    options, test = replace(NH2ST_FIT, epochs=3, lr=5e-3), _section(1)
    state = _start(TINY, options)
    train = _section(0, smooth_labels=True)
    records: list[dict[str, Any]] = list(
        fit(state, train, options, validation=test, score=lambda model: ValidationScore(_pcc(model, test)))
    )
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert state.best_epoch == int(np.argmax([record["validation_pcc"] for record in records]))
    assert records[-1]["train_loss"] < records[0]["train_loss"]
