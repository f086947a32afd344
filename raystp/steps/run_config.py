"""The `run` sections that several steps share: MLflow tracking, and the node's cache of slides.

Configs are read by `raystp STEP --help`, so MLflow and pyarrow are imported where they are used.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from raystp.config import Location, RunConfig
from raystp.errors import ConfigError

if TYPE_CHECKING:
    import raystp.cluster.tracking.outbox
    import raystp.storage.node_cache

GIGABYTE = 1_000_000_000


class TrackedRun(RunConfig):
    """The `run` section of a step that logs to MLflow."""

    tracking: Annotated[str | None, Location(words=("none",))] = None
    """MLflow's tracking URI, or `none` for no tracking. The default is `mlflow.db` (SQLite) in a local store."""

    experiment: str | None = None
    """MLflow's experiment. The default is the cohort's name, which is the name of the measured spots."""

    def tracker(self, cohort: str) -> "raystp.cluster.tracking.outbox.Tracker":
        """Return the tracker of a cohort's runs; raise ConfigError for a remote store without `tracking`."""
        from raystp.cluster.tracking.outbox import Tracker  # noqa: PLC0415 -- imports pyarrow
        from raystp.storage import StoragePath  # noqa: PLC0415 -- the same

        return Tracker(self._uri(), self.experiment or cohort, StoragePath.of(self.store))

    def _uri(self) -> str | None:
        from raystp.cluster.tracking.runs import sqlite_uri  # noqa: PLC0415 -- imports pyarrow
        from raystp.storage import StoragePath  # noqa: PLC0415 -- the same

        store = StoragePath.of(self.store)
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

    def node_cache(self) -> "raystp.storage.node_cache.NodeCache":
        """Return the cache's settings; each node that receives them uses its own disk."""
        from raystp.storage.node_cache import NodeCache  # noqa: PLC0415 -- imports pyarrow

        default = Path(tempfile.gettempdir()) / f"raystp-slides-{os.getuid()}"
        return NodeCache(Path(self.cache).expanduser() if self.cache else default, int(self.cache_gb * GIGABYTE))
