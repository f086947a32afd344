"""The plan of an epoch, and how it is divided among ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raystp.errors import ModelError
from raystp.models.training.plan import RankLayout, check_workers, epoch_plan, rank_rows, validation_batches


def _gather(rows: Tensor) -> Tensor:
    return rows


@settings(deadline=None)  # seconds of a busy machine are not what is tested
@given(rows=st.integers(24, 200), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_plan_has_each_row_at_most_once_and_fills_whole_steps(rows: int, seed: int, epoch: int) -> None:
    plan = epoch_plan(rows, batch_size=6, accumulate_batches=4, seed=seed, epoch=epoch)
    assert plan.shape == (rows // 24, 4, 6)
    assert len(np.unique(plan)) == plan.size
    assert plan.min() >= 0
    assert plan.max() < rows


def test_plan_differs_between_epochs_and_is_reproducible() -> None:
    plans = [epoch_plan(100, batch_size=5, accumulate_batches=4, seed=0, epoch=epoch) for epoch in (0, 0, 1)]
    assert np.array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])


def test_too_few_samples_are_refused_with_sizes_that_fit() -> None:
    with pytest.raises(ModelError) as raised:
        epoch_plan(367, batch_size=128, accumulate_batches=4, seed=0, epoch=0)
    assert str(raised.value) == (
        "one optimiser step of 4 batches of 128 needs 512 training samples, got 367; set "
        "batch_size 91 with accumulate_batches 4 or accumulate_batches 2 with batch_size 128"
    )
    assert epoch_plan(367, batch_size=91, accumulate_batches=4, seed=0, epoch=0).shape == (1, 4, 91)
    assert epoch_plan(367, batch_size=128, accumulate_batches=2, seed=0, epoch=0).shape == (1, 2, 128)
    with pytest.raises(ModelError, match="add measured spots"):
        epoch_plan(3, batch_size=128, accumulate_batches=4, seed=0, epoch=0)


@pytest.mark.parametrize("gather", [None, _gather])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_divide_the_batches_of_one_process(world: int, gather: None) -> None:
    batches = epoch_plan(48, batch_size=12, accumulate_batches=4, seed=0, epoch=0)[0]
    parts = [rank_rows(batches, RankLayout(rank, world, gather)) for rank in range(world)]
    for number, rows in enumerate(batches):
        assert np.array_equal(rows, np.concatenate([part[number] for part in parts if number in part]))


def test_unfit_number_of_workers_is_refused_with_the_numbers_that_fit() -> None:
    with pytest.raises(ModelError, match=r"3 workers cannot share 4 batches .* set run.workers to one of 1, 2, 4"):
        check_workers(128, 4, RankLayout(world=3))
    with pytest.raises(ModelError, match=r"3 workers cannot share 128 samples of a batch"):
        check_workers(128, 3, RankLayout(world=3, gather=_gather))
    check_workers(128, 3, RankLayout(world=3))
    check_workers(12, 4, RankLayout(world=3, gather=_gather))


def test_validation_batches_are_whole_batches_or_one_smaller_batch() -> None:
    assert validation_batches(300, batch_size=128, seed=0).shape == (2, 128)
    assert sorted(validation_batches(50, batch_size=128, seed=0)[0].tolist()) == list(range(50))
    with pytest.raises(ModelError, match="got 1"):
        validation_batches(1, batch_size=128, seed=0)
