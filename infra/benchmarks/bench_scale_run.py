"""Embed once on a new Ray, with JSON arguments; write the times of commits and Ray's memory figures."""

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from raystp.cluster.session import session
from raystp.steps.embed import step as embed

INTERVAL_S = 0.25


class StoreMeter(threading.Thread):
    """Samples the object store until `finished` is set."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.finished = threading.Event()
        self.used = self.spilled = 0
        self._state = get_state_from_address(ray.get_runtime_context().gcs_address)  # type: ignore[no-untyped-call]  # Ray: no types

    def run(self) -> None:
        """Sample four times a second, and once more at the end."""
        running = True
        while running:
            running = not self.finished.wait(INTERVAL_S)
            stats = get_memory_info_reply(self._state).store_stats  # type: ignore[no-untyped-call]  # Ray: no types
            self.used = max(self.used, stats.object_store_bytes_used)
            self.spilled = max(self.spilled, stats.spilled_bytes_total)


def main() -> None:
    """Embed, and write the time of each unit's commit."""
    arguments = json.loads(sys.argv[1])
    with session():
        meter = StoreMeter()
        meter.start()
        start = time.time()
        artifact = embed.run(embed.CONFIG.of(arguments["config"]))
        meter.finished.set()
        meter.join()
    records = list((artifact.path / "commits").local_path.glob("*.json"))
    commits = sorted((record.stat().st_mtime, json.loads(record.read_bytes())["rows"]) for record in records)
    figures = {"start": start, "commits": commits, "store_bytes": meter.used, "spilled_bytes": meter.spilled}
    Path(arguments["out"]).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
