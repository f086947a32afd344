"""The contrastive loss in blocks: the value and the gradient of the whole, in a block's memory."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from raystp.models.contrastive import loss as loss_module
from raystp.models.contrastive import loss_blocks as loss_blocks_module
from raystp.models.contrastive.loss import contrastive_loss
from raystp.models.contrastive.loss_blocks import Terms, log_columns, summed_loss
from raystp.models.contrastive.options import ContrastiveOptions

OPTIONS = {
    "smoothed": ContrastiveOptions(),
    "multiplied": ContrastiveOptions(temperature=0.5, target_scale="mul"),
    "normalised": ContrastiveOptions(temperature=0.07, normalize_embeddings=True),
    "detached": ContrastiveOptions(detach_target=True),
    "identity": ContrastiveOptions(target="identity"),
    "input": ContrastiveOptions(target="input"),
}


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def _blocks(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(loss_blocks_module, "BLOCK", entries)
    monkeypatch.setattr(loss_module, "BLOCK", entries)


def _with_gradients(options: ContrastiveOptions, rows: int = 11) -> list[Tensor]:
    images, spots, inputs = _random(rows, 4), _random(rows, 4) + 0.5, (_random(rows, 6), _random(rows, 5))
    used = (images, spots, *inputs) if options.target == "input" else (images, spots)
    loss = contrastive_loss(images, spots, options, inputs)
    return [loss, *torch.autograd.grad(loss, used)]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("entries", [1, 33, 10_000])
def test_blocks_have_the_loss_and_the_gradient_of_the_whole(
    name: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _with_gradients(OPTIONS[name])
    _blocks(monkeypatch, entries)
    monkeypatch.setattr(loss_module, "BLOCK", 0)
    torch.testing.assert_close(_with_gradients(OPTIONS[name]), whole, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("sides", [0, 2])
def test_gradient_equals_finite_differences(sides: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _blocks(monkeypatch, 14)  # blocks of two of the five own rows, seven columns
    spots, images, columns = _random(5, 3), _random(7, 3), _random(7)
    similar = [side for _ in range(sides) for side in (_random(5, 2), _random(7, 2))]
    terms = Terms(temperature=0.7, scale=1.3, first=2, detached=False)
    assert torch.autograd.gradcheck(lambda a, b: log_columns(a, b, 0.7), (spots, images))
    assert torch.autograd.gradcheck(
        lambda a, b, c, *rest: summed_loss(a, b, c, rest, terms=terms), (spots, images, columns, *similar)
    )


def test_loss_of_half_precision_embeddings_is_computed_in_float32() -> None:
    images, spots = (_random(6, 4).to(torch.bfloat16) for _ in range(2))
    for options in (ContrastiveOptions(), replace(ContrastiveOptions(), normalize_embeddings=True)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = contrastive_loss(images, spots, options)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, contrastive_loss(images.float(), spots.float(), options))


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    """Records the size of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.entries = max(self.entries, made.untyped_storage().nbytes() // made.element_size())
        return made


def test_no_matrix_of_all_rows_by_all_rows_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    images, spots = (torch.randn(256, 4, requires_grad=True) for _ in range(2))
    largest = {}
    for entries in (256 * 256, 256 * 8):
        _blocks(monkeypatch, entries)
        with _Largest() as largest_tensor:  # type: ignore[no-untyped-call]  # its __init__ has no types
            torch.autograd.backward(contrastive_loss(images, spots, ContrastiveOptions()))
        largest[entries] = largest_tensor.entries
    assert largest[256 * 256] == 256 * 256
    assert largest[256 * 8] == 3 * 256 * 8  # the three buffers
