"""What a training consists of, whichever its labels: sources, learner, the model's record and counts."""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from raystp.artifacts import Artifact
from raystp.cluster.training.workers import Worker
from raystp.errors import ConfigError
from raystp.expression.embeddings.join import input_roles
from raystp.expression.training_set import SpotTable
from raystp.models.arrays import Arrays
from raystp.models.training.options import FitOptions
from raystp.models.training.setup import TrainSetup

Meta = dict[str, Any]
"""A model's record: what its JSON file states."""


@dataclass(frozen=True)
class Sources:
    """The artifacts that a training reads."""

    images: Artifact
    """Embeddings, or tiles for a training from pixels."""
    spots: Artifact | None = None
    """Measured spots; None for labels of whole cases."""
    completed: Artifact | None = None
    """Completed labels of training spots, where the config names any."""

    @property
    def measured(self) -> Artifact:
        """The measured spots; raises ConfigError where there are none."""
        if self.spots is None:
            msg = "this training has no measured spots: set `spots`"
            raise ConfigError(msg)
        return self.spots

    def inputs(self) -> dict[str, Artifact | str]:
        """Return the artifacts by their role, for a fingerprint."""
        named = {"spots": self.spots, **input_roles("images", self.images), "completed": self.completed}
        return {role: one for role, one in named.items() if one is not None}


@runtime_checkable
class Learner(Protocol):
    """Builds a training on a worker; it is sent there, so it holds names and configs."""

    @property
    def kind(self) -> str:
        """Name of the method."""
        ...

    def prepare(self, worker: Worker) -> TrainSetup:
        """Read the data and build the model, alike on every worker."""
        ...


@dataclass(frozen=True)
class TrainPlan:
    """A training, ready to run."""

    learner: Learner
    meta: Meta
    counts: dict[str, int]
    cohort: str
    """Name of what was measured: MLflow's experiment by default."""
    tables: tuple[SpotTable, SpotTable | None] | None = None
    """Training and validation spots, for a method that is fitted at once."""
    made: Arrays | None = None
    """Arrays of a model that is made of finished ones, which is not fitted."""
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """Section -> what was not measured in it."""
    fit: FitOptions | None = None
    """Training options that suit the data; None where those of the config are used."""
