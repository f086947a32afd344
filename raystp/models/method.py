"""The record of a method: all that the rest of the product uses of it.

A new method is one folder with such a record and one line in `raystp.models.methods`. The record imports no torch: its
`module` is imported when it is first used.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, Protocol, TypedDict, runtime_checkable

from raystp.models.arrays import Arrays, SpotArrays
from raystp.models.predictor import Predictor, Retriever
from raystp.models.training.options import FitOptions

if TYPE_CHECKING:
    import raystp.models.training.setup


@runtime_checkable
class Options(Protocol):
    """Options of a method: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True)
class NoOptions:
    """Options of a method that has none."""


class ModelMeta(TypedDict):
    """What a method reads of a stored model's JSON file. The file has more keys, which the steps read."""

    genes: list[str]
    """In the order of the outputs."""
    d_image: int
    """Length of the image features."""
    options: NotRequired[dict[str, Any]]
    """Fields of the method's options."""
    seen: NotRequired[list[str]]
    """With gene texts: the genes of the training."""
    unseen: NotRequired[list[str]]
    """With gene texts: the genes held back from training."""
    text_encoder: NotRequired[dict[str, object]]
    """Name and settings of the encoder of the gene texts."""
    tile: NotRequired[dict[str, float]]
    """`side` of the tiles in um, and `pixels`."""
    bulk: NotRequired[dict[str, object]]
    """Of a model that was trained on labels of whole cases: the scale of these."""
    members: NotRequired[list[dict[str, Any]]]
    """Of an ensemble: `kind` and `meta` of each member, and the ranges [first, end) of its `columns`."""


def _no_reason(_options: Mapping[str, object]) -> str:
    return ""


def _no_tokens(_options: Any) -> int:
    return 0


def _default_fit(_options: Mapping[str, object]) -> FitOptions:
    return FitOptions()


@dataclass(frozen=True)
class BagBatch:
    """The largest batch of bags that a training meets."""

    tiles: int
    """Of all its bags, padded to the longest."""
    bags: int
    genes: int


@dataclass(frozen=True)
class CasesTraining:
    """How a method learns from labels of whole cases."""

    fit: Callable[[Mapping[str, object]], FitOptions]
    """Plain values of its options -> the default training options."""
    options: type[Any] | None = None
    """Frozen dataclass of its options; None for those that it has on spots."""
    bag_tiles: int | None = None
    """Default of the config's `bag_tiles`."""
    gene_bytes: Callable[[Any, BagBatch], int] | None = None
    """Options and batch -> bytes that values of every gene at every tile take; None where it has no such values."""
    smaller: str = ""
    """What to change in a config where these are too many."""


@dataclass(frozen=True)
class Method:
    """All that the rest of the product uses of a method."""

    name: str
    """Value of the config key `model`, and name of the config part with its options."""
    title: str
    """Name in reports and messages."""
    options: type[Any]
    """Frozen dataclass of its options."""
    module: str
    """Module with its code: `setup(options, inputs)` for a method trained epoch by epoch, or
    `fit(options, train, seed=)` for one fitted at once; `open_predictor(arrays, meta)` for all."""
    published_fit: Callable[[Mapping[str, object]], FitOptions] = _default_fit
    """Plain values of its options -> the published training options."""
    unvalidated_epochs: int | None = None
    """Epochs of a training on spots without a validation side, where the published number needs one to stop early."""
    on_cases: CasesTraining | None = None
    """How it learns from labels of whole cases; None where it cannot learn from such labels."""
    is_trained: bool = True
    """Whether it is trained epoch by epoch; if not, it is fitted at once."""
    is_learned: bool = True
    """Whether its prediction depends on the image; if not, it has no permutation null."""
    combines_models: bool = False
    """Whether it is made of finished models, without a training of its own."""
    needs_index: bool = False
    """Whether it predicts from neighbours in a reference index."""
    keeps_expression: bool = False
    """Whether measured expression of the training spots is in its arrays, or can be computed from them."""
    needs_gene_text: bool = False
    needs_bags: bool = False
    """Whether it learns from bags of tiles with one label each."""
    tokens: Callable[[Any], int] = _no_tokens
    """Its options -> the number of spatial tokens of each tile that it reads instead of a vector; 0 for a vector."""
    compares_samples: bool = False
    """Whether its loss compares the samples of a batch with each other."""
    feature_inputs: tuple[int, ...] = ()
    """Which arguments of its model's `forward` are image features, as their last axis: in their place, an image encoder
    that is trained with the model computes them. Empty where an encoder cannot be."""
    why_frozen: Callable[[Mapping[str, object]], str] = _no_reason
    """Plain values of its options -> why these need cached features; empty where an encoder can be trained with it."""
    packages: tuple[str, ...] = ()
    """Packages whose version can change its numbers: a model's record states them."""
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Alternatives that `fit.select: cv` compares by default, in the form of the config field `choose`: the method's
    own values first."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """Config values with which two CPU cores train it on a small cohort in a minute or two."""

    def options_on(self, targets: str) -> type[Any]:
        """Return the class of its options for labels of `spots` or `cases`."""
        own = self.on_cases.options if targets == "cases" and self.on_cases is not None else None
        return own or self.options

    def setup(
        self, options: Options, inputs: "raystp.models.training.setup.SpotInputs"
    ) -> "raystp.models.training.setup.TrainSetup":
        """Return the model and the samples of a training on spots."""
        setup: raystp.models.training.setup.TrainSetup = self._code().setup(options, inputs)
        return setup

    def setup_bags(
        self, options: Options, inputs: "raystp.models.training.setup.BagInputs"
    ) -> "raystp.models.training.setup.TrainSetup":
        """Return the model and the samples of a training on bags."""
        setup: raystp.models.training.setup.TrainSetup = self._code().setup_bags(options, inputs)
        return setup

    def frozen_reason(self, options: Mapping[str, object]) -> str:
        """Return why no image encoder can be trained with it and these options (plain values); empty where one can."""
        if not self.is_trained:
            return "it is fitted at once, not by steps that an encoder could follow"
        if not self.feature_inputs:
            return "its record does not state where its model reads features (feature_inputs)"
        return self.why_frozen(options)

    def fit(self, options: Options, train: SpotArrays, *, seed: int) -> Arrays:
        """Return the arrays of a method that is fitted at once."""
        fitted: Arrays = self._code().fit(options, train, seed=seed)
        return fitted

    def open_predictor(self, arrays: Arrays, meta: ModelMeta, *, retriever: Retriever | None = None) -> Predictor:
        """Return a stored model, ready to predict; only a method that combines models reads `retriever`."""
        code = self._code()
        opened: Predictor = code.open_predictor(arrays, meta, *([retriever] if self.combines_models else []))
        return opened

    def _code(self) -> ModuleType:
        return importlib.import_module(self.module)
