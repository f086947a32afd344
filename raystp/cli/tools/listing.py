"""Commands without a config: the versions, the methods, the encoders, the completion of a shell."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence

from raystp.cli.arguments import WrongCommandLine
from raystp.cli.tools.completion import SHELLS, completion
from raystp.versions import ABSENT, installed_version

PACKAGES = ("ray", "torch", "openslide-python", "openslide-bin", "faiss-cpu", "faiss-gpu")
"""Packages whose versions `raystp --version` prints; of `faiss-cpu` and `faiss-gpu` one is installed."""

Row = Mapping[str, object]


def versions() -> str:
    """Return the versions of raystp and of what its results depend on, from the packages' metadata."""
    lines = [f"raystp {installed_version('raystp')}", f"python {sys.version.split()[0]}"]
    lines += [
        f"{name} {installed_version(name)}"
        for name in PACKAGES
        if installed_version(name) != ABSENT or name in {"ray", "torch"}
    ]
    return "\n".join(lines) + "\n"


def tool_text(name: str, words: Sequence[str]) -> str:
    """Return what a command prints. Raises WrongCommandLine for other words than it takes."""
    if name == "completion":
        if len(words) != 1 or words[0] not in SHELLS:
            msg = f"raystp completion needs one of {', '.join(SHELLS)}, got {' '.join(words) or 'nothing'}"
            raise WrongCommandLine(msg)
        return completion(words[0])
    wrong = [word for word in words if word != "--json"]
    if wrong:
        msg = f"raystp {name} takes --json alone, got {' '.join(wrong)}"
        raise WrongCommandLine(msg)
    rows = _LISTS[name]()
    return f"{json.dumps(rows, indent=1)}\n" if "--json" in words else _table(rows)


def _methods() -> list[Row]:
    from raystp.models.methods import DEFAULT, METHODS  # noqa: PLC0415 -- imports numpy

    return [
        {
            "name": one.name,
            "title": one.title,
            "training": "of models" if one.combines_models else "epochs" if one.is_trained else "at once",
            "needs_index": one.needs_index,
            "needs_gene_text": one.needs_gene_text,
            "trains_encoder": not one.frozen_reason({}),
            "learns_from_cases": one.on_cases is not None,
            "is_default": one.name == DEFAULT,
        }
        for one in METHODS.values()
    ]


def _encoders() -> list[Row]:
    from raystp.encoders.catalogue import catalogue  # noqa: PLC0415 -- imports torch

    return [dict(row) for row in catalogue()]


_LISTS: dict[str, Callable[[], list[Row]]] = {"methods": _methods, "encoders": _encoders}


def _table(rows: Sequence[Row]) -> str:
    names = list(rows[0])
    cells = [[name.replace("_", " ") for name in names], *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in cells
    )


def _cell(value: object) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(_cell(one) for one in value) if isinstance(value, list | tuple) else str(value)
