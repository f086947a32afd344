"""One embedding on a Ray of its own, told by JSON in the first argument; out come its commits and Ray's own figures."""

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from raystp.cluster.session import session
from raystp.steps.embed import step as embed

EVERY_S = 0.25


class StoreMeter(threading.Thread):
    """Samples the object store until it is told that the run is over."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.used = self.spilled = 0
        self._state = get_state_from_address(ray.get_runtime_context().gcs_address)  # type: ignore[no-untyped-call]  # Ray: no types

    def run(self) -> None:
        """Sample four times a second, and once more at the end."""
        going = True
        while going:
            going = not self.over.wait(EVERY_S)
            stats = get_memory_info_reply(self._state).store_stats  # type: ignore[no-untyped-call]  # Ray: no types
            self.used = max(self.used, stats.object_store_bytes_used)
            self.spilled = max(self.spilled, stats.spilled_bytes_total)


def main() -> None:
    """Embed, and write down when each unit was committed."""
    told = json.loads(sys.argv[1])
    with session():
        meter = StoreMeter()
        meter.start()
        began = time.time()
        artifact = embed.run(embed.CONFIG.of(told["config"]))
        meter.over.set()
        meter.join()
    records = list((artifact.path / "commits").local_path.glob("*.json"))
    marks = sorted((record.stat().st_mtime, json.loads(record.read_bytes())["rows"]) for record in records)
    note = {"began": began, "marks": marks, "store_bytes": meter.used, "spilled_bytes": meter.spilled}
    Path(told["out"]).write_text(json.dumps(note), encoding="utf-8")


if __name__ == "__main__":
    main()
