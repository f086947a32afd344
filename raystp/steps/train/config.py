"""The config of `train`: what is learned, from whom, and who is held out."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from raystp.config import Config, Location, StepConfig
from raystp.expression.panel import PanelConfig
from raystp.models.attention.model import AttentionOptions
from raystp.models.bleep.loss import BleepOptions
from raystp.models.genequery.options import GENEQUERY_FIT, GENEQUERY_SPOT_FIT, GeneQueryOptions
from raystp.models.nh2st.options import NH2ST_FIT, Nh2stOptions
from raystp.models.training.fit import FitOptions
from raystp.steps.encoder_source import EncoderConfig
from raystp.steps.run_config import SlideRun, TrackedRun
from raystp.steps.train.bulk_config import BulkConfig
from raystp.steps.train.gene_text import TextConfig

LEAST = {
    "epochs": 1,
    "lr": 0,
    "weight_decay": 0,
    "contrast": 1,
    "step": 1,
    "seed": 0,
    "patience": 1,
    "dropout": 0,
    "dim": 1,
}
"""The least value of the numbers of `fit` and of `bleep`: with less, no training can be done."""


CONTRASTIVE = frozenset({"bleep", "nh2st"})
"""Models whose loss tells samples apart."""

PARTS = {
    "bleep": ("bleep",),
    "genequery": ("genequery", "text"),
    "nh2st": ("nh2st",),
    "attention": ("attention", "bags"),
}
"""Model -> the parts of the config that are its own."""

ATTENTION_FIT = FitOptions(epochs=100, lr=1e-3, weight_decay=1e-2, contrast=4, step=1)
"""Of attention regression: see `AttentionOptions.optimizer` for why it is not the published one."""

BULK_FIT = dataclasses.replace(ATTENTION_FIT, select="best", patience=12)
"""Of the same on labels of whole cases: the epoch is chosen as published."""


def _fit_of(values: dict[str, Any]) -> FitOptions:
    model = values.get("model", "bleep")
    if model == "genequery":
        options = values.get("genequery")
        by_spot = isinstance(options, dict) and options.get("context") == "spot"
        return GENEQUERY_SPOT_FIT if by_spot else GENEQUERY_FIT
    if model == "attention" and values.get("bulk"):
        return BULK_FIT
    return {"nh2st": NH2ST_FIT, "attention": ATTENTION_FIT}.get(str(model), FitOptions())


class SplitConfig(Config):
    """Who is learned from and who is held out."""

    protocol: str = "patient"
    """`patient` holds out whole patients; `section` holds out sections, whose patients may be trained on."""

    test: list[str] = Field(min_length=1)
    """Held out: sections, or patients, which stand for all their sections."""

    validation: list[str] = Field(default_factory=list)
    """Sections or patients of the training side that pick the epoch instead of being learned from."""

    train: list[str] | None = None
    """Sections or patients to learn from; by default all the rest."""

    validation_block: float = Field(default=0.0, ge=0, lt=1)
    """Instead of `validation`: the share of each training section's spots, one spatial block, that validates."""


class BagConfig(Config):
    """Bags of tiles for weak labels: a section's pooled counts, or those of compact parts of it."""

    parts: int = Field(default=1, ge=1)
    """Parts that each section is cut into; more of them are more labels, each of less tissue."""

    tiles: int | None = Field(default=None, ge=1)
    """The most tiles of a bag in one epoch, drawn anew each time; all by default."""


class TrainRun(TrackedRun, SlideRun):
    """How wide to train; nothing here changes the result beyond rounding."""

    workers: int = Field(default=1, ge=1)
    """Training processes."""

    readers: int = Field(default=0, ge=0)
    """With `tiles`: processes that read pixels for each worker, apart from it; 0 reads in threads of the worker."""

    gather: bool = False
    """Spread each contrast set over the workers and gather its embeddings; by default whole sets are dealt to them."""

    memory_gb: float = Field(default=8.0, ge=0)
    """With `bulk`: gigabytes of features that each worker keeps; what does not fit is read again in every epoch."""

    use_gpu: bool = False
    """One GPU for each worker."""

    cpus_per_worker: float = Field(default=1.0, gt=0)
    """Logical CPUs that each worker holds."""

    checkpoint_every: int = Field(default=25, ge=1)
    """Epochs between checkpoints."""


class TrainConfig(StepConfig[TrainRun]):
    """Which model to train, on what, and who is held out."""

    where: ClassVar[frozenset[str]] = frozenset({"spots", "embeddings", "tiles"})

    spots: Annotated[str | None, Location("spots")] = None
    """The measured spots, `spots/<name>`; without them, `bulk`."""

    bulk: BulkConfig | None = None
    """For `attention`, instead of `spots`: a table of whole cases' expression. A bag is all tiles of a case's slides;
    `split` names cases or patients."""

    embeddings: Annotated[str | None, Location("embed")] = None
    """Cached features, `embed/<name>`: the frozen tower."""

    tiles: Annotated[str | None, Location("tile")] = None
    """Tiles as pixels, `tile/<name>`: the tower `encoder` is trained along, end to end."""

    encoder: EncoderConfig | None = None
    """The tower to train with `tiles`."""

    model: Literal["bleep", "genequery", "nh2st", "attention", "ridge", "knn", "gene_mean"] = "bleep"

    panel: PanelConfig = Field(default_factory=PanelConfig)

    split: SplitConfig

    bleep: BleepOptions = Field(default_factory=BleepOptions)

    genequery: GeneQueryOptions = Field(default_factory=GeneQueryOptions)
    """What changes GeneQuery's result."""

    text: TextConfig = Field(default_factory=TextConfig)
    """For `genequery`: what is said of each gene."""

    nh2st: Nh2stOptions = Field(default_factory=Nh2stOptions)
    """What changes NH2ST's result."""

    attention: AttentionOptions = Field(default_factory=AttentionOptions)
    """What changes attention regression's result."""

    bags: BagConfig = Field(default_factory=BagConfig)
    """For `attention`: what one label is of."""

    fit: FitOptions = Field(default_factory=FitOptions)
    """By default as the model was published to be trained (`attention`: 100 epochs of SGD at 1e-3)."""

    k: int = Field(default=50, ge=1)
    """Neighbours of the `knn` baseline."""

    run: TrainRun = Field(default_factory=TrainRun)

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        """Fill in how the model was published to be trained, under what is given."""
        if not isinstance(values, dict) or not isinstance(values.get("fit", {}), dict | None):
            return values
        given, published = values.get("fit") or {}, _fit_of(values)
        split = values.get("split")
        validated = isinstance(split, dict) and (split.get("validation") or split.get("validation_block"))
        if not validated:
            published = dataclasses.replace(published, select="last", patience=None)
        return {**values, "fit": {**dataclasses.asdict(published), **given}}

    @model_validator(mode="after")
    def _tells_apart(self) -> "TrainConfig":
        if self.model in CONTRASTIVE and self.fit.contrast < 2:  # noqa: PLR2004 -- a pair alone has nothing to be told apart from
            msg = f"fit: contrast must be finite and at least 2, got {self.fit.contrast}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _labelled(self) -> "TrainConfig":
        """Refuse labels of two kinds or none, and what labels of whole cases do not go with."""
        if (self.spots is None) == (self.bulk is None):
            seen = "neither is given" if self.spots is None else "both are given"
            msg = f"`spots` (measured spots) or `bulk` (a table of whole cases) is learned from, one of them: {seen}"
            raise ValueError(msg)
        if self.bulk is None:
            return self
        wrong = {
            f"model '{self.model}' needs measured spots; `attention` learns from whole cases": self.model
            != "attention",
            "split.validation_block is a share of measured spots; name cases in split.validation": (
                self.split.validation_block > 0
            ),
            "bags.parts cuts measured sections; with `bulk` a bag is a whole case": self.bags.parts > 1,
        }
        if said := [sentence for sentence, is_so in wrong.items() if is_so]:
            raise ValueError("; ".join(said))
        return self

    @field_validator("fit", "bleep")
    @classmethod
    def _possible(cls, options: FitOptions | BleepOptions) -> FitOptions | BleepOptions:
        """Refuse, before any work, numbers that no training can be done with."""
        values = dataclasses.asdict(options)
        wrong = [
            f"{name} must be finite and at least {least}"
            for name, least in LEAST.items()
            if values.get(name) is not None and not least <= values[name] < math.inf
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return options

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed; paths of weights and panel are left out, their digests are inputs."""
        values = super().fingerprint_values()
        encoder = self.encoder.fingerprint_values() if self.encoder is not None else None
        panel = {key: value for key, value in values["panel"].items() if key != "file"}
        values |= {"encoder": encoder, "panel": {**panel, "listed": self.panel.file is not None}}
        values |= {"bulk": self.bulk.fingerprint_values() if self.bulk is not None else {}}
        if self.model == "genequery":
            values["text"] = self.text.fingerprint_values()
        foreign = {part for model, parts in PARTS.items() for part in parts} - {"bleep"}
        foreign -= set(PARTS.get(self.model, ()))
        foreign |= set() if self.bulk is not None else {"bulk"}
        return {key: value for key, value in values.items() if key not in foreign}
