"""The commands by name, and the config class of each step. It imports no step: `--help` stays fast."""

import importlib
from typing import Any, TypeAlias

from raystp.steps import package_of

ConfigClass: TypeAlias = Any
"""type[StepConfig[Any]], which the type checks of the tests cannot read."""

STEPS = {
    "spots": "measured sections -> one AnnData per section",
    "tile": "slides [+ spots] -> tiles table, tissue masks, thumbnails",
    "embed": "tiles + slides + an encoder -> embeddings",
    "import": "features of another tool -> tiles and embeddings; a data set -> a slide table",
    "complete": "spots -> labels whose zeros are replaced, for training",
    "train": "spots + embeddings or pixels -> a model",
    "tune": "a train config + a search space -> a trials table, the best config",
    "index": "a contrastive model + reference spots -> a reference index",
    "impute": "embeddings + a model [+ index] -> predicted expression",
    "evaluate": "predictions + measured spots -> scores and a report",
    "export": "embeddings or predictions -> files of another tool",
    "predict": "slides + a trained or published model -> predicted expression, in one command",
    "serve": "a model + its index -> an HTTP service on Ray Serve",
    "pipeline": "all steps as one run, from the slide table to the report",
    "demo": "draw a synthetic cohort and run all steps on it",
}
"""Step -> its help. Each is a package of `raystp.steps` with a `config` module, and a `step` module with `CONFIG` and
`run`, which returns an artifact or a text."""

CHORES = {
    "doctor": "check Python, Ray, GPU, slides, store, MLflow and weights, each with the next command",
    "inspect": "a reference, file or folder -> what it is, what made it, whether it would be read",
    "plan": "a pipeline -> its tiles, bytes, vectors, hours, requests and dollars, before it is run",
    "publish": "a model [+ its index] -> one folder that `predict` reads anywhere",
    "run": "a folder or table of slides -> the pipeline that a few flags stand for",
    "slides": "a folder, glob, prefix or table of slides -> a slide table of what their headers say, on stdout",
    "send": "send MLflow the records that it did not accept during the runs",
}
"""The same for commands without an artifact of their own; `run` may return what is printed as it is (`Printed`)."""

TOOLS = {
    "methods": "list the methods that can be trained (--json)",
    "encoders": "list the image encoders, their tiles, licences and weights (--json)",
    "completion": "print the completion of a shell: bash or zsh",
}
"""Commands without a config."""

COMMANDS = {**STEPS, **CHORES, **TOOLS}


def config_of(step: str) -> ConfigClass:
    """Return a step's config class, from `raystp.steps.<step>.config`: `<Step>Config`, or `<Step>CommandConfig`."""
    module = importlib.import_module(f"{package_of(step)}.config")
    return getattr(module, f"{step.capitalize()}CommandConfig", None) or getattr(module, f"{step.capitalize()}Config")
