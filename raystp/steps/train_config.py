"""The config of `train`: what is learned, from whom, and who is held out."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from raystp.config import Config, StepConfig, Where
from raystp.models.bleep_loss import BleepOptions
from raystp.models.fit import FitOptions
from raystp.steps.encoder_source import EncoderConfig
from raystp.steps.panel import PanelConfig
from raystp.steps.slide_run import SlideRun
from raystp.steps.tracked_run import TrackedRun

LEAST = {
    "epochs": 1,
    "lr": 0,
    "weight_decay": 0,
    "contrast": 2,
    "step": 1,
    "seed": 0,
    "patience": 1,
    "dropout": 0,
    "dim": 1,
}
"""The least value of the numbers of `fit` and of `bleep`: with less, no training can be done."""


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


class TrainRun(TrackedRun, SlideRun):
    """How wide to train; nothing here changes the result beyond rounding."""

    workers: int = Field(default=1, ge=1)
    """Training processes."""

    readers: int = Field(default=0, ge=0)
    """With `tiles`: processes that read pixels for each worker, apart from it; 0 reads in threads of the worker."""

    gather: bool = False
    """Spread each contrast set over the workers and gather its embeddings; by default whole sets are dealt to them."""

    use_gpu: bool = False
    """One GPU for each worker."""

    cpus_per_worker: float = Field(default=1.0, gt=0)
    """Logical CPUs that each worker holds."""

    checkpoint_every: int = Field(default=25, ge=1)
    """Epochs between checkpoints."""


class TrainConfig(StepConfig[TrainRun]):
    """Which model to train, on what, and who is held out."""

    where: ClassVar[frozenset[str]] = frozenset({"spots", "embeddings", "tiles"})

    spots: Annotated[str, Where("spots")]
    """The measured spots, `spots/<name>`."""

    embeddings: Annotated[str | None, Where("embed")] = None
    """Cached features, `embed/<name>`: the frozen tower."""

    tiles: Annotated[str | None, Where("tile")] = None
    """Tiles as pixels, `tile/<name>`: the tower `encoder` is trained along, end to end."""

    encoder: EncoderConfig | None = None
    """The tower to train with `tiles`."""

    model: Literal["bleep", "ridge", "knn", "gene_mean"] = "bleep"

    panel: PanelConfig = Field(default_factory=PanelConfig)

    split: SplitConfig

    bleep: BleepOptions = Field(default_factory=BleepOptions)

    fit: FitOptions = Field(default_factory=FitOptions)

    k: int = Field(default=50, ge=1)
    """Neighbours of the `knn` baseline."""

    run: TrainRun = Field(default_factory=TrainRun)

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

    def what(self) -> dict[str, Any]:
        """Return what is computed; paths of weights and panel are left out, their digests are inputs."""
        values = super().what()
        encoder = self.encoder.what() if self.encoder is not None else None
        panel = {key: value for key, value in values["panel"].items() if key != "file"}
        return {**values, "encoder": encoder, "panel": {**panel, "listed": self.panel.file is not None}}
