"""SpaCKLE: a Transformer over a spot and its neighbours that predicts hidden values of the spot.

Method: Mejia et al. 2024, arXiv 2407.13027, and SpaRED, arXiv 2505.02980; written from a description. Four faults of
the released code are not here:

- its encoder is sequence-first and gets batches first, so a spot attends to other samples of the batch, never to its
  neighbours; here it attends to its neighbours;
- its neighbours mix slides; here they are of the spot's own section;
- it trains on medians at missing entries and is used on zeros; here both are zeros of centred values;
- its loss is mostly on visible entries; here it is on the centre's hidden real entries alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.arrays import Arrays
from raystp.models.completion.options import SpackleOptions
from raystp.models.completion.values import (
    SectionValues,
    check_counted,
    keep_real,
    mask_rates,
    mean_of_real,
    nearest_spots,
    real_share,
)

_BATCH = 1024
"""Spots completed at a time: limits the memory and does not change the result."""


class Spackle(nn.Module):
    """`Linear`, Transformer over the tokens (a spot, then its neighbours), `Linear`; no position code, no mask."""

    def __init__(self, genes: int, options: SpackleOptions) -> None:
        super().__init__()
        if genes % options.heads:
            msg = f"spackle.heads {options.heads} does not divide {genes} genes: set a divisor"
            raise ModelError(msg)
        layer = nn.TransformerEncoderLayer(
            genes, options.heads, options.feedforward, options.dropout, activation="relu", batch_first=True
        )
        self.enter = nn.Linear(genes, genes)
        self.encode = nn.TransformerEncoder(layer, options.layers, enable_nested_tensor=False)
        self.leave = nn.Linear(genes, genes)

    def forward(self, tokens: Float[Tensor, "sample token gene"]) -> Float[Tensor, "sample gene"]:
        """Return the predicted values of the first token, centred as the input is."""
        out: Tensor = self.leave(self.encode(self.enter(tokens))[:, 0])
        return out


@dataclass(frozen=True)
class SpackleCompletion:
    """A trained model, ready to complete sections."""

    model: Spackle
    mean: Float64[np.ndarray, "gene"]
    """Mean of each gene's real entries over the training sections."""
    neighbours: int

    def complete(self, section: SectionValues) -> Float32[np.ndarray, "spot gene"]:
        """Return the section with each missing entry predicted; it depends on this section alone."""
        centred = _centred(section, section.real, self.mean)
        near = torch.from_numpy(nearest_spots(section.xy, self.neighbours))
        self.model.eval()
        with torch.no_grad():
            parts = [self.model(centred[near[start : start + _BATCH]]) for start in range(0, len(near), _BATCH)]
        predicted = torch.cat(parts).numpy().astype(np.float64) + self.mean
        return keep_real(section, predicted.astype(np.float32))

    def arrays(self) -> Arrays:
        """Return what `open_spackle` needs."""
        weights = {name: value.detach().numpy() for name, value in self.model.state_dict().items()}
        return {**weights, "mean_of_real": self.mean}


def open_spackle(arrays: Arrays, options: SpackleOptions) -> SpackleCompletion:
    """Return a stored model, ready to complete sections; raises ModelError for arrays of another shape."""
    mean = np.asarray(arrays["mean_of_real"], np.float64)
    model = Spackle(len(mean), options)
    try:
        model.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items() if name != "mean_of_real"})
    except RuntimeError as error:
        msg = f"the stored arrays are not those of SpaCKLE with these options: {error}"
        raise ModelError(msg) from None
    return SpackleCompletion(model, mean, options.neighbours)


def fit_spackle(
    sections: list[SectionValues], options: SpackleOptions, validation: list[SectionValues] | None = None
) -> tuple[SpackleCompletion, list[dict[str, float]]]:
    """Train on sections; return the model and the errors by step.

    With validation sections the step of the lowest squared error on their hidden entries is kept, under one mask drawn
    once; without them the last step is kept. Depends on the seed alone. Raises ModelError for a gene without a count.
    """
    share = real_share(sections)
    check_counted(share)
    mean, rates = mean_of_real(sections), mask_rates(share)
    generator = torch.Generator().manual_seed(options.seed)
    samples = _Samples.of(sections, mean, options.neighbours)
    held = _HeldOut.of(_Samples.of(validation, mean, options.neighbours), rates, generator) if validation else None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(options.seed)
        model = Spackle(sections[0].values.shape[1], options)
        optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
        history: list[dict[str, float]] = []
        best: tuple[float, dict[str, Tensor]] | None = None
        for step in range(1, options.steps + 1):
            batch = torch.randperm(len(samples.near), generator=generator)[: options.batch_size]
            row = {"step": float(step), "train_mse": _step(model, optimizer, samples.tokens(batch, rates, generator))}
            if step % options.check_every and step != options.steps:
                continue
            if held is not None:
                row["validation_mse"] = held.error(model)
                if best is None or row["validation_mse"] < best[0]:
                    best = row["validation_mse"], {n: v.detach().clone() for n, v in model.state_dict().items()}
            history.append(row)
    if best is not None:
        model.load_state_dict(best[1])
    return SpackleCompletion(model.eval(), mean, options.neighbours), history


@dataclass(frozen=True)
class _Samples:
    """The spots of several sections, stacked; neighbours are rows of the spot's own section."""

    centred: Float[Tensor, "spot gene"]
    real: Bool[Tensor, "spot gene"]
    near: Int64[Tensor, "spot token"]

    @classmethod
    def of(cls, sections: list[SectionValues], mean: Float64[np.ndarray, "gene"], neighbours: int) -> "_Samples":
        first = np.cumsum([0, *(len(section.values) for section in sections[:-1])])
        near = [nearest_spots(one.xy, neighbours) + start for one, start in zip(sections, first.tolist(), strict=True)]
        return cls(
            torch.cat([_centred(section, section.real, mean) for section in sections]),
            torch.from_numpy(np.concatenate([section.real for section in sections])),
            torch.from_numpy(np.concatenate(near)),
        )

    def tokens(
        self, rows: Int64[Tensor, "sample"], rates: Float64[np.ndarray, "gene"], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens with a new random mask, and the centres' truth and hidden entries."""
        near = self.near[rows]
        hidden = _hide(self.real[near], rates, generator)
        return self.centred[near].masked_fill(hidden, 0.0), self.centred[rows], hidden[:, 0]


@dataclass(frozen=True)
class _HeldOut:
    """Validation spots under one mask."""

    samples: _Samples
    hidden: Bool[Tensor, "spot gene"]

    @classmethod
    def of(cls, samples: _Samples, rates: Float64[np.ndarray, "gene"], generator: torch.Generator) -> "_HeldOut":
        return cls(samples, _hide(samples.real, rates, generator))

    def error(self, model: Spackle) -> float:
        """Return the mean squared error on the hidden entries of all spots."""
        centred, near = self.samples.centred, self.samples.near
        visible, total = centred.masked_fill(self.hidden, 0.0), 0.0
        model.eval()
        with torch.no_grad():
            for start in range(0, len(near), _BATCH):
                part = slice(start, start + _BATCH)
                errors = (model(visible[near[part]]) - centred[part]).square()
                total += float(errors[self.hidden[part]].sum())
        return total / max(1, int(self.hidden.sum()))


def _centred(
    section: SectionValues, visible: Bool[np.ndarray, "spot gene"], mean: Float64[np.ndarray, "gene"]
) -> Float[Tensor, "spot gene"]:
    return torch.from_numpy(np.where(visible, section.values - mean, 0.0).astype(np.float32))


def _hide(
    real: Bool[Tensor, "... gene"], rates: Float64[np.ndarray, "gene"], generator: torch.Generator
) -> Bool[Tensor, "... gene"]:
    """Return which real entries a random mask hides."""
    return real & (torch.rand(real.shape, generator=generator) < torch.from_numpy(rates.astype(np.float32)))


def _step(model: Spackle, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Take one step on (tokens, truth, hidden) of some spots; return the error on the hidden entries."""
    tokens, truth, hidden = batch
    optimizer.zero_grad(set_to_none=True)
    errors = functional.mse_loss(model.train()(tokens), truth, reduction="none")[hidden]
    error = errors.sum() / max(1, len(errors))  # a small batch may hide nothing
    torch.autograd.backward(error)
    optimizer.step()
    return float(error.detach())
