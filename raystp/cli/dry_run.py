"""`raystp STEP --dry-run`: the whole resolved config, and as comments what is read, written and done already."""

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel

from raystp.artifacts import without_secrets
from raystp.cli.commands import STEPS
from raystp.config import Location
from raystp.planned import PlannedWork, plan_only
from raystp.steps.printed import Printed


def dry_run(step: Any, config: BaseModel) -> Iterator[str]:
    """Yield the text in parts, the config first: a missing input is an error of what follows.

    `step` is the module of the step. Its `plan`, where it has one, describes work that is more than one artifact; its
    `dry_run` prints something else.
    """
    if hasattr(step, "dry_run"):
        printed: Printed = step.dry_run(config)
        yield printed.text
        return
    values = without_secrets(config.model_dump(mode="json"))
    yield yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10**6)
    yield "".join(f"# {line}\n" for line in _lines(step, config))


def _lines(step: Any, config: BaseModel) -> Iterator[str]:
    if hasattr(step, "plan"):
        yield from step.plan(config)
        return
    if step.STEP not in STEPS:  # its `run` has no artifact at which it could stop
        yield from (f"reads {name}: {value}" for name, value in paths_of(config))
        yield "writes no artifact"
        return
    work = plan_only(lambda: step.run(config))
    yield from (f"reads {name}: {value}" for name, value in paths_of(config) if name not in work.inputs)
    yield from (f"reads {role}: {value}" for role, value in work.inputs.items())
    yield f"writes {work.path}"
    yield state_of(work)


def state_of(work: PlannedWork) -> str:
    """Return what of the work is done already."""
    if work.finished is not None:
        failed = f", with {work.failures} failures; run.retry_failed=true tries them again" if work.failures else ""
        return f"done already, at {work.finished}: nothing would be computed{failed}"
    return "begun and not finished: continues from there" if work.path.exists() else "not done"


def paths_of(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the name and value of each field with a path that is read."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel) and name != "run":
            yield from paths_of(value, f"{prefix}{name}.")
        elif value is not None and value != [] and any(isinstance(mark, Location) for mark in field.metadata):
            yield f"{prefix}{name}", without_secrets(value)
