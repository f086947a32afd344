"""The command line: `raystp <step> --config FILE --set key=value`, with the same two flags for every step.

Exit status: 0 done (now or before), 1 an error, 2 a wrong command line, 3 done, but some slides or sections failed and
are rows of the artifact's failures table. If stdout is not a terminal, its last line is the result as JSON, for a
scheduler.
"""

import argparse
import datetime as dt
import importlib
import json
import sys
from collections.abc import Sequence

from raystp.artifacts import Artifact
from raystp.errors import RaystpError

STEPS = {
    "spots": "measured sections -> one AnnData per section",
    "tile": "slides [+ spots] -> tiles table, tissue masks, thumbnails",
    "embed": "tiles + slides + an encoder -> embeddings",
    "train": "spots + embeddings or pixels -> a model",
    "tune": "a train config + a search space -> a trials table, the best config",
    "index": "a contrastive model + reference spots -> a reference index",
    "impute": "embeddings + a model [+ index] -> predicted expression",
    "evaluate": "predictions + measured spots -> scores and a report",
    "serve": "a model + its index -> an HTTP service on Ray Serve",
    "pipeline": "all steps as one run, from the slide table to the report",
    "demo": "draw a synthetic cohort and run all steps on it",
}
"""Step -> its help. Each is a module of `raystp.steps` with `CONFIG` and `run`, which returns an artifact or a text."""

CHORES = {"send": "send MLflow the records that it did not accept during the runs"}
"""The same for commands without an artifact; `run` returns a text."""

SHOWN_FAILURES = 20
"""Failures in the JSON summary; the artifact's failures table has all of them."""

DONE, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return the exit status; a RaystpError is printed on stderr without a traceback."""
    options = _parser().parse_args(arguments)
    importlib.import_module("raystp.cluster.progress").log_to_console()
    step = importlib.import_module(f"raystp.steps.{options.step}.step")
    began = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    try:
        config = step.CONFIG.load(options.config, options.overrides)
        if importlib.import_module("raystp.cluster.session").is_submitted():
            config.check_absolute()
        result = step.run(config)
    except RaystpError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return _ended(options.step, FAILED, error=type(error).__name__, message=str(error))
    except KeyboardInterrupt:
        message = "stopped; finished work is kept, and the same command continues from there"
        sys.stderr.write(f"{message}\n")
        return _ended(options.step, FAILED, error="KeyboardInterrupt", message=message)
    if isinstance(result, str):
        sys.stdout.write(f"{result}\n")
        return _ended(options.step, DONE, message=result)
    sys.stdout.write(summary(result))
    before = result.manifest.created < began
    if before:
        sys.stdout.write(f"  equal work was finished at {result.manifest.created}: nothing was computed\n")
    return _ended(
        options.step,
        INCOMPLETE if result.manifest.failures else DONE,
        **_facts(result),
        done_before=before,
    )


def summary(artifact: Artifact) -> str:
    """Return a finished artifact's summary, as lines of text."""
    manifest = artifact.manifest
    lines = [manifest.notes["summary"]] if "summary" in manifest.notes else []
    lines += [f"{manifest.step}: {artifact.path}"]
    lines += [f"  {count} {what}" for what, count in manifest.rows.items()]
    lines += [f"  failed at {row['stage']}: {row['slide']}: {row['reason']}" for row in artifact.failures().to_pylist()]
    return "\n".join(lines) + "\n"


def _facts(artifact: Artifact) -> dict[str, object]:
    manifest = artifact.manifest
    first = artifact.failures().slice(0, SHOWN_FAILURES).to_pylist()
    about = {"artifact": str(artifact.path), "fingerprint": manifest.fingerprint, "rows": manifest.rows}
    return about | {"failures": manifest.failures, "first_failures": first}


def _ended(step: str, status: int, **facts: object) -> int:
    """Print the result as one line of JSON unless stdout is a terminal; return the exit status."""
    if not sys.stdout.isatty():
        words = {DONE: "done", INCOMPLETE: "incomplete", FAILED: "failed"}
        sys.stdout.write(json.dumps({"step": step, "status": words[status], "exit": status, **facts}) + "\n")
        sys.stdout.flush()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raystp", description="Spatial gene expression from H&E slides, on Ray.")
    steps = parser.add_subparsers(dest="step", required=True, metavar="step")
    for name, words in {**STEPS, **CHORES}.items():
        step = steps.add_parser(name, help=words, description=words)
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
