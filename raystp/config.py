"""Configs: frozen, closed classes that are read from YAML and `--set`.

A step's config says what is computed. Its `run` part sets the store and the resources, and never changes the result.
Defaults are in the class, a YAML file has only what differs, and `--set a.b=value` overrides one field. A field of text
takes the value as it is written; other values are read as YAML. One message has all faults of a file and its overrides.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raystp.config_fields.faults import fault_sentences
from raystp.config_fields.values import FailureLimit, UnclearValue, field_type, read_override, read_values
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
    prefixes: tuple[str, ...] = ()
    """Starts of values that are not a path."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """Annotation of a field of text with the words that its class accepts, for `--help` and the shell's completion."""

    names: tuple[str, ...]


class RunConfig(Config):
    """The store and the resources: never part of a fingerprint."""

    store: Annotated[str, Location()] = "store"
    """Folder or URI that contains the artifacts, `<store>/<step>/<name>-<fingerprint>/`."""

    address: str | None = None
    """Address of a running Ray cluster; without it a local Ray is started."""

    retry_failed: bool = False
    """Try the rows of a finished artifact's failures table again."""

    max_failed: FailureLimit = 0
    """Slides or sections that may fail: a number (5), or a share of all (0.01). Up to it the exit status is 0, above it
    3. They are rows of the failures table in both cases."""


R = TypeVar("R", bound=RunConfig)
C = TypeVar("C", bound="StepConfig[Any]")
M = TypeVar("M", bound=BaseModel)


class StepConfig(Config, Generic[R]):
    """Base of every step's config: the artifact's name, and the `run` part."""

    where: ClassVar[frozenset[str]] = frozenset()
    """Fields with the path of an input; the fingerprint covers the input's own fingerprint instead."""

    command: ClassVar[str | None] = None
    """The command that reads it, `raystp <command>`. None: a class that no command reads itself."""

    positional: ClassVar[str | tuple[str, ...] | None] = None
    """The field that a bare argument of the command line sets: `raystp slides INPUT`; or several, one after the other.
    None: it takes none."""

    name: str = Field(default="default", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """The first part of the artifact's folder name; the second is the fingerprint."""

    run: R

    def changed_fields(self) -> list[str]:
        """Return the fields whose value is not their default."""
        fields = type(self).model_fields.items()
        return [name for name, field in fields if getattr(self, name) != field.get_default(call_default_factory=True)]

    @classmethod
    def bare_arguments(cls) -> tuple[str, ...]:
        """Return the fields that bare arguments of the command line set, in their order."""
        given = cls.positional
        return () if given is None else (given,) if isinstance(given, str) else given

    @classmethod
    def load(cls: type[C], path: str | Path | None, overrides: Sequence[str] = ()) -> C:
        """Read an optional YAML file and `key=value` overrides; raise ConfigError with all faults in one message."""
        where = str(path) if path is not None else "the command line"
        return cls.of(cls.read_values(path, overrides), where)

    @classmethod
    def read_values(cls, path: str | Path | None, overrides: Sequence[str] = ()) -> dict[str, object]:
        """Return the plain values of a YAML file and overrides; raises ConfigError where they cannot be read."""
        if path is not None and "://" in str(path):  # not shown: it may have a key
            msg = "--config names an address, and a config is a file on this machine: download it first"
            raise ConfigError(msg)
        values = read_yaml(Path(path), cls) if path is not None else {}
        draft = copy.deepcopy(values)  # an override may choose the class that a later or earlier one belongs to
        for override in overrides:
            _set(draft, override, None)
        for override in overrides:
            key = override.partition("=")[0]
            _set(values, override, field_type(cls, key.split("."), draft))
        return values

    @classmethod
    def of(cls: type[C], values: Mapping[str, object], where: str = "the config") -> C:
        """Build the config from plain values; raise ConfigError with all faults in one message."""
        what = f"config of `raystp {cls.command}`" if cls.command is not None else "config"
        return validated(cls.variant(values), values, where, what)

    @classmethod
    def variant(cls: type[C], values: Mapping[str, object]) -> type[C]:  # noqa: ARG003 -- read by steps with two kinds of work
        """Return the class that these values are validated by: a subclass, for a step with two kinds of work."""
        return cls

    @classmethod
    def with_computed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return plain values with the defaults that depend on other values, for `--help` and `--template`."""
        return values

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


def validated(kind: type[M], values: Mapping[str, object], where: str, what: str = "config") -> M:
    """Build a config of this class from plain values; raise ConfigError with all faults in one message.

    The message names the source of the values, `where`, and `what` they should be.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [f"  {sentence}" for sentence in fault_sentences(kind, error)]
        msg = "\n".join([f"{where} is not a valid {what}:", *lines])
        raise ConfigError(msg) from None


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
                paths = [value] if isinstance(value, str) else value.values() if isinstance(value, dict) else value
                yield from ((f"{prefix}{name}", path) for path in paths if _is_relative(path, location))


def _is_relative(text: str, location: Location) -> bool:
    head, slash, name = text.partition("/")
    is_artifact = location.step is not None and head == location.step and slash and "/" not in name
    if is_artifact or text in location.words or text.startswith(location.prefixes):
        return False
    if text.startswith("sqlite:///"):
        return not text.startswith("sqlite:////")
    return "://" not in text and text != "~" and not text.startswith(("/", "~/"))


def read_yaml(path: Path, kind: type[BaseModel]) -> dict[str, object]:
    """Read a file's plain values for a config class. Raises ConfigError, with the file's name, if it is not valid."""
    try:
        values = read_values(path.read_text(encoding="utf-8-sig"), kind)
    except FileNotFoundError:
        beside = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; its folder has {', '.join(beside)}" if beside else ""
        msg = f"no config file {path}{hint}"
        raise ConfigError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"it is not UTF-8 at byte {getattr(error, 'start', 0)}"
        msg = f"{path} cannot be read as text: {reason}"
        raise ConfigError(msg) from None
    except UnclearValue as error:
        msg = f"{path}: {error}"
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


def _set(values: dict[str, object], override: str, kind: object) -> None:
    """Set one field of a config's plain values; `kind` is its type, or None."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        msg = f"--set {override!r} is not of the form key=value, as in --set run.store=/data/store"
        raise ConfigError(msg)
    try:
        value = read_override(text, kind)
    except yaml.YAMLError as error:
        if kind is None:
            value = text
        else:
            reason = error if isinstance(error, UnclearValue) else f"the value is not YAML: {error}"
            msg = f"--set {override!r}: {reason}"
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
