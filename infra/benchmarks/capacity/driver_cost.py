"""The driver of `embed` until its first unit would start: seconds, CPU-seconds and private memory, as JSON on stdout.

    python -m capacity.driver_cost JSON

The step itself runs until it has the plan of all units and has given Ray their blocks; then the process ends.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from simulated.driver import private_mb

from raystp.cluster.streams.tiles import build_plan
from raystp.cluster.streams.units import StreamResources, UnitReceipt, UnitWork, WorkUnit, blocks_of
from raystp.steps.embed import step as embed


def main() -> None:
    """Plan, print, and end without a unit."""
    arguments = json.loads(sys.argv[1])
    before = private_mb()
    began, cpu_s = time.monotonic(), time.process_time()

    def planned(work: UnitWork, units: list[WorkUnit], resources: StreamResources, *_: Any) -> Iterator[UnitReceipt]:
        plan = build_plan(work, units, resources)  # kept, as the stream keeps it
        figures = {
            "plan": type(plan).__name__,
            "units": len(units),
            "blocks": blocks_of(len(units), 1),
            "seconds": time.monotonic() - began,
            "cpu_s": time.process_time() - cpu_s,
            "before_mb": before,
            "driver_mb": private_mb(),
        }
        sys.stdout.write(f"{json.dumps(figures)}\n")
        sys.stdout.flush()
        os._exit(0)

    with patch.object(embed, "stream", planned):
        embed.run(embed.CONFIG.of(arguments["config"]))


if __name__ == "__main__":
    main()
