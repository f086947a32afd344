"""`raystp --help` and `raystp STEP --help`: every field, its type, default and sentence, from the config classes."""

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raystp.cli.arguments import SHORT_FLAGS
from raystp.cli.commands import CHORES, COMMANDS, STEPS, TOOLS, ConfigClass
from raystp.cli.fields import ConfigField, fields_of, nested, type_text, yaml_text

WIDEST = 100
"""Columns of the help at most."""

OWN = """\
of every step:
  --config FILE       YAML file; only what differs from the defaults
  --set FIELD=VALUE   the same as --FIELD VALUE or FIELD=VALUE, by the dotted name of the config
  --log-format json   print messages as JSON, a line each, on stderr and in the logs of Ray's workers
  --help, --help-all  this list, or the fields of all parts
  --template          print a commented YAML file of all fields
  --dry-run           print the whole config, what is read and written, and what is done; compute nothing
"""


def general_help() -> str:
    """Return the list of all commands."""
    lines = ["usage: raystp COMMAND [--FIELD VALUE | FIELD=VALUE]... [--config FILE]", ""]
    lines += ["Spatial gene expression from H&E slides, on Ray.", ""]
    for title, commands in (("steps", STEPS), ("other commands", CHORES), ("about raystp", TOOLS)):
        lines += [f"{title}:", *(f"  {name:<11} {words}" for name, words in commands.items()), ""]
    lines += ["`raystp COMMAND --help` lists the fields of a step. `raystp --version` prints the versions.", ""]
    lines += ["Exit status: 0 done, 1 an error, 2 a wrong command line, 3 done, but more slides failed than"]
    lines += ["run.max_failed allows."]
    return "\n".join(lines) + "\n"


def tool_help(name: str) -> str:
    """Return the help of a command without a config."""
    usage = {"completion": "bash|zsh"}.get(name, "[--json]")
    return f"usage: raystp {name} {usage}\n\n{COMMANDS[name]}\n"


def step_help(step: str, kind: ConfigClass, values: Mapping[str, Any], *, whole: bool) -> str:
    """Return the fields of a step, for the kind of work that `values` choose; `whole` opens all parts."""
    fields = fields_of(kind, kind.with_computed(values))
    run = next(field for field in fields if field.key == "run")
    singles = [field for field in fields if not field.is_part]
    parts = [field for field in fields if field.is_part and field is not run]
    positional = "".join(f" [{field.upper()}]" for field in kind.bare_arguments())
    lines = [f"usage: raystp {step}{positional} [--FIELD VALUE | FIELD=VALUE]... [--config FILE]", ""]
    lines += [COMMANDS[step], ""]
    needed = [field for part in parts if part.is_required for field in nested(part)]
    lines += _group("must be given:", [field for field in (*singles, *needed) if field.is_required])
    lines += _group("fields:", [field for field in singles if not field.is_required])
    if whole:
        for part in (field for field in fields if field.part is not None and field is not run):
            lines += _open_part(part)
    elif parts:
        lines += ["parts (--help-all lists their fields):", *(_part_line(field) for field in parts), ""]
    lines += _group("run: the store and the resources; nothing here is part of a fingerprint", nested(run))
    return "\n".join([*lines, OWN])


def _open_part(part: ConfigField) -> list[str]:
    fields = nested(part)
    lines = _group(f"{part.key}: {part.sentence}", [field for field in fields if not field.is_part])
    return lines + [line for field in fields if field.part is not None for line in _open_part(field)]


def _group(title: str, fields: Sequence[ConfigField]) -> list[str]:
    return [*_wrapped(title, ""), *(line for field in fields for line in _field_lines(field)), ""] if fields else []


def _field_lines(field: ConfigField) -> Iterable[str]:
    default = "" if field.is_required else f"  (default {_shown(field)})"
    short = "".join(f"{short}, " for short, long in SHORT_FLAGS.items() if long == field.flag)
    yield f"  {short}{field.flag} {type_text(field)}{default}"
    if field.values_of is not None:
        yield from _wrapped(f"{field.sentence} Its fields are flags too: {field.flag}.FIELD VALUE", " " * 6)
    elif field.sentence:
        yield from _wrapped(field.sentence, " " * 6)


def _shown(field: ConfigField) -> str:
    return "none" if field.default is None else yaml_text(field.default)


def _part_line(field: ConfigField) -> str:
    return f"  {field.flag + '.FIELD':<24} {field.sentence}"[: _width()].rstrip()


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _width() -> int:
    return min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
