"""The whole pipeline under random faults, again and again; each run must equal the run without faults.

`python -m tests.faults.chaos.soak --minutes 15 --seed 0 --out chaos.json`
"""

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import yaml

from raystp.storage import StoragePath
from tests.conftest import ROOT
from tests.faults import s3
from tests.faults.chaos.actions import Chaos
from tests.faults.chaos.cohort import draw_cohort, pipeline_config
from tests.faults.chaos.content import artifacts, differences
from tests.faults.nodes import Nodes, start_nodes
from tests.faults.s3 import FaultyStore

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
MISSED_CHECKS = 12
"""Health checks, one each 0.5 s, after which a node is lost: many, since all nodes share the machine."""
FAULTS, MIN_PAUSE_S = 25, 4.0
"""Faults in the time that the pipeline takes without them, and the least mean time between two."""
ATTEMPTS = 40
"""How often the driver of one pipeline is started at most."""
HANG_S = 900.0
"""A driver that takes longer hangs; without faults the whole pipeline takes two minutes on two idle cores."""


@dataclass
class PipelineRun:
    """One pipeline, from its first driver to the one that ended well."""

    seconds: float = 0.0
    exits: list[int] = field(default_factory=list)
    """Exit status of each driver; negative for a signal."""
    faults: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Last lines of drivers that ended by themselves, and not well."""


@dataclass
class Soak:
    """The cluster, the object store with the cohort, and a folder for logs."""

    nodes: Nodes
    store: FaultyStore
    folder: Path
    slides: str

    def pipeline(self, name: str, chaos: Chaos | None) -> PipelineRun:
        """Run the pipeline into the store `name`, starting its driver again until it ends well."""
        run, began = PipelineRun(), time.monotonic()
        file = self.folder / f"{name}.yaml"
        config = pipeline_config(self.slides, self.store.path(name).uri, self.nodes.address)
        file.write_text(yaml.safe_dump(config))
        while len(run.exits) < ATTEMPTS:
            log = self.folder / f"{name}-{len(run.exits)}.txt"
            run.exits.append(self._drive(file, log, chaos))
            if run.exits[-1] == 0:
                break
            if run.exits[-1] > 0:
                run.errors.append("\n".join(log.read_text().splitlines()[-2:]))
        run.seconds = round(time.monotonic() - began, 1)
        return run

    def _drive(self, config: Path, log: Path, chaos: Chaos | None) -> int:
        command = [sys.executable, "-m", "raystp.cli", "pipeline", "--config", str(config)]
        with log.open("wb") as output:
            driver = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)
        if chaos is not None:
            chaos.driver = driver
        try:
            return driver.wait(HANG_S)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            msg = f"a driver did not end within {HANG_S:g} s: {log}\n{log.read_text()[-2000:]}"
            raise AssertionError(msg) from None


@contextlib.contextmanager
def prepared(folder: Path) -> Iterator[Soak]:
    """Start the cluster and the store, and draw the cohort."""
    os.environ.update(CREDENTIALS)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # moto's line for each request
    nodes = start_nodes(CREDENTIALS, MISSED_CHECKS)
    try:
        with s3.running() as store:
            slides = draw_cohort(StoragePath.of(folder / "cohort"), store.path("cohort"))
            yield Soak(nodes, store, folder, slides)
    finally:
        nodes.close()


def soak(folder: Path, seconds: float, seed: int) -> list[PipelineRun]:
    """Run the pipeline without faults, then with faults for at least that time; compare each with the first."""
    with prepared(folder) as whole:
        expected = whole.store.path("expected")
        runs = [whole.pipeline("expected", None)]
        if runs[0].exits != [0]:
            msg = f"the pipeline without faults ended with {runs[0].exits}: {runs[0].errors}"
            raise RuntimeError(msg)
        print(f"without faults: {len(artifacts(expected))} artifacts in {runs[0].seconds:g} s", flush=True)  # noqa: T201 -- a command's output
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            name = f"run-{len(runs)}"
            rng = np.random.default_rng([seed, len(runs)])
            chaos = Chaos(whole.nodes, whole.store, rng, max(MIN_PAUSE_S, runs[0].seconds / FAULTS))
            with chaos.running():
                run = whole.pipeline(name, chaos)
            run.faults = dict(chaos.counts)
            run.differences = list(differences(whole.store.path(name), expected))
            runs.append(run)
            print(f"{name}: {_line(run)}", flush=True)  # noqa: T201 -- a command's output
    return runs


def _line(run: PipelineRun) -> str:
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(run.faults.items()))
    first = f": {run.differences[0]}" if run.differences else ""
    ends = f"{len(run.exits)} drivers (exits {dict(Counter(run.exits))})"
    return f"{run.seconds:g} s, faults: {faults}; {ends}; {len(run.differences)} differences{first}"


def main() -> None:
    """Soak for some minutes; exit with 1 if a run differs, or never ends well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for configs and logs; the default is a temporary folder")
    parser.add_argument("--out", type=Path, help="write each run as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runs = soak(folder, 60 * given.minutes, given.seed)
    if given.out:
        given.out.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    faults = sum((Counter(run.faults) for run in runs), Counter[str]())
    lost = sum(len(run.differences) for run in runs)
    unfinished = sum(run.exits[-1] != 0 for run in runs)
    total = f"{len(runs) - 1} pipelines, {faults.total()} faults {dict(faults)}"
    print(f"{total}, {lost} differences, {unfinished} that never ended well")  # noqa: T201 -- a command's output
    sys.exit(1 if lost or unfinished else 0)


if __name__ == "__main__":
    main()
