"""The config of `tune`: a train config, and what to vary in it."""

import copy
from typing import Any, Literal

from pydantic import Field

from raystp.cluster.training.trials import DISTRIBUTIONS
from raystp.config import Config, StepConfig, read_yaml, relative_paths, set_field
from raystp.errors import ConfigError
from raystp.steps.run_config import TrackedRun
from raystp.steps.train.config import TrainConfig
from raystp.storage import StoragePath

_ENDS = {"choice": (1, 10_000), "quniform": (3, 3)}
"""Draw -> least and most arguments; (2, 2) for all others."""


class AshaConfig(Config):
    """Asynchronous successive halving: after `grace` epochs, and at each multiple by `reduction`, the worse end."""

    grace: int = Field(default=1, ge=1)
    """Epochs that every trial is given."""

    reduction: float = Field(default=4.0, gt=1)
    """One in so many goes on."""


class TuneRun(TrackedRun):
    """How wide and how long; a trial's own width is that of its train config."""

    concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time; by default as many as the cluster holds."""

    time_s: float | None = Field(default=None, gt=0)
    """Seconds after which no epoch is begun any more: what has finished by then is compared."""


class TuneConfig(StepConfig[TuneRun]):
    """Which training to repeat, with what varied."""

    train: dict[str, Any] | str
    """The train config: a YAML file, or its values themselves."""

    space: dict[str, list[Any]] = Field(min_length=1)
    """Dotted field -> draw and its ends, such as `bleep.temperature: [loguniform, 0.01, 1]`. Draws are those of Ray
    Tune: choice, uniform, loguniform, quniform, randint, lograndint (the upper end is never drawn)."""

    metric: Literal["validation_pcc", "validation_loss"] = "validation_pcc"

    search: Literal["optuna", "random"] = "optuna"
    """Optuna's TPE, or random draws."""

    trials: int = Field(default=20, ge=1)
    """How many."""

    asha: AshaConfig | None = Field(default_factory=AshaConfig)
    """When a trial that falls behind is ended early; null for never."""

    seed: int = 0

    run: TuneRun = Field(default_factory=TuneRun)

    def values(self) -> dict[str, Any]:
        """Return the train config's plain values, of the file or as given, to be trained in this sweep's store."""
        values = (
            copy.deepcopy(self.train)
            if isinstance(self.train, dict)
            else read_yaml(StoragePath.of(self.train).local_path)
        )
        for key, value in (("store", self.run.store), ("address", self.run.address)):
            set_field(values, f"run.{key}", value, self._said())
        return values

    def training(self, overrides: dict[str, Any] | None = None) -> TrainConfig:
        """Return the train config, with overrides; paths are absolute, since a trial may run in another folder.

        Raises ConfigError where the values do not describe a training.
        """
        values = self.values()
        for key, value in (overrides or {}).items():
            set_field(values, key, value, f"space: {key}")
        config = TrainConfig.of(values, self._said())
        paths = list(relative_paths(config))
        for key, path in paths:
            set_field(values, key, StoragePath.of(path).uri, key)
        return TrainConfig.of(values, self._said()) if paths else config

    def check_absolute(self) -> None:
        """Look into the train config as well."""
        super().check_absolute()
        TrainConfig.of(self.values(), self._said()).check_absolute()

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed: of the training too, whether it is a file or stands here."""
        return {**super().fingerprint_values(), "train": self.training().fingerprint_values()}

    def manifest_values(self) -> dict[str, Any]:
        """Return the config with the whole train config in it."""
        return {**super().manifest_values(), "train": self.training().manifest_values()}

    def check_space(self) -> None:
        """Raise ConfigError, with every fault, where a draw or one of its ends does not fit the train config."""
        faults = [fault for key, (draw, *ends) in self._draws() for fault in self._faults(key, draw, ends)]
        if faults:
            raise ConfigError("\n".join(["the space does not fit the train config:", *faults]))

    def _draws(self) -> list[tuple[str, list[Any]]]:
        return [(key, values or [None]) for key, values in self.space.items()]

    def _faults(self, key: str, draw: Any, ends: list[Any]) -> list[str]:
        if draw not in DISTRIBUTIONS:
            return [f"  {key}: there are the draws {', '.join(DISTRIBUTIONS)}, got {draw!r}"]
        least, most = _ENDS.get(draw, (2, 2))
        if not least <= len(ends) <= most:
            return [f"  {key}: {draw} takes {least} values{' or more' if most > least else ''}, got {ends}"]
        if draw != "choice" and not (all(isinstance(end, int | float) for end in ends) and ends[0] < ends[1]):
            return [f"  {key}: {draw} goes from a number to a larger one, got {ends}"]
        if draw.startswith("log") and ends[0] <= 0:
            return [f"  {key}: {draw} begins above 0, got {ends[0]}"]
        if key.startswith("run.") or key in {"name", "run"}:
            return [f"  {key}: how wide a training runs does not change its score"]
        return list(filter(None, (self._fault(key, value) for value in _extremes(draw, ends))))

    def _fault(self, key: str, value: Any) -> str | None:
        try:
            self.training({key: value})
        except ConfigError as error:
            return f"  {str(error).rpartition('  ')[2]}"
        return None

    def _said(self) -> str:
        return self.train if isinstance(self.train, str) else "train"


def _extremes(draw: str, ends: list[Any]) -> list[Any]:
    """Return every choice, or the least and the largest value that can be drawn."""
    if draw == "choice":
        return ends
    return [ends[0], ends[1] - 1 if draw in {"randint", "lograndint"} else ends[1]]
