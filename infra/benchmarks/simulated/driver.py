"""One run of `embed` with `SimulatedWork`, in a process that the benchmark may kill; it writes a line each second.

    python -m simulated.driver JSON

The step itself runs, `embed.run`: only the work's reader and encoder are replaced, and the length of the vectors.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from simulated.work import DIM, SimulatedWork

from raystp.cluster.progress import log_to_console
from raystp.cluster.streams.tiles import stream
from raystp.cluster.streams.units import UnitReceipt, UnitWork, WorkUnit
from raystp.steps.embed import step as embed
from raystp.steps.embed.work import EmbedWork

INTERVAL_S = 1.0


class Series(threading.Thread):
    """Writes time, memory, CPU time, units and finished slides to a file, a line each second."""

    def __init__(self, file: Path) -> None:
        super().__init__(daemon=True)
        self.file, self.units, self.before = file, 0, 0
        self.phase = "plan"

    def run(self) -> None:
        """Write until the process ends."""
        with self.file.open("a", encoding="ascii") as file:
            while True:
                file.write(f"{json.dumps(self.line())}\n")
                file.flush()
                time.sleep(INTERVAL_S)

    def line(self) -> dict[str, Any]:
        """Return the present figures."""
        used = dict(_status())
        return {
            "time": time.time(),
            "phase": self.phase,
            "units": self.units,
            "before": self.before,
            "cpu_s": time.process_time(),
            "private_mb": private_mb(),
            "shared_mb": used["RssShmem"],
        }


def private_mb() -> float:
    """Return the memory of this process that no other shares, in MB."""
    return dict(_status())["RssAnon"]


def _status() -> Iterator[tuple[str, float]]:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Rss"):
            yield name, int(value.split()[0]) / 1024


def main() -> None:
    """Embed; the simulation enters at the two functions that are replaced here."""
    arguments = json.loads(sys.argv[1])
    log_to_console()
    series = Series(Path(arguments["series"]))
    series.start()
    run_units = embed._stream

    def counted(work: UnitWork, units: list[WorkUnit], *others: Any) -> Iterator[UnitReceipt]:
        series.before, series.phase = arguments["units"] - len(units), "run"
        for receipt in stream(work, units, *others):
            series.units += 1
            yield receipt
        series.phase = "finish"

    def simulated(work: EmbedWork, *others: Any) -> Any:
        work = SimulatedWork.of(work, arguments["tile_s"], arguments["notes"])
        outputs = tuple(replace(output, dim=DIM) for output in work.outputs)
        return run_units(replace(work, outputs=outputs), *others)

    with patch.multiple(embed, stream=counted, _stream=simulated):
        embed.run(embed.CONFIG.of(arguments["config"]))
    series.phase = "done"
    with series.file.open("a", encoding="ascii") as file:
        file.write(f"{json.dumps(series.line())}\n")


if __name__ == "__main__":
    main()
