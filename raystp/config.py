"""Configs: frozen, closed, small. Pydantic at the door, plain values in the house.

A step's config says WHAT is computed; its `run` part says where and how wide, and never changes the result. Defaults
live in the class; a YAML file holds differences only; `--set a.b=value` overrides one field, the value read as YAML.
Every fault of a file and its overrides is in one message.
"""

import dataclasses
import difflib
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raystp.errors import ConfigError


class Config(BaseModel):
    """A frozen, closed value: an unknown key is an error, and a field is never changed after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions: old key -> new key of this class, or a sentence where no new key replaces it alone.

    A plain dataclass that is part of a config may have the same attribute. A file, `--set` or manifest with an old key
    is refused with a message that names the new one.
    """


@dataclasses.dataclass(frozen=True)
class Location:
    """Marks a field that says where something lies: a path or URI, or `<step>/<name>` of an artifact in the store."""

    step: str | None = None
    words: tuple[str, ...] = ()
    """Values that are no place at all."""


class RunConfig(Config):
    """Where and how wide: never part of a result's name."""

    store: Annotated[str, Location()] = "store"
    """Folder or URI under which artifacts lie, `<store>/<step>/<name>-<fingerprint>/`."""

    address: str | None = None
    """Address of a running Ray cluster; without one, a local Ray starts by itself."""

    retry_failed: bool = False
    """Try again what failed in an artifact that is done but for the rows of its failures table."""


R = TypeVar("R", bound=RunConfig)
C = TypeVar("C", bound="StepConfig[Any]")


class StepConfig(Config, Generic[R]):
    """What every step's config has: a name for its artifact, and the bill."""

    where: ClassVar[frozenset[str]] = frozenset()
    """Fields that only say where an input lies; the input's own fingerprint counts instead of its path."""

    name: str = Field(default="default", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """The artifact's folder begins with it; the rest is the fingerprint."""

    run: R

    @classmethod
    def load(cls: type[C], path: str | Path | None, overrides: Sequence[str] = ()) -> C:
        """Read a YAML file (or nothing) and `key=value` overrides; raise ConfigError with every fault at once."""
        where = str(path) if path is not None else "the command line"
        values = read_yaml(Path(path)) if path is not None else {}
        for override in overrides:
            _set(values, override)
        return cls.of(values, where)

    @classmethod
    def of(cls: type[C], values: dict[str, Any], where: str = "the config") -> C:
        """Build the config from plain values; raise ConfigError with every fault at once."""
        kind = cls.variant(values)
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            lines = [f"  {_sentence(kind, fault)}" for fault in error.errors()]
            msg = "\n".join([f"{where} does not describe {_article(kind.__name__)} {kind.__name__}:", *lines])
            raise ConfigError(msg) from None

    @classmethod
    def variant(cls: type[C], values: Mapping[str, Any]) -> type[C]:  # noqa: ARG003 -- read by steps with two kinds of work
        """Return the class that these values are validated by: a subclass, for a step with two kinds of work."""
        return cls

    def check_absolute(self) -> None:
        """Raise ConfigError, naming every field, where a path depends on the working directory."""
        found = list(relative_paths(self))
        if found:
            lines = [f"  {field}: {value!r} is relative; an absolute path or a URI would do" for field, value in found]
            msg = "a submitted job runs in an uploaded copy of the code, which goes away with the job:"
            raise ConfigError("\n".join([msg, *lines]))

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed, as plain JSON values: all but `run`, `name` and the fields in `where`."""
        return self.model_dump(mode="json", exclude={"run", "name", *self.where})

    def manifest_values(self) -> dict[str, Any]:
        """Return the config as the manifest records it: all but `run`, which may hold a store's address."""
        return self.model_dump(mode="json", exclude={"run"})


def relative_paths(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and value of each field marked `Location` whose path is relative, in nested configs too."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from relative_paths(value, f"{prefix}{name}.")
        if isinstance(value, dict):
            for key, one in value.items():
                yield from relative_paths(one, f"{prefix}{name}.{key}.") if isinstance(one, BaseModel) else ()
        for mark in field.metadata:
            if isinstance(mark, Location) and value is not None:
                values = [value] if isinstance(value, str) else value
                yield from ((f"{prefix}{name}", one) for one in values if _is_relative(one, mark))


def _is_relative(text: str, mark: Location) -> bool:
    head, slash, name = text.partition("/")
    is_artifact = mark.step is not None and head == mark.step and slash and "/" not in name
    if is_artifact or text in mark.words:
        return False
    if text.startswith("sqlite:///"):
        return not text.startswith("sqlite:////")
    return "://" not in text and not Path(text).expanduser().is_absolute()


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config file's plain values; raises ConfigError, naming the file, where it holds none."""
    try:
        values = _plain(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; beside it there are {', '.join(beside)}" if beside else ""
        msg = f"no config file {path}{hint}"
        raise ConfigError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as text: {error}"
        raise ConfigError(msg) from None
    except yaml.YAMLError as error:
        msg = f"{path} is not YAML: {error}"
        raise ConfigError(msg) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        msg = f"{path} holds a {type(values).__name__}, a config is a mapping of fields to values"
        raise ConfigError(msg)
    strange = [key for key in values if not isinstance(key, str)]
    if strange:
        msg = f"{path}: {strange[0]!r} is no field's name, fields are named by words"
        raise ConfigError(msg)
    return values


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        msg = f"--set {override!r} is not key=value, such as --set run.store=/data/store"
        raise ConfigError(msg)
    try:
        value = _plain(text)
    except yaml.YAMLError as error:
        msg = f"--set {override!r}: the value is not YAML: {error}"
        raise ConfigError(msg) from None
    set_field(values, key, value, f"--set {override!r}")


def set_field(values: dict[str, Any], key: str, value: Any, who: str) -> None:
    """Set one field of a config's plain values by its dotted name; `who` begins the sentence where that cannot be."""
    *path, last = key.split(".")
    for part in path:
        if values.get(part) is None:  # absent, or a heading with nothing under it
            values[part] = {}
        inner = values[part]
        if not isinstance(inner, dict):
            msg = f"{who}: {part!r} is a single value in the file, not a group of fields"
            raise ConfigError(msg)
        values = inner
    values[last] = value


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, plain values alone, but a key that is given twice is an error, not lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _plain(text: str) -> Any:
    """Return the plain values that a text in YAML holds; raises YAMLError for anything else, a Python object too."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        msg = "it is nested too deeply for a config"
        raise yaml.YAMLError(msg) from None


_SHORT = reprlib.Repr()
"""Of a wrong value its beginning is shown: a few lines of YAML's aliases can stand for millions of values."""
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 120, 120


def _sentence(cls: type[BaseModel], fault: Any) -> str:
    location: tuple[str | int, ...] = fault["loc"]
    key = ".".join(str(part) for part in location) or "the whole"
    if fault["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:  # of a Config, of a plain dataclass
        *outer, last = location
        part = _part_at(cls, outer)
        if last in renamed_keys(part):
            return f"{key}: {_renamed([str(one) for one in outer], renamed_keys(part)[str(last)])}"
        near = difflib.get_close_matches(str(last), _field_names(part), n=1)
        return f"{key}: there is no such field" + (f"; did you mean {near[0]!r}?" if near else "")
    if fault["type"] == "missing":
        return f"{key}: must be given"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')}, got {_SHORT.repr(fault['input'])}"


def renamed_keys(part: object) -> dict[str, str]:
    """Return old key -> new key, or a sentence, of a config class or dataclass and its base classes."""
    bases = part.__mro__ if isinstance(part, type) else ()
    return {old: new for base in reversed(bases) for old, new in vars(base).get("RENAMED", {}).items()}


def _renamed(outer: list[str], new: str) -> str:
    return new if " " in new else f"renamed to {'.'.join([*outer, new])}"


def _part_at(cls: type[BaseModel], path: Sequence[str | int]) -> object:
    """Return the nested config class or dataclass at the path of a fault, or None."""
    at: object = cls
    for key in path:
        at = _inner(at, key)
    return next(iter(_classes(at)), None)


def _inner(at: object, key: str | int) -> object:
    """Return the annotation one step down: a field, an item of a list or a dict, or a member of a union."""
    for one in _members(at):
        if typing.get_origin(one) in {list, tuple, dict}:
            return typing.get_args(one)[-1]
        if isinstance(one, type) and str(key) in _field_names(one):
            return typing.get_type_hints(one, include_extras=True)[str(key)]
    named = [one for one in _classes(at) if key == one.__name__ or key in _tags(one)]  # pydantic names a union's member
    return named[0] if named else None


def _members(annotation: object) -> list[object]:
    """Return the members of a union, or the annotation alone, without `Annotated` and None."""
    if typing.get_origin(annotation) is Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return [inner for one in typing.get_args(annotation) for inner in _members(one)]
    return [] if annotation is type(None) else [annotation]


def _classes(annotation: object) -> list[type]:
    return [one for one in _members(annotation) if isinstance(one, type)]


def _tags(part: type) -> set[object]:
    """Return the values of a class's `Literal` fields, by which a union may tell its members apart."""
    hints = [typing.get_type_hints(part)[name] for name in _field_names(part)]
    return {value for hint in hints if typing.get_origin(hint) is Literal for value in typing.get_args(hint)}


def _field_names(part: object) -> list[str]:
    """Return the names of the fields of a config class or dataclass."""
    if dataclasses.is_dataclass(part):
        return [field.name for field in dataclasses.fields(part)]
    return list(part.model_fields) if isinstance(part, type) and issubclass(part, BaseModel) else []


def _article(word: str) -> str:
    return "an" if word[0] in "AEIOU" else "a"
