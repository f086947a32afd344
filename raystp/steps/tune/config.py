"""Configuration of `raystp tune`: a train config, and the fields to vary in it."""

import copy
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from raystp.cluster.training.distributions import DISTRIBUTIONS
from raystp.config import Config, StepConfig, read_yaml, relative_paths, set_field
from raystp.config_fields.values import ValuesOf
from raystp.errors import ConfigError
from raystp.steps.run_config import TrackedRun
from raystp.steps.train.choice.candidates import CV
from raystp.steps.train.config import TrainConfig

_BOUNDS = {"choice": (1, 10_000), "quniform": (3, 3)}
"""Distribution -> fewest and most arguments; (2, 2) for all others."""


class AshaConfig(Config):
    """Asynchronous successive halving: at `grace` epochs times powers of `reduction`, the worse trials are stopped."""

    grace: int = Field(default=1, ge=1)
    """Epochs that every trial runs."""

    reduction: float = Field(default=4.0, gt=1)
    """One trial in this many continues."""


class TuneRun(TrackedRun):
    """Where and how long to run; the train config sets the resources of one trial."""

    concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time; by default as many as fit on the cluster."""

    time_s: float | None = Field(default=None, gt=0)
    """Seconds after which no epoch is started; the trials that have finished are compared."""


class TuneConfig(StepConfig[TuneRun]):
    """Which training to repeat, and which fields to vary."""

    command: ClassVar[str | None] = "tune"

    train: Annotated[dict[str, Any], ValuesOf(TrainConfig)] | str
    """The train config: the path of a YAML file, or its values."""

    space: dict[str, list[Any]] = Field(min_length=1)
    """Dotted field -> distribution and its bounds, such as `bleep.temperature: [loguniform, 0.01, 1]`. Ray Tune's are
    choice, uniform, loguniform, quniform, randint, lograndint (the upper bound is excluded)."""

    metric: Literal["validation_pcc", "validation_loss"] = "validation_pcc"

    search: Literal["optuna", "random"] = "optuna"
    """Optuna's TPE, or random search."""

    trials: int = Field(default=20, ge=1)
    """Number of trials."""

    asha: AshaConfig | None = Field(default_factory=AshaConfig)
    """Early stopping of trials that fall behind; null for none."""

    seed: int = 0

    refit: bool = False
    """Train the best trial's config once more, on the training and validation sides together, for the epochs that the
    trial chose; the model is `train/<name>-refit`. With `fit.select: cv` each trial's model is already of all sections.
    """

    run: TuneRun = Field(default_factory=TuneRun)

    def values(self) -> dict[str, Any]:
        """Return the train config's plain values, from the file or as given, with this sweep's store."""
        from raystp.storage import StoragePath  # noqa: PLC0415 -- imports pyarrow, which `--help` does not need

        values = (
            copy.deepcopy(self.train)
            if isinstance(self.train, dict)
            else read_yaml(StoragePath.of(self.train).local_path, TrainConfig)
        )
        for key, value in (("store", self.run.store), ("address", self.run.address)):
            set_field(values, f"run.{key}", value, self._source())
        if isinstance(fit := values.get("fit"), dict) and fit.get("select") == CV:
            values.setdefault("choose", {})  # the space says what is compared
        return values

    def training(self, overrides: dict[str, Any] | None = None) -> TrainConfig:
        """Return the train config, with overrides; paths are absolute, since a trial may run in another folder.

        Raises ConfigError where the values do not describe a training.
        """
        from raystp.storage import StoragePath  # noqa: PLC0415 -- imports pyarrow, which `--help` does not need

        values = self.values()
        for key, value in (overrides or {}).items():
            set_field(values, key, value, f"space: {key}")
        config = TrainConfig.of(values, self._source())
        paths = list(relative_paths(config))
        for key, path in paths:
            set_field(values, key, StoragePath.of(path).uri, key)
        return TrainConfig.of(values, self._source()) if paths else config

    def check_absolute(self) -> None:
        """Look into the train config as well."""
        super().check_absolute()
        TrainConfig.of(self.values(), self._source()).check_absolute()

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed, with the training's values in place of its file."""
        return {**super().fingerprint_values(), "train": self.training().fingerprint_values()}

    def manifest_values(self) -> dict[str, Any]:
        """Return the config with the whole train config in it."""
        return {**super().manifest_values(), "train": self.training().manifest_values()}

    def check_space(self) -> None:
        """Raise ConfigError, with every fault, where a distribution or a bound does not fit the train config."""
        faults = [fault for key, (name, *bounds) in self._entries() for fault in self._faults(key, name, bounds)]
        if faults:
            raise ConfigError("\n".join(["the space does not fit the train config:", *dict.fromkeys(faults)]))

    def _entries(self) -> list[tuple[str, list[Any]]]:
        return [(key, values or [None]) for key, values in self.space.items()]

    def _faults(self, key: str, name: Any, bounds: list[Any]) -> list[str]:
        if name not in DISTRIBUTIONS:
            return [f"  {key}: unknown distribution {name!r}; choose one of {', '.join(DISTRIBUTIONS)}"]
        least, most = _BOUNDS.get(name, (2, 2))
        if not least <= len(bounds) <= most:
            return [f"  {key}: {name} takes {least} values{' or more' if most > least else ''}, got {bounds}"]
        if name != "choice" and not (all(isinstance(one, int | float) for one in bounds) and bounds[0] < bounds[1]):
            return [f"  {key}: {name} needs a number and a larger one, got {bounds}"]
        if name.startswith("log") and bounds[0] <= 0:
            return [f"  {key}: {name} needs bounds above 0, got {bounds[0]}"]
        if key.startswith("run.") or key in {"name", "run"}:
            return [f"  {key}: cannot be varied, since it does not change the score"]
        return list(filter(None, (self._fault(key, value) for value in _extremes(name, bounds))))

    def _fault(self, key: str, value: Any) -> str | None:
        try:
            self.training({key: value})
        except ConfigError as error:
            return f"  {str(error).rpartition('  ')[2]}"
        return None

    def _source(self) -> str:
        return self.train if isinstance(self.train, str) else "train"


def _extremes(name: str, bounds: list[Any]) -> list[Any]:
    """Return every choice, or the smallest and the largest value of the distribution."""
    if name == "choice":
        return bounds
    return [bounds[0], bounds[1] - 1 if name in {"randint", "lograndint"} else bounds[1]]
