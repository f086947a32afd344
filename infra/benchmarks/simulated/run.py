"""Run the driver, kill it at given places, run it again to the end; collect its series."""

import contextlib
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulated.cluster import Cluster

POLL_S = 0.2
MARGIN = 0.06
"""Share of the units at both ends in which no kill falls."""


@dataclass(frozen=True)
class Plan:
    """A run: the driver's arguments, the units of the cohort, and the places of its kills."""

    arguments: dict[str, Any]
    folder: Path
    units: int
    slides: int
    kill_at: list[int]
    """Committed units, ascending."""


@dataclass
class Series:
    """Lines of all runs of the driver."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    """With `run`, the number of the driver's run, and the memory of Ray's own processes in MB."""
    seconds: list[float] = field(default_factory=list)
    """Of each run."""
    killed_at: list[int] = field(default_factory=list)
    """Committed units at each kill."""


def kill_places(units: int, kills: int, seed: int) -> list[int]:
    """Return random places at which the driver is killed."""
    first, last = round(units * MARGIN), round(units * (1 - MARGIN))
    return sorted(random.Random(seed).sample(range(first, last), kills))


def run(plan: Plan, cluster: Cluster) -> Series:
    """Run until the end; each run but the last ends with SIGKILL.

    Raises RuntimeError if the driver fails, or ends before it could be killed.
    """
    series = Series()
    for number, at in enumerate([*plan.kill_at, plan.units + 1]):
        began = time.monotonic()
        killed_at = _run_once(plan, cluster, series, number=number, at=at)
        series.seconds.append(time.monotonic() - began)
        if killed_at is not None:
            series.killed_at.append(killed_at)
        elif at <= plan.units:
            msg = f"the driver finished all {plan.units} units before its kill at {at}: set --factor lower"
            raise RuntimeError(msg)
    return series


def _run_once(plan: Plan, cluster: Cluster, series: Series, *, number: int, at: int) -> int | None:
    """Run the driver once; return the committed units at which it was killed, None where it ended by itself."""
    file, log = plan.folder / f"series-{number}.jsonl", plan.folder / f"driver-{number}.log"
    file.touch()
    arguments = {**plan.arguments, "series": str(file)}
    with log.open("wb") as output, file.open(encoding="ascii") as lines:
        command = [sys.executable, "-m", "simulated.driver", json.dumps(arguments)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                time.sleep(POLL_S)
                for line in _complete(lines):
                    series.lines.append({"run": number, **line, **_memory(cluster)})
                    if process.poll() is None and line["before"] + line["units"] >= at:
                        return int(line["before"] + line["units"])
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            msg = f"the driver exited with status {process.returncode}: {log.read_text()[-3000:]}"
            raise RuntimeError(msg)
    return None


def _complete(lines: Any) -> list[dict[str, Any]]:
    """Return the lines that were written since the last call."""
    found = list[dict[str, Any]]()
    while True:
        at = lines.tell()
        text = lines.readline()
        if not text.endswith("\n"):
            lines.seek(at)
            return found
        found.append(json.loads(text))


def _memory(cluster: Cluster) -> dict[str, float]:
    return {"gcs_mb": _private_mb(cluster.gcs), "raylet_mb": sum(_private_mb(one) for one in cluster.raylets)}


def _private_mb(process: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return 0.0


def per_thousand(series: Series, plan: Plan, step: int) -> list[dict[str, float]]:
    """Return a row for each `step` slides that one run of the driver finished: seconds, CPU-seconds, memory at the end.

    Slides are counted as units times slides per unit, since units of many slides are in flight. Seconds and CPU-seconds
    are those of the driver between two lines, and start with its first finished unit.
    """
    rows, each = list[dict[str, float]](), plan.slides / plan.units
    for number in range(len(series.seconds)):
        lines = [one for one in series.lines if one["run"] == number and one["phase"] == "run" and one["units"]]
        if not lines:
            continue
        mark = lines[0]
        for line in lines[1:]:
            done = (line["units"] - mark["units"]) * each
            if done >= step:
                rows.append(
                    {
                        "run": number,
                        "slides": (line["before"] + line["units"]) * each,
                        "seconds": (line["time"] - mark["time"]) * step / done,
                        "driver_cpu_s": (line["cpu_s"] - mark["cpu_s"]) * step / done,
                        **{name: line[name] for name in ("private_mb", "shared_mb", "gcs_mb", "raylet_mb")},
                    }
                )
                mark = line
    return rows
