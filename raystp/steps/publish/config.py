"""Configuration of `raystp publish`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from raystp.config import Location, StepConfig
from raystp.errors import ConfigError
from raystp.steps.run_config import TrackedRun

if TYPE_CHECKING:
    import raystp.cluster.tracking.outbox

NOT_STATED = "not stated"


class PublishConfig(StepConfig[TrackedRun]):
    """The model to publish, where to, and what its card says beside what is known of it."""

    command: ClassVar[str | None] = "publish"
    positional: ClassVar[str | None] = "model"

    name: str = Field(default="default", pattern=r"^[A-Za-z0-9._-]{1,48}$")
    """Name of the published model. The default is the model's own."""

    model: Annotated[str, Location("train")]
    """The model, `train/<name>`."""

    index: Annotated[str | None, Location("index")] = None
    """The reference index of a contrastive model, `index/<name>`. It is published with measured expression of its
    spots; approximate search is left out, so that every row is compared."""

    out: Annotated[str, Location()]
    """The folder or URI to write. It must be new, empty, or hold the same published model."""

    scores: Annotated[str | None, Location("evaluate")] = None
    """An evaluation of this model, `evaluate/<name>`, whose mean scores the card states."""

    licence: str = Field(default=NOT_STATED, min_length=1, max_length=200)
    """Licence of the model, for example `CC-BY-4.0`. The encoder's own licence is stated beside it."""

    description: str = Field(default="", max_length=10_000)
    """Free text: training data, intended use and limits."""

    register_as: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Also register the folder as a version of this model in MLflow, which `mlflow.pyfunc.load_model` opens. The
    server is `run.tracking`; a folder that is registered already stays one version."""

    run: TrackedRun = Field(default_factory=TrackedRun)

    def registry(self, inputs: Mapping[str, str]) -> "raystp.cluster.tracking.outbox.Tracker":
        """Return where the model is registered; `inputs` are the model's, whose spots name the experiment.

        Raises ConfigError where nothing is tracked.
        """
        data = inputs.get("spots", inputs.get("images", "")).partition("/")[2]
        tracker = self.run.tracker(data.rpartition("-")[0] or self.name)
        if tracker.uri is None:
            msg = "register_as needs MLflow, and run.tracking is `none`: set it to MLflow's URI, or remove register_as"
            raise ConfigError(msg)
        return tracker
