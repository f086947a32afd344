"""The command line: `raystp <step> --config FILE --set key=value`, with the same two flags for every step.

Exit status: 0 done (now or before), 1 an error, 2 a wrong command line, 3 done, but some slides or sections failed and
are rows of the artifact's failures table. If stdout is not a terminal, its last line is the result as JSON, for a
scheduler, whatever ended the step.
"""

import argparse
import contextlib
import datetime as dt
import importlib
import io
import json
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence

from raystp.artifacts import Artifact
from raystp.cluster.environment import explain
from raystp.errors import ClusterError, RaystpError, describe_exception, unwrapped
from raystp.steps.printed import Printed

STEPS = {
    "spots": "measured sections -> one AnnData per section",
    "tile": "slides [+ spots] -> tiles table, tissue masks, thumbnails",
    "embed": "tiles + slides + an encoder -> embeddings",
    "complete": "spots -> labels whose zeros are replaced, for training",
    "train": "spots + embeddings or pixels -> a model",
    "tune": "a train config + a search space -> a trials table, the best config",
    "index": "a contrastive model + reference spots -> a reference index",
    "impute": "embeddings + a model [+ index] -> predicted expression",
    "evaluate": "predictions + measured spots -> scores and a report",
    "serve": "a model + its index -> an HTTP service on Ray Serve",
    "predict": "slides + a trained or published model -> predicted expression, in one command",
    "pipeline": "all steps as one run, from the slide table to the report",
    "demo": "draw a synthetic cohort and run all steps on it",
}
"""Step -> its help. Each is a module of `raystp.steps` with `CONFIG` and `run`, which returns an artifact or a text."""

CHORES = {
    "publish": "a model [+ its index] -> one folder that `predict` reads anywhere",
    "run": "a folder or table of slides -> the pipeline that a few flags stand for",
    "inspect": "a reference, file or folder -> what it is, what made it, whether it would be read",
    "slides": "a folder, glob, prefix or table of slides -> a slide table of what their headers say, on stdout",
    "send": "send MLflow the records that it did not accept during the runs",
}
"""The same for commands without an artifact of their own; `run` may return what is printed as it is (`Printed`)."""

TAKE_INPUT = ("inspect", "predict", "publish", "run", "slides")
"""Commands with a bare argument, which sets the field `positional` of their config."""

SHOWN_FAILURES = 20
"""Failures in the JSON summary, one of each slide; the artifact's failures table has all of them."""

SHOWN_WARNINGS = 5
"""Warnings in the printed summary; the JSON summary has up to `SHOWN_FAILURES`, the manifest's notes have all."""

TRACEBACK_FRAMES = 6
"""Frames that are printed of an unexpected exception."""

UNEXPECTED = "This is a fault of raystp or of a library, not of the command: please report it with the lines above"

DONE, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return the exit status. Whatever ends the step, the result is printed as JSON."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no step
    options = _parser().parse_args(arguments)
    try:
        with _terminable():
            return _run(options)
    except (KeyboardInterrupt, SystemExit) as error:
        message = "stopped; finished work is kept, and the same command continues from there"
        sys.stderr.write(f"{message}\n")
        return _ended(options.step, FAILED, error=type(error).__name__, message=message)
    except Exception as error:  # noqa: BLE001 -- a scheduler needs the result of any of them
        return _failed(options.step, unwrapped(error))


def _run(options: argparse.Namespace) -> int:
    importlib.import_module("raystp.cluster.progress").log_to_console()
    step = importlib.import_module(f"raystp.steps.{options.step}.step")
    began = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    config = step.CONFIG.load(options.config, [*_bare(step.CONFIG.positional, options), *options.overrides])
    if importlib.import_module("raystp.cluster.session").is_submitted():
        config.check_absolute()
    result = step.run(config)
    if isinstance(result, Printed):
        sys.stdout.write(result.text)
        return INCOMPLETE if result.failures else DONE
    if isinstance(result, str):
        sys.stdout.write(f"{result}\n")
        return _ended(options.step, DONE, message=result)
    before = result.manifest.created < began
    sys.stdout.write(summary(result, shown_warnings=SHOWN_WARNINGS if before else 0))
    if before:
        sys.stdout.write(f"  equal work was finished at {result.manifest.created}: nothing was computed\n")
    status = INCOMPLETE if result.manifest.failures else DONE
    return _ended(options.step, status, **_facts(result), done_before=before)


def _bare(field: str | None, options: argparse.Namespace) -> list[str]:
    """Return the override that a bare argument stands for."""
    given = getattr(options, "input", None)
    return [] if given is None else [f"{field}={given}"]


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raise SystemExit for SIGTERM, as Ctrl-C raises KeyboardInterrupt. Ray's own handler does the same."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed(step: str, error: BaseException) -> int:
    """Print the error: a RaystpError and an exception of the machine as a sentence, any other with its traceback."""
    name, message = type(error).__name__, str(error)
    if not isinstance(error, RaystpError):
        explained = explain(error)
        if explained is None:
            lines = traceback.format_exception(error, limit=-TRACEBACK_FRAMES)
            sys.stderr.write("".join(lines))
            message = f"{describe_exception(error)}. {UNEXPECTED}"
            sys.stderr.write(f"{message}\n")
            return _ended(step, FAILED, error=name, message=message)
        name, message = ClusterError.__name__, explained
    sys.stderr.write(f"{name}: {message}\n")
    return _ended(step, FAILED, error=name, message=message)


def summary(artifact: Artifact, *, shown_warnings: int) -> str:
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


def failures_of(artifact: Artifact) -> list[dict[str, str]]:
    """Return the failures, and those that a demo draws on purpose, which leave the exit status as it is."""
    expected: list[dict[str, str]] = artifact.manifest.notes.get("expected_failures", [])
    return [*artifact.failures().to_pylist(), *expected]


def _first_of_each(failures: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the first failure of each slide at each step: one slide may have a row for each damaged tile."""
    first: dict[tuple[str, str], dict[str, str]] = {}
    for row in failures:
        first.setdefault((row["stage"], row["slide"]), row)
    return list(first.values())


def warnings_of(artifact: Artifact) -> list[str]:
    """Return the warnings about slides and sections in a manifest's notes, each with the name that it is about."""
    noted: dict[str, list[str]] = artifact.manifest.notes.get("warnings", {})
    return [f"{name}: {warning}" for name, warnings in noted.items() for warning in warnings]


def _facts(artifact: Artifact) -> dict[str, object]:
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


def _ended(step: str, status: int, **facts: object) -> int:
    """Print the result as one line of JSON unless stdout is a terminal; return the exit status."""
    if not sys.stdout.isatty():
        words = {DONE: "done", INCOMPLETE: "incomplete", FAILED: "failed"}
        line = json.dumps({"step": step, "status": words[status], "exit": status, **facts}) + "\n"
        with contextlib.suppress(BrokenPipeError):  # its reader has closed it
            sys.stdout.write(line)
            sys.stdout.flush()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raystp", description="Spatial gene expression from H&E slides, on Ray.")
    steps = parser.add_subparsers(dest="step", required=True, metavar="step")
    for name, words in {**STEPS, **CHORES}.items():
        step = steps.add_parser(name, help=words, description=words)
        if name in TAKE_INPUT:
            step.add_argument("input", nargs="?", metavar="INPUT", help="what the command reads")
        step.add_argument("--config", metavar="FILE", help="YAML file; only what differs from the defaults")
        step.add_argument(
            "--set",
            dest="overrides",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="override one field, such as run.store=/data/store; may be repeated",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
