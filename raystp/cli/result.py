"""What a finished step prints: its summary for a person, and one line of JSON for a scheduler.

The JSON line is the last line of stdout where stdout is no terminal. An error is printed once: as that line, or on
stderr where a person reads either of the two.
"""

import contextlib
import json
import logging
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raystp.cluster import json_logs

if TYPE_CHECKING:
    import raystp.artifacts  # imports pyarrow, which `--help` does not need
    import raystp.steps.printed

logger = logging.getLogger("raystp")

TRACEBACK_FRAMES = 5
"""Frames that are printed of an unexpected exception."""

SHOWN_FAILURES = 20
"""Failures in the JSON summary, one of each slide; the artifact's failures table has all of them."""

SHOWN_WARNINGS = 5
"""Warnings in the printed summary; the JSON summary has up to `SHOWN_FAILURES`, the manifest's notes have all."""

DONE, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3
STATUS_WORDS = {DONE: "done", INCOMPLETE: "incomplete", FAILED: "failed", USAGE: "failed"}


def summary(artifact: "raystp.artifacts.Artifact", *, shown_warnings: int) -> str:
    """Return a finished artifact's summary, as lines of text; a step that has just run has logged its warnings."""
    manifest = artifact.manifest
    lines = [manifest.notes["summary"]] if "summary" in manifest.notes else []
    lines += [f"{manifest.step}: {artifact.path}"]
    lines += [f"  {count} {what}" for what, count in manifest.rows.items()]
    warnings = warnings_of(artifact)
    lines += [f"  {len(warnings)} warnings"] if warnings else []
    lines += [f"  warning: {warning}" for warning in warnings[:shown_warnings]]
    counts = Counter((row["stage"], row["slide"]) for row in failures_of(artifact))
    for row in _first_of_each(failures_of(artifact)):
        more = counts[row["stage"], row["slide"]] - 1
        lines.append(
            f"  failed at {row['stage']}: {row['slide']}: {row['reason']}" + (f" (and {more} more)" * bool(more))
        )
    return "\n".join(lines) + "\n"


def failures_of(artifact: "raystp.artifacts.Artifact") -> list[dict[str, str]]:
    """Return the failures, and those that a demo draws on purpose, which leave the exit status as it is."""
    expected: list[dict[str, str]] = artifact.manifest.notes.get("expected_failures", [])
    return [*artifact.failures().to_pylist(), *expected]


def failed_slides(artifact: "raystp.artifacts.Artifact", max_failed: float | int) -> tuple[int, str, dict[str, object]]:
    """Return the exit status, a line about the failed slides or sections, and the same for the JSON line."""
    from raystp.steps.failed_slides import allows, failed_names, tried_names  # noqa: PLC0415 -- imports pyarrow

    failed, tried = len(failed_names(artifact)), len(tried_names(artifact))
    is_allowed = allows(max_failed, failed, tried)
    verb = "allows" if is_allowed else "does not allow"
    line = f"  {failed} of {tried} failed; run.max_failed={max_failed} {verb} that\n" if failed else ""
    facts: dict[str, object] = {"failed_slides": failed, "tried_slides": tried, "max_failed": max_failed}
    return DONE if is_allowed else INCOMPLETE, line, facts


def printed_status(printed: "raystp.steps.printed.Printed", max_failed: float | int) -> int:
    """Return the exit status of a command without an artifact."""
    from raystp.steps.failed_slides import allows  # noqa: PLC0415 -- imports pyarrow

    if printed.has_error:
        return FAILED
    return DONE if allows(max_failed, printed.failures, printed.tried) else INCOMPLETE


def _first_of_each(failures: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the first failure of each slide at each step: one slide may have a row for each damaged tile."""
    first: dict[tuple[str, str], dict[str, str]] = {}
    for row in failures:
        first.setdefault((row["stage"], row["slide"]), row)
    return list(first.values())


def warnings_of(artifact: "raystp.artifacts.Artifact") -> list[str]:
    """Return the warnings about slides and sections in a manifest's notes, each with the name that it is about."""
    noted: dict[str, list[str]] = artifact.manifest.notes.get("warnings", {})
    return [f"{name}: {warning}" for name, warnings in noted.items() for warning in warnings]


def facts(artifact: "raystp.artifacts.Artifact") -> dict[str, object]:
    """Return the facts of an artifact for the JSON line."""
    manifest = artifact.manifest
    failures = failures_of(artifact)
    about: dict[str, object] = {
        "artifact": str(artifact.path),
        "fingerprint": manifest.fingerprint,
        "rows": manifest.rows,
    }
    warnings = warnings_of(artifact)
    about |= {"warnings": len(warnings), "first_warnings": warnings[:SHOWN_FAILURES]}
    return about | {"failures": len(failures), "first_failures": _first_of_each(failures)[:SHOWN_FAILURES]}


def ended(step: str, status: int, **facts: object) -> int:
    """Print the result as one line of JSON unless stdout is a terminal; return the exit status."""
    if not sys.stdout.isatty():
        line = json.dumps({"step": step, "status": STATUS_WORDS[status], "exit": status, **facts}) + "\n"
        print_data(line)
    return status


def print_error(text: str, unexpected: BaseException | None = None) -> None:
    """Print an error for a person, unless its only reader is a program, which gets it in the JSON line.

    Of an `unexpected` exception the last frames are printed too. With `--log-format json` the error is a record.
    """
    if json_logs.are_on(logger):
        logger.error(text, exc_info=unexpected)
        return
    if unexpected is not None:
        sys.stderr.write("".join(traceback.format_exception(unexpected, limit=-TRACEBACK_FRAMES)))
    if sys.stderr.isatty() or sys.stdout.isatty():
        sys.stderr.write(f"{text}\n")


def print_data(text: str) -> None:
    """Write to stdout; a reader that has closed it, such as `head`, is no error."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text)
        sys.stdout.flush()
