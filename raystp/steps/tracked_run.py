"""The part of `run:` that says where MLflow is, for every step that logs there."""

from typing import Annotated

from raystp.cluster.tracking.outbox import Tracker
from raystp.config import Location, RunConfig
from raystp.errors import ConfigError
from raystp.storage import StoragePath


class TrackedRun(RunConfig):
    """Where and how wide, and where it is logged."""

    tracking: Annotated[str | None, Location(words=("none",))] = None
    """MLflow's tracking URI, `none` for no tracking; by default `mlflow.db` (SQLite) in a local store."""

    experiment: str | None = None
    """MLflow's experiment; by default the cohort: the name of the measured spots."""

    def tracker(self, cohort: str) -> Tracker:
        """Return where runs about a cohort are logged; raises ConfigError where a remote store has no default."""
        store = StoragePath.of(self.store)
        return Tracker(self._uri(store), self.experiment or cohort, store)

    def _uri(self, store: StoragePath) -> str | None:
        if self.tracking is not None:
            return None if self.tracking == "none" else self.tracking
        if not store.is_local:
            msg = f"run.tracking must be given with the remote store {store}: a server's URI, or `none`"
            raise ConfigError(msg)
        return f"sqlite:///{store.local_path / 'mlflow.db'}"
