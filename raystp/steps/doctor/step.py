"""doctor: check what a run needs, line by line, each with the next command. The exit status is 1 where one is an error.

Nothing stays: a local Ray is stopped again, and the file that is written to the store is removed.
"""

import json
from collections.abc import Callable

from raystp.steps.doctor import machine, services
from raystp.steps.doctor.config import DoctorConfig
from raystp.steps.doctor.finding import Finding, findings_of
from raystp.steps.printed import Printed

STEP = "doctor"
CONFIG = DoctorConfig


def run(config: DoctorConfig) -> Printed:
    """Print a line for each check."""
    found = examine(config)
    if config.json:
        text = json.dumps([one.values() for one in found], indent=1) + "\n"
    else:
        text = "".join(f"{one.line()}\n" for one in found)
    return Printed(text, has_error=any(one.state == "error" for one in found))


def examine(config: DoctorConfig) -> list[Finding]:
    """Return the findings of all checks, in order."""
    run = config.run
    checks: list[tuple[str, Callable[[], list[Finding]], str]] = [
        ("Python", machine.python, "install raystp again"),
        ("shared memory", machine.shared_memory, "check the mount of /dev/shm"),
        ("Ray", lambda: machine.ray(run.address), "docs/troubleshooting.md has more"),
        ("GPU", machine.gpu, "install a driver that fits this torch"),
        ("OpenSlide", machine.openslide, "install openslide-bin and imagecodecs again"),
        ("store", lambda: services.store(run), "choose another store with run.store, or correct its credentials"),
        ("MLflow", lambda: services.tracking(run), "set run.tracking"),
        ("weights", services.weights, "set encoder.weights"),
        ("token", services.tokens, "run `hf auth login`"),
    ]
    if (encoder := config.encoder) is not None:
        advice = "correct encoder.weights and encoder.sha256; `raystp encoders` lists names"
        checks.append(("encoder", lambda: services.encoder(encoder, run.store), advice))
    if config.gated:
        checks.append(("gates", services.gated_access, "check the network"))
    return [finding for name, check, advice in checks for finding in findings_of(name, check, advice)]
