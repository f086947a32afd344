"""Configuration of `raystp demo`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from raystp.config import Location, RunConfig, StepConfig
from raystp.models.baselines.method import GENE_MEAN, KNN, RIDGE
from raystp.models.methods import DEFAULT

CELL = 16
"""Side in level-0 px of the cells of a slide's tissue map; it divides the slide's side."""

BASELINES = [RIDGE.name, KNN.name, GENE_MEAN.name]
"""Those that are fitted in a second; their permutation nulls take a few."""


class DemoRun(RunConfig):
    """Where the demo writes its cohort and artifacts."""

    store: Annotated[str, Location()] = "demo"
    """Store of the demo; a separate folder, which can be deleted."""


class DemoConfig(StepConfig[DemoRun]):
    """Which cohort to draw, and what to train on it."""

    command: ClassVar[str | None] = "demo"

    RENAMED: ClassVar[Mapping[str, str]] = {"contrast": "batch_size"}

    name: str = Field(default="demo", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    """Prefix of the names of the cohort and its artifacts."""

    patients: int = Field(default=4, ge=3, le=26)
    """Measured patients: the last tests, the one before validates, the others train."""

    pixels: int = Field(default=4096, ge=1024, multiple_of=CELL)
    """Side of each slide in level-0 pixels, at 0.5 um/px."""

    methods: list[str] = Field(default_factory=lambda: [DEFAULT, *BASELINES], min_length=1)
    """Methods to train; the report is about the first. Methods are listed in `raystp.models.methods`."""

    epochs: int = Field(default=100, ge=1)
    """Epochs of BLEEP; the best on the validation patient is kept."""

    batch_size: int = Field(default=128, ge=2)
    """Samples per contrastive batch of BLEEP."""

    neighbours: int = Field(default=50, ge=1)
    """Neighbours that BLEEP and kNN average."""

    permutations: int = Field(default=20, ge=0)
    """Permutations of each model's permutation null."""

    seed: int = 0

    run: DemoRun = Field(default_factory=DemoRun)
