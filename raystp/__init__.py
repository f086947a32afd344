"""Spatial gene expression from H&E slides, for whole cohorts, on Ray.

`import raystp as rs` gives the functions below. They are imported when they are first used, so the import itself takes
milliseconds. Ray starts only in a function that needs it. The command line runs the same functions.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raystp.api.encoding import encode, load_encoder
    from raystp.api.models import load_model, open_index
    from raystp.api.results import StepResult, open_artifact
    from raystp.api.sections import read_section
    from raystp.api.slides import find_tissue, open_slide, read_tiles, tile_grid
    from raystp.api.steps import (
        build_index,
        embed_tiles,
        evaluate_predictions,
        impute_expression,
        predict_slides,
        run,
        tile_slides,
        train_model,
    )

__all__ = [
    "StepResult",
    "__version__",
    "build_index",
    "embed_tiles",
    "encode",
    "evaluate_predictions",
    "find_tissue",
    "impute_expression",
    "load_encoder",
    "load_model",
    "open_artifact",
    "open_index",
    "open_slide",
    "predict_slides",
    "read_section",
    "read_tiles",
    "run",
    "tile_grid",
    "tile_slides",
    "train_model",
]

_MODULES = {
    "encoding": ("encode", "load_encoder"),
    "models": ("load_model", "open_index"),
    "results": ("StepResult", "open_artifact"),
    "sections": ("read_section",),
    "slides": ("find_tissue", "open_slide", "read_tiles", "tile_grid"),
    "steps": (
        "build_index",
        "embed_tiles",
        "evaluate_predictions",
        "impute_expression",
        "predict_slides",
        "run",
        "tile_slides",
        "train_model",
    ),
}
"""Module of `raystp.api` -> the names that it gives."""

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__version__: str


if not TYPE_CHECKING:  # a type checker knows every name, and refuses others

    def __getattr__(name: str) -> Any:
        """Import a name of `__all__` when it is first used."""
        if name == "__version__":
            return importlib.import_module("importlib.metadata").version("raystp")
        if name not in _MODULE_OF:
            msg = f"module 'raystp' has no attribute {name!r}; it has {', '.join(__all__)}"
            raise AttributeError(msg)
        found = getattr(importlib.import_module(f"raystp.api.{_MODULE_OF[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """Return the names of `__all__` beside those of any module."""
    return sorted({*globals(), *__all__})
