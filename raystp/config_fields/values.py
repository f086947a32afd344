"""Plain values of a config from YAML and `--set`, read by the declared type of each field.

YAML alone takes `2024`, `on`, `1e5`, `007` and dates for other things than text, and drops what follows ` #`. Here a
field of text gets its text as it was written. Numbers must be decimal: YAML reads `010` as 8 and `1:30` as 90.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, PlainValidator
from pydantic_core import PydanticCustomError

_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp"))
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_NONE = frozenset({"none", "None", "NONE"})
"""Python's word, as no value of a `--set`."""
_DECIMAL = re.compile(r"[+-]?(0|[1-9]\d*|\d*\.\d+|\d+\.)([eE][+-]?\d+)?|[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclasses.dataclass(frozen=True)
class ValuesOf:
    """Annotation of a field with the plain values of another config, which is validated later."""

    config: type[BaseModel]


def _count_or_all(value: Any) -> int | Literal["all"]:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    kind, text = "neighbour_count", "Input should be a whole number from 1 on, or 'all'"
    raise PydanticCustomError(kind, text)


NeighbourCount = Annotated[int | Literal["all"], PlainValidator(_count_or_all)]
"""Type of a field with a number of neighbours, or `all` rows."""


def _count_or_share(value: Any) -> int | float:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, float) and 0 <= value <= 1:
        return value
    kind, text = "failure_limit", "Input should be a number of slides (5), or a share of them from 0.0 to 1.0 (0.01)"
    raise PydanticCustomError(kind, text)


FailureLimit = Annotated[int | float, PlainValidator(_count_or_share)]
"""Type of a field with a number of slides (int), or a share of them (float)."""


class UnclearValue(yaml.YAMLError):
    """A value that YAML reads in another way than it is meant."""


def read_values(text: str, kind: object) -> object:
    """Return the plain values of a YAML text for a config class, or for the type of one field.

    Raises YAMLError for other YAML, such as a Python object, and UnclearValue for a number that is not decimal.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, kind)
    except RecursionError:
        msg = "its nesting is too deep for a config"
        raise yaml.YAMLError(msg) from None
    except (ValueError, OverflowError) as error:  # of a date, say 2024-13-01
        msg = f"a value cannot be read ({error}): quote it if it is text"
        raise UnclearValue(msg) from None


def read_override(text: str, kind: object) -> object:
    """Return the value of a `--set` for a field of this type: text as it is, without spaces at its ends; else YAML.

    Quotes keep spaces, and give words such as `null`, which mean no value where the field allows none.
    """
    text = text.strip()
    is_group = text[:1] in {"{", "["} and _accepts_groups(kind)
    if not _is_text(kind) or is_group or text in {"", "~"}:
        return read_values(text, kind)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        try:
            quoted = read_values(text, kind)
        except yaml.YAMLError:
            return text
        return quoted if isinstance(quoted, str) else text
    if _is_optional(kind) and (text in _NULL or (text in _NONE and text not in _words(kind))):
        return None
    return text


def field_type(kind: object, path: Sequence[str], values: object) -> object:
    """Return the type of a field by its dotted name, or None; `values` choose among the variants of a class."""
    for key in path:
        kind = inner(_variant(kind, values if isinstance(values, Mapping) else {}), key)
        values = values.get(key) if isinstance(values, Mapping) else None
    return kind


def inner(at: object, key: str | int) -> object:
    """Return the annotation one step down: a field, an item of a list or a dict, or a member of a union."""
    for one in members(at):
        if typing.get_origin(one) in {list, tuple, dict}:
            return typing.get_args(one)[1 if typing.get_origin(one) is dict else 0]
        if isinstance(one, type) and str(key) in field_names(one):
            return typing.get_type_hints(one, include_extras=True)[str(key)]
    named = [one for one in classes(at) if key == one.__name__ or key in _tags(one)]  # pydantic names a union's member
    return named[0] if named else None


def members(annotation: object) -> list[object]:
    """Return the members of a union, or the annotation alone, without `Annotated` and None."""
    if typing.get_origin(annotation) is Annotated:
        described = [one.config for one in typing.get_args(annotation)[1:] if isinstance(one, ValuesOf)]
        return [*described, *members(typing.get_args(annotation)[0])]
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return [one for part in typing.get_args(annotation) for one in members(part)]
    return [] if annotation is type(None) else [annotation]


def classes(annotation: object) -> list[type]:
    """Return the members of a union that are classes."""
    return [one for one in members(annotation) if isinstance(one, type)]


def field_names(part: object) -> list[str]:
    """Return the names of the fields of a config class or dataclass."""
    if dataclasses.is_dataclass(part):
        return [field.name for field in dataclasses.fields(part)]
    return list(part.model_fields) if isinstance(part, type) and issubclass(part, BaseModel) else []


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, for plain values only; a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        self.check_keys(node)
        return super().construct_mapping(node, deep)

    def check_keys(self, node: yaml.MappingNode) -> None:
        """Raise ConstructorError for a key that is given twice, or is a list or a mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))


def _value(loader: _Loader, node: yaml.Node, kind: object) -> object:
    """Return the plain value of a node by its declared type; without one, as YAML reads it."""
    if isinstance(node, yaml.ScalarNode):
        return _scalar(loader, node, kind)
    if isinstance(node, yaml.SequenceNode) and any(typing.get_origin(one) in {list, tuple} for one in members(kind)):
        return [_value(loader, one, _item(kind)) for one in node.value]
    is_group = any(field_names(one) or typing.get_origin(one) is dict for one in members(kind))
    if isinstance(node, yaml.MappingNode) and is_group:
        loader.check_keys(node)
        loader.flatten_mapping(node)
        plain = {key.value: one.value for key, one in node.value if isinstance(one, yaml.ScalarNode)}
        kind = _variant(kind, plain)
        keys = [(loader.construct_document(key), key.value, one) for key, one in node.value]
        return {key: _value(loader, one, inner(kind, str(name))) for key, name, one in keys}
    return loader.construct_document(node)


def _scalar(loader: _Loader, node: yaml.ScalarNode, kind: object) -> object:
    if node.tag in _SCALARS and _is_text(kind):
        is_null = node.tag == f"{_TAG}null" and (_is_optional(kind) or node.value in {"", "~"})
        return None if is_null else node.value
    is_number = node.tag in {f"{_TAG}int", f"{_TAG}float"} and node.style is None
    if is_number and {int, float} & set(classes(kind)) and not _DECIMAL.fullmatch(node.value):
        msg = f"{node.value!r} is not a decimal number (YAML reads {loader.construct_document(node)}): write it as one"
        raise UnclearValue(msg)
    return loader.construct_document(node)


def _item(kind: object) -> object:
    """Return the type of a list's items."""
    lists = [one for one in members(kind) if typing.get_origin(one) in {list, tuple}]
    return typing.get_args(lists[0])[0]


def _variant(kind: object, values: Mapping[str, Any]) -> object:
    """Return the class that validates these values, for a config class with several kinds of work."""
    steps = [one for one in classes(kind) if hasattr(one, "variant")]
    return steps[0].variant(values) if steps else kind


def _is_text(kind: object) -> bool:
    """Return whether a single value of this type is text: a `str`, or one of several words."""
    singles = [
        one for one in members(kind) if not field_names(one) and typing.get_origin(one) not in {list, tuple, dict}
    ]
    return bool(singles) and all(one is str or _is_word(one) for one in singles)


def _is_word(kind: object) -> bool:
    return typing.get_origin(kind) is Literal and all(isinstance(one, str) for one in typing.get_args(kind))


def _accepts_groups(kind: object) -> bool:
    return any(field_names(one) or typing.get_origin(one) in {list, tuple, dict} for one in members(kind))


def _is_optional(kind: object) -> bool:
    if typing.get_origin(kind) is Annotated:
        return _is_optional(typing.get_args(kind)[0])
    return type(None) in typing.get_args(kind)


def _words(kind: object) -> tuple[str, ...]:
    """Return the words that a field of a path accepts beside paths."""
    marks = typing.get_args(kind)[1:] if typing.get_origin(kind) is Annotated else ()
    return tuple(word for mark in marks for word in getattr(mark, "words", ()))


def _tags(part: type) -> set[object]:
    """Return the values of a class's `Literal` fields, by which a union may tell its members apart."""
    hints = [typing.get_type_hints(part)[name] for name in field_names(part)]
    return {value for hint in hints if typing.get_origin(hint) is Literal for value in typing.get_args(hint)}
