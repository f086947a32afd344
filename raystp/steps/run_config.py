"""The `run` sections that several steps share: MLflow tracking, and the node's cache of slides."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import Field

from raystp.cluster.tracking.delivery import sqlite_uri
from raystp.cluster.tracking.outbox import Tracker
from raystp.config import Location, RunConfig
from raystp.errors import ConfigError
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache

GIGABYTE = 1_000_000_000


class TrackedRun(RunConfig):
    """The `run` section of a step that logs to MLflow."""

    tracking: Annotated[str | None, Location(words=("none",))] = None
    """MLflow's tracking URI, or `none` for no tracking. The default is `mlflow.db` (SQLite) in a local store."""

    experiment: str | None = None
    """MLflow's experiment. The default is the cohort's name, which is the name of the measured spots."""

    def tracker(self, cohort: str) -> Tracker:
        """Return the tracker of a cohort's runs; raise ConfigError for a remote store without `tracking`."""
        store = StoragePath.of(self.store)
        return Tracker(self._uri(store), self.experiment or cohort, store)

    def _uri(self, store: StoragePath) -> str | None:
        if self.tracking is not None:
            return None if self.tracking == "none" else self.tracking
        if not store.is_local:
            msg = f"the store {store} is remote: set run.tracking to the URI of an MLflow server, or to `none`"
            raise ConfigError(msg)
        return sqlite_uri(store.local_path / "mlflow.db")


class SlideRun(RunConfig):
    """The `run` section of a step that opens slides."""

    cache: Annotated[str | None, Location()] = None
    """Folder on each node's own disk for slides of an object store that cannot be read by ranges (any format but
    tiled TIFF). Each is downloaded once a node. The default is a folder in the node's temporary folder."""

    cache_gb: float = Field(default=50.0, gt=0)
    """Size limit of the cache in GB. Slides in use are kept even above it."""

    def node_cache(self) -> NodeCache:
        """Return the cache's settings; each node that receives them uses its own disk."""
        default = Path(tempfile.gettempdir()) / f"raystp-slides-{os.getuid()}"
        return NodeCache(Path(self.cache).expanduser() if self.cache else default, int(self.cache_gb * GIGABYTE))
