"""The `run` part of the steps that open slides: where a node keeps those that it cannot read in ranges."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import Field

from raystp.config import Location, RunConfig
from raystp.storage.node_cache import NodeCache

GIGABYTE = 1_000_000_000


class SlideRun(RunConfig):
    """Where and how wide, for a step that opens slides."""

    cache: Annotated[str | None, Location()] = None
    """A folder on each node's own disk for slides of an object store that no range can be read of (all but tiled
    TIFFs): fetched once for all processes of the node. By default one under its folder for temporary files."""

    cache_gb: float = Field(default=50.0, gt=0)
    """Gigabytes that are kept there; slides in use stay even where they are more."""

    def node_cache(self) -> NodeCache:
        """Return the cache; it travels to the workers, and each node's lies on that node."""
        own = Path(tempfile.gettempdir()) / f"raystp-slides-{os.getuid()}"
        return NodeCache(Path(self.cache).expanduser() if self.cache else own, int(self.cache_gb * GIGABYTE))
