"""Training: a simulated signal is learned, and neither the number of workers nor a resume changes the result."""

import copy
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.bleep.model import Bleep, seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.store import load_state, save_state
from raystp.models.training.fit import EpochRow, TrainState, accumulate, fit, train_epoch
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout, epoch_plan
from raystp.models.training.samples import PairDataset
from raystp.models.training.score import ValidationScore
from raystp.storage import StoragePath

SMALL = FitOptions(epochs=4, batch_size=8, accumulate_batches=4, seed=3)
WITHOUT_DROPOUT = BleepOptions(dim=16, dropout=0.0)


def _pairs(rows: int = 70, seed: int = 0) -> PairDataset:
    """Return features and an expression that is linear in them, plus a little noise."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(99).normal(size=(10, 6))
    features = rng.normal(size=(rows, 10))
    expression = features @ weights + 0.1 * rng.normal(size=(rows, 6))
    return PairDataset.of(torch.tensor(features, dtype=torch.float32), torch.tensor(expression, dtype=torch.float32))


def _model(*, dropout: float = 0.1) -> Bleep:
    return seeded_bleep(10, 6, BleepOptions(dim=16, dropout=dropout), seed=5)


def _start(options: FitOptions = SMALL, *, dropout: float = 0.1) -> TrainState:
    model = _model(dropout=dropout)
    return TrainState.start(model, model.loss, options)


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def _without_seconds(records: list[EpochRow]) -> list[EpochRow]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def _gradients(state: TrainState) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in state.model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("world", [2, 4])
def test_gradient_of_four_batches_on_one_rank_is_the_mean_over_ranks_with_dropout(world: int) -> None:
    pairs, batches = _pairs(512), epoch_plan(512, batch_size=128, accumulate_batches=4, seed=0, epoch=0)[0]
    alone = _start()
    loss = accumulate(alone, pairs, batches, key=(0, 0, 0))
    many = [_start() for _ in range(world)]
    losses = [accumulate(one, pairs, batches, RankLayout(rank, world), key=(0, 0, 0)) for rank, one in enumerate(many)]
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    for whole, *parts in zip(_gradients(alone), *(_gradients(one) for one in many), strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, atol=1e-6, rtol=1e-5)


def test_dropout_differs_between_epochs_steps_and_batches() -> None:
    rows = np.arange(16).reshape(1, 16)
    keys = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]
    losses = [float(accumulate(_start(), _pairs(), rows, key=key)) for key in keys]
    losses.append(float(accumulate(_start(), _pairs(), np.repeat(rows, 2, axis=0), key=keys[0])))
    assert len(set(losses)) == 5
    assert float(accumulate(_start(), _pairs(), rows, key=keys[0])) == losses[0]


def test_gradient_of_one_large_batch_is_not_that_of_four_small_ones() -> None:
    pairs, batches = _pairs(512), epoch_plan(512, batch_size=128, accumulate_batches=4, seed=0, epoch=0)[0]
    small, large = _start(dropout=0.0), _start(dropout=0.0)
    accumulate(small, pairs, batches)
    accumulate(large, pairs, batches.reshape(1, 512))
    differ = [float((a - b).abs().max()) for a, b in zip(_gradients(small), _gradients(large), strict=True)]
    assert max(differ) > 1e-3


class _Collective:
    """Collective operations of ranks that are threads: each passes a tensor and gets those of all ranks."""

    def __init__(self, world: int) -> None:
        self.world, self.barrier, self.values = world, threading.Barrier(world), [torch.empty(0)] * world

    def all(self, rank: int, value: Tensor) -> list[Tensor]:
        self.values[rank] = value
        self.barrier.wait(timeout=30)
        seen = list(self.values)
        self.barrier.wait(timeout=30)
        return seen

    def gather(self, rank: int) -> Callable[[Tensor], Tensor]:
        collective = self

        class Gather(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, rows: Tensor) -> Tensor:
                ctx.rows = len(rows)
                return torch.cat(collective.all(rank, rows.detach().clone()))

            @staticmethod
            def backward(ctx: Any, *gradients: Tensor) -> Tensor:
                total = torch.stack(collective.all(rank, gradients[0])).sum(dim=0)
                return total[rank * ctx.rows : (rank + 1) * ctx.rows]

        return Gather.apply

    def mean(self, rank: int) -> Callable[[Tensor], Tensor]:
        return lambda value: torch.stack(self.all(rank, value.clone())).mean(dim=0)


class _SharedSGD(torch.optim.SGD):
    """SGD that first averages the gradients over ranks, as DDP does."""

    def __init__(self, model: nn.Module, mean: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model.parameters(), lr=0.05, momentum=0.9)
        self.mean_over_ranks = mean

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure, no loss
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = self.mean_over_ranks(parameter.grad)
        super().step(closure)


def _train_together(
    world: int, layout: str, options: BleepOptions = WITHOUT_DROPOUT
) -> tuple[list[TrainState], list[list[EpochRow]]]:
    collective, pairs, validation = _Collective(world), _pairs(), _pairs(20, seed=1)
    models = [seeded_bleep(10, 6, options, seed=5) for _ in range(world)]
    runs = [TrainState(m, m.loss, _SharedSGD(m, collective.mean(rank))) for rank, m in enumerate(models)]
    if layout == "loss in parts":
        for run, model in zip(runs, models, strict=True):
            run.loss_part = model.loss_part
    records: list[list[EpochRow]] = [[] for _ in range(world)]

    def work(rank: int) -> None:
        ranks = RankLayout(
            rank, world, None if layout == "whole batches" else collective.gather(rank), collective.mean(rank)
        )
        records[rank] = _without_seconds(list(fit(runs[rank], pairs, SMALL, validation=validation, ranks=ranks)))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return runs, records


OPTIONS = {
    "smoothed": WITHOUT_DROPOUT,
    "multiplied": replace(WITHOUT_DROPOUT, temperature=0.5, target_scale="mul"),
    "normalised": replace(WITHOUT_DROPOUT, temperature=0.1, normalize_embeddings=True),
    "detached": replace(WITHOUT_DROPOUT, detach_target=True),
    "identity": replace(WITHOUT_DROPOUT, target="identity"),
    "input": replace(WITHOUT_DROPOUT, target="input"),
}


@pytest.mark.parametrize(
    ("layout", "name"),
    [("whole batches", "smoothed"), ("gathered", "smoothed"), *(("loss in parts", name) for name in OPTIONS)],
)
@pytest.mark.parametrize("world", [2, 4])
def test_number_of_ranks_changes_neither_the_weights_nor_the_losses(world: int, layout: str, name: str) -> None:
    (alone,), (expected,) = _train_together(1, "whole batches", OPTIONS[name])
    runs, records = _train_together(world, layout, OPTIONS[name])
    assert len(expected) == SMALL.epochs
    for run, seen in zip(runs, records, strict=True):
        assert seen == records[0]
        for loss in ("train_loss", "validation_loss"):
            assert [row[loss] for row in seen] == pytest.approx([row[loss] for row in expected], abs=1e-5)
        for key, value in alone.model.state_dict().items():
            torch.testing.assert_close(run.model.state_dict()[key], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("select", ["last", "best"])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, select: str) -> None:
    options = {
        "last": FitOptions(epochs=6, batch_size=8, accumulate_batches=2),
        "best": FitOptions(epochs=6, batch_size=8, accumulate_batches=2, select="best", patience=5),
    }[select]
    pairs, validation, folder = _pairs(), _pairs(20, seed=1), StoragePath.of(tmp_path / "state")
    uninterrupted = _start(options)
    expected = list(fit(uninterrupted, pairs, options, validation=validation))

    first = _start(options)
    seen = []
    for record in fit(first, pairs, options, validation=validation):
        seen.append(record)
        if record["epoch"] == 2:
            save_state(folder, first)
            break
    torch.manual_seed(1234)
    second = _start(options)
    load_state(folder, second)
    seen += list(fit(second, pairs, options, validation=validation))

    assert _without_seconds(seen) == _without_seconds(expected)
    assert _equal(second.weights(), uninterrupted.weights())
    assert _equal(second.model.state_dict(), uninterrupted.model.state_dict())


def test_seed_determines_the_result_and_leaves_the_global_generator_unchanged() -> None:
    torch.manual_seed(1)
    first = _start()
    before = torch.get_rng_state()
    list(fit(first, _pairs(), SMALL))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second, other = _start(), _start()
    list(fit(second, _pairs(), SMALL))
    list(fit(other, _pairs(), FitOptions(epochs=4, batch_size=8, accumulate_batches=4, seed=4)))
    assert _equal(first.weights(), second.weights())
    assert not _equal(first.weights(), other.weights())


def _retrieval_pcc(model: nn.Module, reference: Tensor, queries: PairDataset, k: int = 10) -> float:
    """Return the mean correlation per gene of the mean of each query's k nearest spots."""
    assert isinstance(model, Bleep)
    model.eval()
    with torch.inference_mode():
        spots = functional.normalize(model.embed_spots(reference))
        images = functional.normalize(model.embed_images(queries.images(np.arange(len(queries)))))
        predicted = reference[(images @ spots.T).topk(k).indices].mean(dim=1)
    per_gene = [np.corrcoef(p, t)[0, 1] for p, t in zip(predicted.T, queries.expression.T, strict=True)]
    return float(np.mean(per_gene))


def test_simulated_signal_is_learned_and_shuffled_labels_are_not() -> None:
    options = FitOptions(epochs=20, batch_size=64, accumulate_batches=1)
    train, test = _pairs(400), _pairs(300, seed=1)
    shuffle = torch.from_numpy(np.random.default_rng(0).permutation(400))
    shuffled = PairDataset(train.images, train.expression[shuffle])
    scores = []
    for pairs in (train, shuffled):
        state = _start(options)
        list(fit(state, pairs, options))
        scores.append(_retrieval_pcc(state.model, pairs.expression, test))
    assert scores[0] > 0.7
    assert abs(scores[1]) < 0.15


def test_best_keeps_the_weights_of_the_lowest_validation_loss_and_patience_stops_the_training() -> None:
    options = FitOptions(epochs=60, lr=0.02, batch_size=8, accumulate_batches=2, select="best", patience=3)
    pairs, validation = _pairs(40), _pairs(30, seed=1)
    state = _start(options)
    after = [
        (record["validation_loss"], copy.deepcopy(state.model.state_dict()))
        for record in fit(state, pairs, options, validation=validation)
    ]
    losses = [loss for loss, _ in after if loss is not None]
    best = losses.index(min(losses))
    assert (state.best_epoch, state.best_value) == (best, losses[best])
    assert len(losses) == best + 1 + 3 < 60
    assert _equal(state.weights(), after[best][1])
    assert list(fit(state, pairs, options, validation=validation)) == []


def test_score_of_each_epoch_gets_the_model_in_eval_mode() -> None:
    in_eval_mode = []

    def score(model: nn.Module) -> ValidationScore:
        in_eval_mode.append(not model.training)
        return ValidationScore(0.25)

    records = list(fit(_start(), _pairs(), SMALL, score=score))
    assert in_eval_mode == [True] * 4
    assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    assert {record["validation_pcc"] for record in records} == {0.25}
    assert {record["validation_loss"] for record in records} == {None}


def test_impossible_training_is_refused_before_the_first_step() -> None:
    with pytest.raises(ModelError, match="needs 32 training samples, got 20"):
        fit(_start(), _pairs(20), SMALL)
    with pytest.raises(ModelError, match="3 workers cannot share"):
        fit(_start(), _pairs(), SMALL, ranks=RankLayout(0, 3))
    with pytest.raises(ModelError, match="there is no validation section"):
        fit(_start(), _pairs(), FitOptions(batch_size=8, select="best"))


def test_nan_in_a_sample_is_refused_with_the_name_of_the_array() -> None:
    features, expression = torch.zeros(3, 2), torch.zeros(3, 2)
    expression[1, 0] = torch.nan
    with pytest.raises(ModelError, match="expression of 1 of 3 spots"):
        PairDataset.of(features, expression)


def test_loss_of_nan_stops_the_training() -> None:
    pairs = PairDataset(lambda rows: torch.full((len(rows), 10), torch.nan), _pairs().expression)
    with pytest.raises(ModelError, match=r"the loss of epoch 0 \(training, validation\) is \[nan\]: lower fit.lr"):
        list(fit(_start(), pairs, SMALL))


def test_any_model_with_a_loss_of_whole_batches_can_be_trained() -> None:
    class Regression(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(10, 6)

        def forward(self, images: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
            return self.line(images), expression

    options = FitOptions(lr=0.1, batch_size=8, accumulate_batches=1)
    state = TrainState.start(Regression(), functional.mse_loss, options)
    first = train_epoch(state, _pairs(), options)
    for state.epoch in range(1, 12):
        last = train_epoch(state, _pairs(), options)
    assert last < 0.05 * first


def test_best_pcc_keeps_the_epoch_of_the_highest_score_not_of_the_lowest_loss() -> None:
    state, scores = _start(), iter([0.1, 0.4, 0.2])
    options = replace(SMALL, epochs=3, select="best_pcc")
    list(fit(state, _pairs(), options, validation=_pairs(), score=lambda _: ValidationScore(next(scores))))
    assert (state.best_epoch, state.best_value) == (1, -0.4)
    assert state.best


def _guarded(errors: list[float], options: FitOptions, state: TrainState) -> list[EpochRow]:
    """Train with a rising PCC, these validation errors, and an error of the training means of 1."""
    left = iter([ValidationScore(0.1 + 0.1 * number, error, 1.0) for number, error in enumerate(errors)][state.epoch :])
    return list(fit(state, _pairs(), options, validation=_pairs(), score=lambda _: next(left)))


@pytest.mark.parametrize(
    ("errors", "kept"),
    [
        ([1.5, 0.9, 1.2], 1),  # the last has the highest PCC
        ([0.9, 1.2, 0.95], 2),
        ([1.5, 1.1, 1.2], 1),  # all above: the lowest error
        ([math.nan, 1.2, 1.1], 0),  # an error that is unknown is not above
    ],
)
def test_no_epoch_is_kept_whose_error_is_above_that_of_the_training_means(errors: list[float], kept: int) -> None:
    options = replace(SMALL, epochs=3, select="best_pcc")
    state = _start()
    rows = _guarded(errors, options, state)
    assert state.best_epoch == kept
    assert [row["validation_mse"] for row in rows] == [None if math.isnan(error) else error for error in errors]
    assert {row["gene_mean_mse"] for row in rows} == {1.0}


def test_a_resumed_run_knows_that_its_best_epoch_was_above_the_training_means(tmp_path: Path) -> None:
    folder, options = StoragePath.of(tmp_path / "state"), replace(SMALL, epochs=3, select="best_pcc")
    first = _start()
    _guarded([1.5, 1.4], replace(options, epochs=2), first)
    save_state(folder, first)
    resumed = _start()
    load_state(folder, resumed)
    assert resumed.best_is_poor
    _guarded([1.5, 1.4, 0.9], options, resumed)
    assert (resumed.best_epoch, resumed.best_is_poor) == (2, False)


def test_validation_score_compares_measured_and_predicted_values_only() -> None:
    measured = np.array([[1.0, np.nan], [3.0, 4.0]])
    predicted = np.array([[2.0, 5.0], [3.0, np.nan]])
    score = ValidationScore.of(0.5, predicted, measured, np.array([0.0, 4.0]))
    assert (score.mse, score.gene_mean_mse, score.is_above_gene_mean) == (0.5, 5.0, False)
    assert math.isnan(ValidationScore.of(0.5, predicted, np.full((2, 2), np.nan), np.zeros(2)).mse)


def test_bfloat16_trains_close_to_float32_and_keeps_weights_in_float32() -> None:
    options, train, test = FitOptions(epochs=10, batch_size=64, accumulate_batches=1), _pairs(400), _pairs(100, seed=1)
    assert options.precision == "float32"
    exact, half = _start(options), _start(options)
    in_full = _without_seconds(list(fit(exact, train, options, validation=test)))
    in_half = _without_seconds(list(fit(half, train, replace(options, precision="bfloat16"), validation=test)))
    assert in_half != in_full
    for name in ("train_loss", "validation_loss"):
        assert [row[name] for row in in_half] == pytest.approx([row[name] for row in in_full], rel=0.02)
    assert {value.dtype for value in half.weights().values()} == {torch.float32}
    scores = [_retrieval_pcc(one.model, train.expression, test) for one in (exact, half)]
    assert scores[1] == pytest.approx(scores[0], abs=0.05)


def test_loss_gets_float32_under_bfloat16() -> None:
    seen: set[torch.dtype] = set()

    def loss(*outputs: Tensor) -> Tensor:
        seen.update(one.dtype for one in outputs)
        assert not torch.is_autocast_enabled("cpu")
        return outputs[0].sum()

    state = TrainState.start(_model(), loss, SMALL)
    accumulate(state, _pairs(), np.arange(16).reshape(1, 16), precision="bfloat16")
    assert seen == {torch.float32}


def test_best_pcc_without_a_score_is_refused() -> None:
    with pytest.raises(ModelError, match="no validation score"):
        fit(_start(), _pairs(), replace(SMALL, select="best_pcc"), validation=_pairs())
