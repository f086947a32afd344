"""`raystp STEP --template`: a YAML file with every field, its default and its sentence.

Lines with `##` are prose. A line with one `#` is a field with its default: remove `# ` to set it. Fields that the
command line gives stand without `#`, so the file loads to the same config as that command line.
"""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from raystp.cli.commands import COMMANDS, ConfigClass
from raystp.cli.fields import ConfigField, fields_of, nested, type_text, yaml_text

WIDTH = 100

HEAD = """\
## raystp {step}: {words}.
## Remove "# " before a field to set it, and before the part that it is in. What stays is the default.
"""


def template(step: str, kind: ConfigClass, values: Mapping[str, Any]) -> str:
    """Return the file for a step, with the given plain values set."""
    lines = [HEAD.format(step=step, words=COMMANDS[step]).rstrip()]
    for field in fields_of(kind, kind.with_computed(values)):
        lines += ["", *_lines(field, values, "")]
    return "\n".join(lines) + "\n"


def _lines(field: ConfigField, values: Mapping[str, Any], indent: str) -> Iterator[str]:
    name = field.path[-1]
    given = values.get(name)
    is_given = name in values
    yield from _prose(field, indent)
    if field.part is not None and (isinstance(given, Mapping) or (field.is_part and field.default is not None)):
        yield f"{indent}{name}:" if given else f"# {indent}{name}:"
        for inner in nested(field):
            yield from _lines(inner, given if isinstance(given, Mapping) else {}, f"{indent}  ")
    elif is_given:
        yield f"{indent}{name}: {yaml_text(given)}"
    else:
        yield f"# {indent}{name}: {'' if field.is_required else yaml_text(field.default)}".rstrip()
        if field.part is not None:
            yield from _choices_of_part(field, indent)


def _prose(field: ConfigField, indent: str) -> Iterator[str]:
    kind = "" if field.is_part else f" ({type_text(field)}{'; must be given' if field.is_required else ''})"
    prefix = f"##{indent} "
    yield from textwrap.wrap(
        f"{field.sentence}{kind}".strip(),
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix,
        break_on_hyphens=False,
    )


def _choices_of_part(field: ConfigField, indent: str) -> Iterator[str]:
    """Yield, as prose, the fields of a part that is absent by default."""
    yield f"##{indent} or, with fields of its own:"
    for inner in nested(field):
        default = "" if inner.is_required else f" {yaml_text(inner.default)}"
        yield f"##{indent}   {inner.path[-1]}:{default}    {inner.sentence}"[: WIDTH + 20].rstrip()
