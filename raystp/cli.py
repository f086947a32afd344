"""`raystp <step> --config FILE --set key=value`: every step, and the demo, by the same two flags.

Exit status: 0 done (or done before), 1 an error with a sentence, 2 a wrong command line, 3 done, but some slides or
sections failed and are rows of the artifact's failures table.
"""

import argparse
import datetime as dt
import importlib
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
    "demo": "draw a synthetic cohort and run the whole path on it",
}
"""Step -> what it does. Each is a module of `raystp.steps` with `CONFIG` and `run`."""

DONE, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return the exit status; an error that raystp foresaw is one sentence on stderr."""
    options = _parser().parse_args(arguments)
    step = importlib.import_module(f"raystp.steps.{options.step}")
    began = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    try:
        artifact = step.run(step.CONFIG.load(options.config, options.overrides))
    except RaystpError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was finished is kept, and the same command goes on from there\n")
        return FAILED
    sys.stdout.write(summary(artifact))
    if artifact.manifest.created < began:
        sys.stdout.write(f"  this very work was done before, at {artifact.manifest.created}: nothing was computed\n")
    return INCOMPLETE if artifact.manifest.failures else DONE


def summary(artifact: Artifact) -> str:
    """Return what a step left behind, as lines for a person."""
    manifest = artifact.manifest
    lines = [manifest.notes["summary"]] if "summary" in manifest.notes else []
    lines += [f"{manifest.step}: {artifact.place}"]
    lines += [f"  {count} {what}" for what, count in manifest.rows.items()]
    lines += [f"  failed at {row['stage']}: {row['slide']}: {row['reason']}" for row in artifact.failures().to_pylist()]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raystp", description="Spatial gene expression from H&E slides, on Ray.")
    steps = parser.add_subparsers(dest="step", required=True, metavar="step")
    for name, words in STEPS.items():
        step = steps.add_parser(name, help=words, description=words)
        step.add_argument("--config", metavar="FILE", help="YAML; only what differs from the defaults")
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
