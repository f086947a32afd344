"""The fields of a config class as the command line shows them: name, type, default, sentence.

All of it is read from the classes. The sentence of a field is its attribute docstring, in a plain dataclass too.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from raystp.config import Choices, Config, Location
from raystp.config_fields.values import ValuesOf, field_names, members

REQUIRED = PydanticUndefined
"""Default of a field that must be given."""

_SIGNS = {annotated_types.Ge: ">=", annotated_types.Gt: ">", annotated_types.Le: "<=", annotated_types.Lt: "<"}


@dataclass(frozen=True)
class ConfigField:
    """One field of a config class."""

    path: tuple[str, ...]
    """Names from the step's config down to the field."""
    kind: object
    """Its annotation, with the marks in it."""
    limits: tuple[object, ...]
    """Constraints of pydantic's `Field`."""
    default: object
    """Plain value, or REQUIRED."""
    sentence: str
    part: type[Any] | None = None
    """The config class or dataclass whose fields are nested in it."""
    values_of: type[Any] | None = None
    """The config of another step, of which this field has plain values."""

    @property
    def key(self) -> str:
        """The dotted name, as in `--set`."""
        return ".".join(self.path)

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return flag_of(self.key)

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is REQUIRED

    @property
    def is_part(self) -> bool:
        """Whether only fields are nested in it, so that it has no single value."""
        return self.part is not None and len(members(self.kind)) == 1


def flag_of(key: str) -> str:
    """Return the flag of a dotted name: `run.cache_gb` -> `--run.cache-gb`."""
    return f"--{key.replace('_', '-')}"


def fields_of(kind: type[Any], values: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[ConfigField]:
    """Return the fields of a config class or dataclass, `run` last.

    `values` are plain values that are taken as defaults, such as those that a class computes from other fields.
    """
    hints, limits = _hints(kind), _limits(kind)
    docs, defaults = _sentences(kind), _defaults(kind)
    names = sorted(field_names(kind), key="run".__eq__)
    return [
        _field(
            ConfigField(
                (*path, name), hints[name], limits.get(name, ()), values.get(name, defaults[name]), docs.get(name, "")
            )
        )
        for name in names
    ]


def with_nested(fields: list[ConfigField]) -> Iterator[ConfigField]:
    """Yield the fields and those nested in them, each part before its fields."""
    for field in fields:
        yield field
        if field.part is not None:
            yield from with_nested(nested(field))


def nested(field: ConfigField) -> list[ConfigField]:
    """Return the fields of a part."""
    assert field.part is not None
    given = field.default if isinstance(field.default, Mapping) else {}
    return fields_of(field.part, given, field.path)


def type_text(field: ConfigField) -> str:
    """Return the type in words, such as `integer >= 1` or `path or step/name`."""
    marks = _marks(field.kind)
    names = [text for text in (_member_text(one, marks) for one in members(field.kind)) if text]
    text = " or ".join(dict.fromkeys(names))
    bounds = [f"{_SIGNS[type(one)]} {_bound(one)}" for one in (*field.limits, *marks) if type(one) in _SIGNS]
    return f"{text} {', '.join(dict.fromkeys(bounds))}".rstrip()


def choices(field: ConfigField) -> list[str]:
    """Return the words that a field accepts, if it accepts words; for a field of true or false, these two."""
    found = [word for mark in _marks(field.kind) if isinstance(mark, Choices) for word in mark.names]
    for one in members(field.kind):
        if one is bool:
            found += ["true", "false"]
        if typing.get_origin(one) is Literal:
            found += [str(word) for word in typing.get_args(one)]
    return found


def is_path(field: ConfigField) -> bool:
    """Return whether its value may be a file or folder."""
    return any(isinstance(mark, Location) for mark in _marks(field.kind))


def plain(value: object) -> object:
    """Return a default as the plain value that YAML has for it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def yaml_text(value: object) -> str:
    """Return a value as YAML on one line; `null` for None."""
    text = yaml.safe_dump(plain(value), default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _field(field: ConfigField) -> ConfigField:
    parts = [one for one in members(field.kind) if isinstance(one, type) and field_names(one)]
    others = [one.config for one in _marks(field.kind) if isinstance(one, ValuesOf)]
    part = parts[0] if parts and not others else None
    sentence = field.sentence or (_first_sentence(part.__doc__) if part is not None else "")
    default = plain(field.default) if field.default is not REQUIRED else REQUIRED
    return dataclasses.replace(
        field, part=part, values_of=others[0] if others else None, sentence=sentence, default=default
    )


def _first_sentence(doc: str | None) -> str:
    text = " ".join((doc or "").split())
    return text.partition(". ")[0].rstrip(".") + "." if text else ""


def _hints(kind: type[Any]) -> dict[str, object]:
    """Return the annotations; of words that a subclass fixes, those of the class that has them all."""
    hints: dict[str, object] = typing.get_type_hints(kind, include_extras=True)
    for base in kind.__mro__[1:]:
        if issubclass(base, Config):
            wider = typing.get_type_hints(base, include_extras=True)
            hints |= {name: wider[name] for name in wider if typing.get_origin(wider[name]) is Literal}
    return hints


def _sentences(kind: type[Any]) -> dict[str, str]:
    if issubclass(kind, BaseModel):
        bases = [base for base in reversed(kind.__mro__) if issubclass(base, BaseModel)]
        fields = [(name, field) for base in bases for name, field in base.model_fields.items()]
        found = {name: field.description for name, field in fields if field.description}
    else:
        found = _attribute_docs(kind)
    return {name: " ".join(text.split()) for name, text in found.items()}


def _attribute_docs(kind: type[Any]) -> dict[str, str]:
    """Return the attribute docstrings of a dataclass and its bases, from their source; Python keeps none of them."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError):
            continue
        for field, text in itertools.pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[ast.unparse(field.target)] = str(text.value.value)
    return docs


def _defaults(kind: type[Any]) -> dict[str, object]:
    if issubclass(kind, BaseModel):
        return {name: _default_of_model(field) for name, field in kind.model_fields.items()}
    found: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        found[field.name] = REQUIRED if made is dataclasses.MISSING else made
    return found


def _default_of_model(field: Any) -> object:
    return field.get_default(call_default_factory=True)


def _limits(kind: type[Any]) -> dict[str, tuple[object, ...]]:
    if issubclass(kind, Config):
        return {name: tuple(field.metadata) for name, field in kind.model_fields.items()}
    return {}


def _marks(kind: object) -> tuple[object, ...]:
    """Return the marks of an annotation, and of the members of a union."""
    if typing.get_origin(kind) is Annotated:
        inner, *marks = typing.get_args(kind)
        listed = [one for mark in marks for one in getattr(mark, "metadata", [mark])]
        return (*listed, *_marks(inner))
    if typing.get_origin(kind) in {list, tuple, dict}:
        return ()
    return tuple(mark for one in typing.get_args(kind) for mark in _marks(one))


def _member_text(one: object, marks: tuple[object, ...]) -> str:
    if typing.get_origin(one) is Literal:
        return "|".join(str(word) for word in typing.get_args(one))
    if typing.get_origin(one) in {list, tuple}:
        inner = " or ".join(_member_text(item, ()) for item in members(typing.get_args(one)[0]))
        return f"list of {inner}"
    if typing.get_origin(one) is dict or one is dict:
        return "mapping"
    if isinstance(one, type) and field_names(one):
        return "fields"
    return _text_of_text(marks) if one is str else {bool: "true|false", int: "integer", float: "number"}.get(one, "")  # type: ignore[call-overload]  # the key of a get is any object


def _text_of_text(marks: tuple[object, ...]) -> str:
    for mark in marks:
        if isinstance(mark, Choices):
            return "|".join(mark.names)
        if isinstance(mark, Location):
            artifact = [f"{mark.step}/NAME"] if mark.step is not None else []
            return " or ".join([*artifact, "path", *mark.words])
    return "text"


def _bound(one: object) -> str:
    (value,) = dataclasses.astuple(one)  # type: ignore[call-overload]  # a mark of annotated_types
    return f"{value:g}"
