"""Configs: frozen, closed classes that are read from YAML and `--set`.

A step's config says what is computed. Its `run` part sets the store and the resources, and never changes the result.
Defaults are in the class, a YAML file has only what differs, and `--set a.b=value` overrides one field; the value is
read as YAML. One message has all faults of a file and its overrides.
"""

import dataclasses
import difflib
import reprlib
import types
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from raystp.errors import ConfigError


class Config(BaseModel):
    """A frozen, closed config: an unknown key is an error, and no field changes after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions: old key -> new key of this class, or a sentence if no single key replaces it.

    A plain dataclass that is part of a config may have the same attribute. A file, `--set` or manifest with an old key
    is refused with a message that names the new one.
    """


@dataclasses.dataclass(frozen=True)
class Location:
    """Annotation of a field with a path or URI, or with `<step>/<name>` of an artifact in the store."""

    step: str | None = None
    words: tuple[str, ...] = ()
    """Values that are not a path."""


class RunConfig(Config):
    """The store and the resources: never part of a fingerprint."""

    store: Annotated[str, Location()] = "store"
    """Folder or URI that contains the artifacts, `<store>/<step>/<name>-<fingerprint>/`."""

    address: str | None = None
    """Address of a running Ray cluster; without it a local Ray is started."""

    retry_failed: bool = False
    """Try the rows of a finished artifact's failures table again."""


R = TypeVar("R", bound=RunConfig)
C = TypeVar("C", bound="StepConfig[Any]")


class StepConfig(Config, Generic[R]):
    """Base of every step's config: the artifact's name, and the `run` part."""

    where: ClassVar[frozenset[str]] = frozenset()
    """Fields with the path of an input; the fingerprint covers the input's own fingerprint instead."""

    name: str = Field(default="default", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """The first part of the artifact's folder name; the second is the fingerprint."""

    run: R

    @classmethod
    def load(cls: type[C], path: str | Path | None, overrides: Sequence[str] = ()) -> C:
        """Read an optional YAML file and `key=value` overrides; raise ConfigError with all faults in one message."""
        where = str(path) if path is not None else "the command line"
        values = read_yaml(Path(path)) if path is not None else {}
        for override in overrides:
            _set(values, override)
        return cls.of(values, where)

    @classmethod
    def of(cls: type[C], values: Mapping[str, object], where: str = "the config") -> C:
        """Build the config from plain values; raise ConfigError with all faults in one message."""
        kind = cls.variant(values)
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            lines = [f"  {_sentence(kind, fault)}" for fault in error.errors()]
            msg = "\n".join([f"{where} is not a valid {kind.__name__}:", *lines])
            raise ConfigError(msg) from None

    @classmethod
    def variant(cls: type[C], values: Mapping[str, object]) -> type[C]:  # noqa: ARG003 -- read by steps with two kinds of work
        """Return the class that these values are validated by: a subclass, for a step with two kinds of work."""
        return cls

    def check_absolute(self) -> None:
        """Raise ConfigError, with every such field, if a path depends on the working directory."""
        found = list(relative_paths(self))
        if found:
            lines = [f"  {field}: {value!r} is relative; give an absolute path or a URI" for field, value in found]
            msg = "a submitted job runs in a copy of the code that is deleted after the job:"
            raise ConfigError("\n".join([msg, *lines]))

    def fingerprint_values(self) -> dict[str, Any]:
        """Return what is computed, as plain JSON values: all except `run`, `name` and the fields in `where`."""
        return self.model_dump(mode="json", exclude={"run", "name", *self.where})

    def manifest_values(self) -> dict[str, object]:
        """Return the config as the manifest stores it: all except `run`, which may have a store's address."""
        return self.model_dump(mode="json", exclude={"run"})


def relative_paths(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and value of each `Location` field whose path is relative, in nested configs too."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from relative_paths(value, f"{prefix}{name}.")
        if isinstance(value, dict):
            for key, one in value.items():
                yield from relative_paths(one, f"{prefix}{name}.{key}.") if isinstance(one, BaseModel) else ()
        for location in field.metadata:
            if isinstance(location, Location) and value is not None:
                paths = [value] if isinstance(value, str) else value
                yield from ((f"{prefix}{name}", path) for path in paths if _is_relative(path, location))


def _is_relative(text: str, location: Location) -> bool:
    head, slash, name = text.partition("/")
    is_artifact = location.step is not None and head == location.step and slash and "/" not in name
    if is_artifact or text in location.words:
        return False
    if text.startswith("sqlite:///"):
        return not text.startswith("sqlite:////")
    return "://" not in text and not Path(text).expanduser().is_absolute()


def read_yaml(path: Path) -> dict[str, object]:
    """Read a config file's plain values. Raises ConfigError, with the file's name, if it is not valid."""
    try:
        values = _plain(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; its folder has {', '.join(beside)}" if beside else ""
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
        msg = f"{path} contains a {type(values).__name__}; a config is a mapping of fields to values"
        raise ConfigError(msg)
    other = [key for key in values if not isinstance(key, str)]
    if other:
        msg = f"{path}: the key {other[0]!r} is not a string; the keys of a config are field names"
        raise ConfigError(msg)
    return values


def _set(values: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        msg = f"--set {override!r} is not of the form key=value, as in --set run.store=/data/store"
        raise ConfigError(msg)
    try:
        value = _plain(text)
    except yaml.YAMLError as error:
        msg = f"--set {override!r}: the value is not YAML: {error}"
        raise ConfigError(msg) from None
    set_field(values, key, value, f"--set {override!r}")


def set_field(values: dict[str, object], key: str, value: object, source: str) -> None:
    """Set one field of a config's plain values by its dotted name; `source` is the start of an error message."""
    *path, last = key.split(".")
    for part in path:
        if values.get(part) is None:  # absent, or a key without a value
            values[part] = {}
        inner = values[part]
        if not isinstance(inner, dict):
            msg = f"{source}: {part!r} is a single value in the file, not a group of fields"
            raise ConfigError(msg)
        values = inner
    values[last] = value


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, for plain values only; a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _plain(text: str) -> object:
    """Return the plain values of a YAML text. Raises YAMLError for anything else, such as a Python object."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        msg = "its nesting is too deep for a config"
        raise yaml.YAMLError(msg) from None


_SHORT = reprlib.Repr()
"""Shortens a wrong value: a few lines of YAML aliases can expand to millions of values."""
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 120, 120


def _sentence(cls: type[BaseModel], fault: ErrorDetails) -> str:
    location: tuple[str | int, ...] = fault["loc"]
    key = ".".join(str(part) for part in location) or "the config"
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
