"""Sentences for the faults of a config: the field, what is allowed, the value seen, and the name that was meant."""

import difflib
import re
import reprlib
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from raystp.config_fields.values import classes, field_names, inner

_SHORT = reprlib.Repr()
"""Shortens a wrong value: a few lines of YAML aliases can expand to millions of values."""
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 120, 120

_LABEL = re.compile(r"[\[(]|^(constrained-)?(str|int|float|bool|tuple|list|dict|none)$")
"""A part of a fault's place that is no field or key, but the name that pydantic gives to one type of several."""

_OTHER_TYPE = frozenset(
    {"tuple_type", "list_type", "dict_type", "string_type", "float_type", "int_type", "none_required"}
)
"""Kinds of faults that a value has for each type that it is not meant to have."""

_WORDS = {"tuple_type": "Input should be a valid list", "dict_type": "Input should be a group of names and values"}
"""In place of pydantic's words for types of Python that a YAML file does not have."""


def fault_sentences(kind: type[BaseModel], error: ValidationError) -> list[str]:
    """Return one sentence for each faulty field of a config class, starting with the field's dotted name."""
    return [_sentence(kind, fault) for fault in _of_fields(error.errors())]


def renamed_keys(part: object) -> dict[str, str]:
    """Return old key -> new key, or a sentence, of a config class or dataclass and its base classes."""
    bases = part.__mro__ if isinstance(part, type) else ()
    return {old: new for base in reversed(bases) for old, new in vars(base).get("RENAMED", {}).items()}


def _of_fields(faults: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Yield the faults with the names of fields alone; of a field with several types, those of the nearest type."""
    places: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for fault in faults:
        if fault["type"] == "too_short" and len(fault["input"]) > fault["ctx"]["actual_length"]:
            continue  # pydantic counts the valid entries; each other one has a fault of its own
        labels = [number for number, part in enumerate(fault["loc"]) if isinstance(part, str) and _LABEL.search(part)]
        place = fault["loc"] if len(fault["loc"]) < 2 or not labels else fault["loc"][: labels[0]]  # noqa: PLR2004
        places.setdefault(place, []).append(fault)
    for place, found in places.items():
        nearest = [fault for fault in found if fault["type"] not in _OTHER_TYPE] or found[:1]
        for fault in nearest if len(found) > 1 else found:
            fault["loc"] = place
            yield fault


def _sentence(kind: type[BaseModel], fault: ErrorDetails) -> str:
    location: tuple[str | int, ...] = fault["loc"]
    key = ".".join(str(part) for part in location) or "the config"
    if fault["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:  # of a Config, of a plain dataclass
        *outer, last = location
        part = _part_at(kind, outer)
        if last in renamed_keys(part):
            return f"{key}: {_renamed([str(one) for one in outer], renamed_keys(part)[str(last)])}"
        near = difflib.get_close_matches(str(last), field_names(part), n=1)
        return f"{key}: there is no such field" + (f"; did you mean {near[0]!r}?" if near else "")
    if fault["type"] == "missing":
        return f"{key}: must be given"
    if fault["type"] in {"model_type", "dataclass_type", "model_attributes_type"}:
        first = next(iter(field_names(_part_at(kind, location))), None)
        example = f", such as `{key}.{first}`" if first is not None else ""
        return f"{key}: must be a group of fields{example}, got {_SHORT.repr(fault['input'])}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error" and not isinstance(fault["input"], str | int | float | list | None):
        return f"{key}: {message}"  # it names the value of one field
    is_one = fault["type"] in {"list_type", "tuple_type"} and isinstance(fault["input"], str)
    hint = f"; write [{fault['input']}]" if is_one else ""
    given = "no value" if fault["input"] is None else _SHORT.repr(fault["input"])
    return f"{key}: {_WORDS.get(fault['type'], message)}, got {given}{hint}"


def _renamed(outer: list[str], new: str) -> str:
    return new if " " in new else f"renamed to {'.'.join([*outer, new])}"


def _part_at(kind: type[BaseModel], path: Sequence[str | int]) -> object:
    """Return the nested config class or dataclass at the path of a fault, or None."""
    at: object = kind
    for key in path:
        at = inner(at, key)
    return next(iter(classes(at)), None)
