"""The record that a method is known by, and what its code works on.

The rest of the product reads the record only, so a new method is one folder with such a record and one line in
`raystp.models.methods`. The record imports no torch: its `module` is imported when it is first used.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from raystp.models.arrays import Arrays
from raystp.models.predictor import Predictor
from raystp.models.training.options import FitOptions

Meta = Mapping[str, Any]
"""What a stored model's JSON records: `genes`, `d_image`, `options` and more."""


@runtime_checkable
class Options(Protocol):
    """Options of a method: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True)
class NoOptions:
    """Options of a method that has none."""


@runtime_checkable
class SpotArrays(Protocol):
    """Measured spots of several sections with their tiles' features, stacked."""

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections."""
        ...

    @property
    def group(self) -> Int64[np.ndarray, "spot"]:
        """Index into `sections` of each spot's section."""
        ...

    @property
    def boxes(self) -> Float64[np.ndarray, "spot 3"]:
        """Tiles (x, y, side) in level-0 px."""
        ...

    @property
    def features(self) -> Float32[np.ndarray, "spot feature"]:
        """Image features of each spot's tile."""
        ...

    @property
    def expression(self) -> Float32[np.ndarray, "spot gene"]:
        """log1p of counts per 10,000."""
        ...

    @property
    def totals(self) -> Float64[np.ndarray, "spot"]:
        """Total counts of each spot."""
        ...


def _default_fit(_options: Mapping[str, Any]) -> FitOptions:
    return FitOptions()


@dataclass(frozen=True)
class Method:
    """All that the product needs to know of a method."""

    name: str
    """Value of the config key `model`, and name of the config part with its options."""
    title: str
    """Name for people."""
    options: type[Any]
    """Frozen dataclass of its options."""
    module: str
    """Module with its code: `setup(options, inputs)` for a method trained epoch by epoch, or
    `fit(options, train, seed=)` for one fitted at once; `open_predictor(arrays, meta)` for all."""
    published_fit: Callable[[Mapping[str, Any]], FitOptions] = _default_fit
    """Plain values of its options -> the published training options."""
    cases_fit: FitOptions | None = None
    """Training options for labels of whole cases; None where it cannot learn from such labels."""
    is_trained: bool = True
    """Whether it is trained epoch by epoch; if not, it is fitted at once."""
    is_learned: bool = True
    """Whether its prediction depends on the image; if not, it has no permutation null."""
    needs_index: bool = False
    """Whether it predicts from neighbours in a reference index."""
    needs_gene_text: bool = False
    needs_bags: bool = False
    """Whether it learns from bags of tiles with one label each."""
    compares_samples: bool = False
    """Whether its loss compares the samples of a batch with each other."""
    trains_encoder: bool = False
    """Whether its image encoder can be trained with it, from pixels."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """Config values with which two CPU cores train it on a small cohort in a minute or two."""

    def setup(self, options: Options, inputs: Any) -> Any:
        """Return the `TrainSetup` of a training on spots; see `models.training.setup`."""
        return self._code().setup(options, inputs)

    def setup_bags(self, options: Options, inputs: Any) -> Any:
        """Return the `TrainSetup` of a training on bags; see `models.training.setup`."""
        return self._code().setup_bags(options, inputs)

    def fit(self, options: Options, train: SpotArrays, *, seed: int) -> Arrays:
        """Return the arrays of a method that is fitted at once."""
        fitted: Arrays = self._code().fit(options, train, seed=seed)
        return fitted

    def open_predictor(self, arrays: Arrays, meta: Meta) -> Predictor:
        """Return a stored model, ready to predict."""
        opened: Predictor = self._code().open_predictor(arrays, meta)
        return opened

    def _code(self) -> Any:  # a module, which has no static type
        return importlib.import_module(self.module)
