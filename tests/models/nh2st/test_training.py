"""NH2ST learns a planted signal and nothing from shuffled labels; a width changes nothing, and a resumed run is one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
SHORT = FitOptions(epochs=8, lr=2e-2, weight_decay=0.0, batch_size=32, accumulate_batches=1, seed=0)


def _section(seed: int, *, shuffled: bool = False, smooth_labels: bool = False) -> NeighbourSamples:
    """Return a square section whose expression is linear in what its patches show, plus noise on both sides."""
    rng, planted = np.random.default_rng(seed), np.random.default_rng(99)
    row, column = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE])
    program = rng.normal(size=(len(row), PROGRAMS))
    program[:, :3] += np.column_stack([np.sin(row / 3), np.cos(column / 3), row > column])
    features = program @ planted.normal(size=(PROGRAMS, IMAGE)) + 0.3 * rng.normal(size=(len(row), IMAGE))
    expression = 1 + program @ planted.normal(size=(PROGRAMS, GENES)) + 0.3 * rng.normal(size=(len(row), GENES))
    if shuffled:
        expression = rng.permuted(expression, axis=0)  # each gene apart: one order for all has few degrees of freedom
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
    """Return the mean over genes of the correlation over spots of what is predicted from images alone."""
    assert isinstance(model, Nh2st)
    features, near, _, _, mask = test.at(np.arange(len(test)))
    with torch.inference_mode():
        predicted = model.eval().predict(features, near, mask).numpy()
    measured = test.expression.numpy()
    return float(np.mean([np.corrcoef(predicted[:, gene], measured[:, gene])[0, 1] for gene in range(GENES)]))


def _gradients(model: nn.Module) -> list[Tensor]:
    return [value.grad.clone() for value in model.parameters() if value.grad is not None]


@every_kind
def test_planted_signal_is_learned_and_shuffled_labels_teach_nothing(options: Nh2stOptions) -> None:
    test = _section(1)
    scores: dict[bool, float] = {}
    for shuffled in (False, True):
        training = _start(options)
        list(fit(training, _section(0, shuffled=shuffled), SHORT))
        scores[shuffled] = _pcc(training.model, test)
    assert scores[False] > 0.85  # a gene's mean has none; the noise allows 0.96
    assert abs(scores[True]) < 0.1


@every_kind
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_set_that_is_split_and_gathered_has_the_loss_and_the_gradients_of_one_process(
    options: Nh2stOptions, parts: int
) -> None:
    samples, rows = _section(0), np.random.default_rng(4).permutation(SIDE**2)[:64]
    one, many = (seeded_nh2st(IMAGE, GENES, replace(options, dropout=0.0), seed=0) for _ in range(2))
    whole = one.loss(*one(*samples.at(rows)))
    whole.backward()  # type: ignore[no-untyped-call]  # torch's own
    outputs = [many(*samples.at(part)) for part in np.split(rows, parts)]
    gathered = [torch.cat(values) for values in zip(*outputs, strict=True)]

    def gather_of(own: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
        return lambda mine: next(everyone for one, everyone in zip(own, gathered, strict=True) if one is mine)

    shares = [many.loss_part(RankLayout(rank, parts, gather_of(own)), *own) for rank, own in enumerate(outputs)]
    loss = torch.stack(shares).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    torch.testing.assert_close(loss, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(_gradients(many), _gradients(one), atol=1e-5, rtol=1e-4)


def test_sets_dealt_to_ranks_give_the_gradient_of_all_dropout_and_all() -> None:
    samples, sets = _section(0), np.random.default_rng(4).permutation(SIDE**2)[:64].reshape(4, 16)
    alone, many = _start(TINY), [_start(TINY) for _ in range(2)]
    loss = accumulate(alone, samples, sets, key=(0, 0, 0))
    losses = [accumulate(one, samples, sets, RankLayout(rank, 2), key=(0, 0, 0)) for rank, one in enumerate(many)]
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    for mine, *theirs in zip(_gradients(alone.model), *(_gradients(one.model) for one in many), strict=True):
        torch.testing.assert_close(torch.stack(theirs).mean(dim=0), mine, atol=1e-6, rtol=1e-5)


def _weights(training: TrainState) -> dict[str, Float[Tensor, "..."]]:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def test_same_seed_gives_the_same_weights_and_a_resumed_run_is_the_undisturbed_one(tmp_path: Path) -> None:
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


def test_published_training_selects_by_the_score_on_a_validation_section() -> None:
    options, test = replace(NH2ST_FIT, epochs=3, lr=5e-3), _section(1)
    training = _start(TINY, options)
    train = _section(0, smooth_labels=True)
    records = list(fit(training, train, options, validation=test, score=lambda model: _pcc(model, test)))
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert training.best_epoch == int(np.argmax([record["validation_pcc"] for record in records]))
    assert records[-1]["train_loss"] < records[0]["train_loss"]
