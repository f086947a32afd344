"""Errors of completions on entries that were counted and are hidden from them.

The only entries whose truth is known are real ones. A random part of a section's real entries is set to 0, the section
is completed, and the completed values are compared with what was hidden.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64

from raystp.models.arrays import Arrays
from raystp.models.completion.methods import Completion
from raystp.models.completion.values import SectionValues, keep_real

FEWEST = 3
"""Fewest hidden entries of a gene for a correlation."""


@dataclass(frozen=True)
class HiddenErrors:
    """Errors of one completion on the hidden entries of one section."""

    section: str
    method: str
    mse: float
    mae: float
    pcc: float | None
    """Mean over genes of the correlation over a gene's hidden entries; None where no gene has one."""
    entries: int
    """Number of hidden entries."""

    def row(self) -> dict[str, object]:
        """Return a row of `tables.COMPLETION_ERRORS`."""
        return asdict(self)


@dataclass(frozen=True)
class GeneMeanCompletion:
    """The control: a gene's mean over the section's visible entries, 0 without any."""

    def complete(self, section: SectionValues) -> Float32[np.ndarray, "spot gene"]:
        """Return the section with each missing entry replaced."""
        total = np.where(section.real, section.values, 0).sum(axis=0, dtype=np.float64)
        mean = total / np.maximum(section.real.sum(axis=0), 1)
        return keep_real(section, np.broadcast_to(mean.astype(np.float32), section.values.shape))

    def arrays(self) -> Arrays:
        """Return no arrays."""
        return {}


def errors_on_hidden(
    name: str,
    section: SectionValues,
    rates: Float64[np.ndarray, "gene"],
    completions: Mapping[str, Completion],
    *,
    rng: np.random.Generator,
) -> list[HiddenErrors]:
    """Return the errors of each completion, all under the same mask; nothing where no entry was hidden."""
    hidden = section.real & (rng.random(section.values.shape) < rates)
    if not hidden.any():
        return []
    masked = replace(section, values=np.where(hidden, np.float32(0), section.values))
    truth = section.values
    return [
        _errors(name, method, completed=one.complete(masked), truth=truth, hidden=hidden)
        for method, one in completions.items()
    ]


def _errors(
    name: str,
    method: str,
    *,
    completed: Float32[np.ndarray, "spot gene"],
    truth: Float32[np.ndarray, "spot gene"],
    hidden: Bool[np.ndarray, "spot gene"],
) -> HiddenErrors:
    error = completed[hidden].astype(np.float64) - truth[hidden]
    found = [_pcc(completed[rows, gene], truth[rows, gene]) for gene, rows in enumerate(hidden.T)]
    known = [one for one in found if one is not None]
    pcc = float(np.mean(known)) if known else None
    return HiddenErrors(name, method, float(np.square(error).mean()), float(np.abs(error).mean()), pcc, len(error))


def _pcc(completed: Float32[np.ndarray, "entry"], truth: Float32[np.ndarray, "entry"]) -> float | None:
    """Return the correlation, or None for few entries or a constant side."""
    if len(truth) < FEWEST or np.ptp(truth) == 0 or np.ptp(completed) == 0:
        return None
    return float(np.corrcoef(completed.astype(np.float64), truth)[0, 1])
