"""The completion methods, by name: how each is fitted, and opened from its stored arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from raystp.models.arrays import Arrays
from raystp.models.completion.linear import fit_linear, open_linear
from raystp.models.completion.median import MedianCompletion
from raystp.models.completion.options import LinearOptions, MedianOptions, SpackleOptions
from raystp.models.completion.spackle import fit_spackle, open_spackle
from raystp.models.completion.values import SectionValues

History = list[dict[str, float]]
"""Rows of `tables.COMPLETION_STEPS`: the errors by step, for a method that is trained in steps."""


@runtime_checkable
class Completion(Protocol):
    """A fitted completion."""

    def complete(self, section: SectionValues) -> Float32[np.ndarray, "spot gene"]:
        """Return the section with each missing entry replaced; it depends on this section alone."""
        ...

    def arrays(self) -> Arrays:
        """Return what the method's `open` needs."""
        ...


Fit = Callable[[list[SectionValues], Any, list[SectionValues]], tuple[Completion, History]]
"""Fit on training sections with the options; the validation sections, which may be none, choose the step."""


@dataclass(frozen=True)
class CompletionMethod:
    """How a completion is fitted and opened."""

    fit: Fit
    open: Callable[[Arrays, Any], Completion]
    options: type


def _fit_median(
    _: list[SectionValues], options: MedianOptions, __: list[SectionValues]
) -> tuple[MedianCompletion, History]:
    return MedianCompletion(options), []


def _fit_linear(
    sections: list[SectionValues], options: LinearOptions, _: list[SectionValues]
) -> tuple[Completion, History]:
    return fit_linear(sections, options), []


COMPLETIONS: dict[str, CompletionMethod] = {
    "median": CompletionMethod(_fit_median, lambda _, options: MedianCompletion(options), MedianOptions),
    "linear": CompletionMethod(_fit_linear, open_linear, LinearOptions),
    "spackle": CompletionMethod(fit_spackle, open_spackle, SpackleOptions),
}
