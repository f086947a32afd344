"""The words of a command line -> a command, its config file and its overrides.

`--tile-um 112`, `tile_um=112` and `--set tile_um=112` are one override, in the order given; the last one wins. Every
flag is a field of the step's config class: dashes are its underscores, dots lead into nested parts.
"""

import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from raystp.cli.commands import COMMANDS, STEPS, TOOLS, ConfigClass, config_of
from raystp.cli.fields import fields_of, flag_of, with_nested
from raystp.config_fields.faults import renamed_keys
from raystp.config_fields.values import classes, field_names, field_type, members

Action = Literal["run", "help", "help-all", "template", "dry-run", "version", "tool"]
ACTIONS: dict[str, Action] = {
    "--help": "help",
    "-h": "help",
    "--help-all": "help-all",
    "--template": "template",
    "--dry-run": "dry-run",
}
"""Flags that print something instead of running the step."""

SHORT_FLAGS = {"-o": "--out"}
"""Short flag -> the flag that it stands for, in the commands with a field of that name."""

LOG_FORMATS = ("text", "json")
"""How messages are printed on stderr."""

OWN_FLAGS = ("--config", "--set", "--log-format", *ACTIONS)
"""Flags of every step; no config may have a field of such a name."""

BOOLEANS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none"})


_OVERRIDE = re.compile(r"[^/?:=]+=")
"""The start of FIELD=VALUE; a URI with a query is a value: `s3://bucket/slides?region=eu`."""


class WrongCommandLine(Exception):  # noqa: N818 -- it names what is wrong
    """The words are no command; the message names the nearest one."""


@dataclass(frozen=True)
class Command:
    """What a command line asks for."""

    name: str
    """A command, or "" for `raystp` alone."""
    action: Action = "run"
    config: str | None = None
    """The YAML file."""
    overrides: tuple[str, ...] = ()
    """`key=value`, in the order given."""
    log_format: str = "text"
    """One of `LOG_FORMATS`."""
    words: tuple[str, ...] = ()
    """Of a tool: the words after its name."""


def read_command(words: Sequence[str]) -> Command:
    """Return the command of a command line. Raises WrongCommandLine for an unknown command or flag.

    ConfigError if the flags depend on a config file that cannot be read.
    """
    if not words:
        msg = f"no command is given; the commands are {', '.join(COMMANDS)}; see `raystp --help`"
        raise WrongCommandLine(msg)
    name, *rest = words
    if name in {"--help", "-h", "--help-all"}:
        return Command("", "help")
    if name == "--version":
        return Command("", "version")
    if name not in COMMANDS:
        raise WrongCommandLine(_unknown_command(name))
    if name in TOOLS:
        return Command(name, "help" if {"--help", "-h"} & {*rest} else "tool", words=tuple(rest))
    return _StepWords(name, config_of(name)).read(rest)


def keys_of(step: str, kind: ConfigClass) -> list[str]:
    """Return the dotted names of all fields of a step, of each kind of its work."""
    kinds = [kind.variant({}), *variants_of(step)]
    return list(dict.fromkeys(one.key for each in kinds for one in with_nested(fields_of(each, {})) if not one.is_part))


def variants_of(step: str) -> list[ConfigClass]:
    """Return the config classes of a step by the values of `targets`, where it has several kinds of work."""
    kind = config_of(step)
    targets = typing.get_type_hints(kind).get("targets")
    return [kind.variant({"targets": word}) for word in typing.get_args(targets)]


class _StepWords:
    """Reads the words after a step's name."""

    def __init__(self, step: str, kind: ConfigClass) -> None:
        self.step, self.kind = step, kind
        self.action: Action = "run"
        self.config: str | None = None
        self.log_format = "text"
        self.overrides: list[str] = []
        self.flags: list[tuple[str, str]] = []
        """Key and flag as given, to be checked when all values are known."""

    def read(self, words: Sequence[str]) -> Command:
        left = list(words)
        while left:
            word = left.pop(0)
            if word in ACTIONS:
                self.action = ACTIONS[word]
            elif word.startswith("--"):
                self._flag(word, left)
            elif word.startswith("-") and word != "-":
                self._flag(self._long(word), left)
            elif _OVERRIDE.match(word):
                self.overrides.append(word)
            else:
                self._single(word)
        self._check_flags()
        return Command(self.step, self.action, self.config, tuple(self.overrides), self.log_format)

    def _flag(self, word: str, left: list[str]) -> None:
        flag, equals, text = word.partition("=")
        if flag == "--config":
            self.config = text if equals else _value_of(flag, left, "FILE")
        elif flag == "--log-format":
            self.log_format = text if equals else _value_of(flag, left, "text or json")
            if self.log_format not in LOG_FORMATS:
                msg = f"--log-format {self.log_format!r} is unknown; use {' or '.join(LOG_FORMATS)}"
                raise WrongCommandLine(msg)
        elif flag == "--set":
            override = text if equals else _value_of(flag, left, "FIELD=VALUE")
            if "=" not in override:
                msg = f"--set {override!r} is not of the form FIELD=VALUE, as in --set run.store=/data/store"
                raise WrongCommandLine(msg)
            self.overrides.append(override)
        else:
            self._field(flag, text if equals else None, left)

    def _long(self, word: str) -> str:
        """Return a word with a short flag as that with the long flag; `-o=DIR` is `--out=DIR`."""
        flag, equals, text = word.partition("=")
        long = SHORT_FLAGS.get(flag)
        if long is None or self._type_of(long.removeprefix("--")) is None:
            own = [f"{short} ({one})" for short, one in SHORT_FLAGS.items() if self._type_of(one.removeprefix("--"))]
            said = ", ".join([*own, "-h"])
            msg = f"raystp {self.step} has no flag {flag}; its short flags are {said}. `raystp {self.step} --help`"
            raise WrongCommandLine(f"{msg} lists all; a file of such a name is ./{flag}")
        return f"{long}{equals}{text}"

    def _field(self, flag: str, text: str | None, left: list[str]) -> None:
        key, is_off = self._key(flag)
        kind = self._type_of(key)
        if text is None and bool in classes(kind) and (is_off or not left or left[0].lower() not in BOOLEANS):
            text = "false" if is_off else "true"
        if text is None:
            text = _value_of(flag, left, "a value")
        self.flags.append((key, flag))
        self.overrides.append(f"{key}={_as_list(kind, text)}")

    def _key(self, flag: str) -> tuple[str, bool]:
        """Return the dotted name of a flag, and whether it is `--no-FIELD`."""
        key = self._named(flag.removeprefix("--"))
        if self._type_of(key) is None and flag.startswith("--no-"):
            other = self._named(flag.removeprefix("--no-"))
            if bool in classes(self._type_of(other)):
                return other, True
        return key, False

    def _named(self, dotted: str) -> str:
        """Return a dotted name with underscores for dashes, but in keys that the user chooses, such as of `also`."""
        keys: list[str] = []
        for part in dotted.split("."):
            at = self._type_of(".".join(keys)) if keys else self.kind
            is_free = any(typing.get_origin(one) is dict for one in members(at)) and not any(
                field_names(one) for one in members(at)
            )
            keys.append(part if is_free else part.replace("-", "_"))
        return ".".join(keys)

    def _type_of(self, key: str) -> object:
        return next(
            (found for values in self._drafts() if (found := field_type(self.kind, key.split("."), values))), None
        )

    def _drafts(self) -> Iterator[Mapping[str, object]]:
        """Yield values that choose each kind of work of the step: the flags of all are known before the values are."""
        yield {}
        for word in typing.get_args(typing.get_type_hints(self.kind).get("targets")):
            yield {"targets": word}

    def _single(self, word: str) -> None:
        for field in self.kind.bare_arguments():
            if not any(one.startswith(f"{field}=") for one in self.overrides):
                self.overrides.append(f"{field}={word}")
                return
        first = next((one for one in fields_of(self.kind.variant({}), {}) if one.is_required), None)
        hint = f"; did you mean {first.flag} {word}?" if first is not None else "."
        msg = f"raystp {self.step}: {word!r} is neither --FIELD VALUE nor FIELD=VALUE{hint} See `--help`"
        raise WrongCommandLine(msg)

    def _check_flags(self) -> None:
        """Raise WrongCommandLine for the first flag that is no field of this kind of work."""
        if not self.flags:
            return
        values = self.kind.read_values(self.config, self.overrides)
        for key, flag in self.flags:
            if field_type(self.kind, key.split("."), values) is None:
                raise WrongCommandLine(self._unknown(key, flag, values))

    def _unknown(self, key: str, flag: str, values: Mapping[str, object]) -> str:
        *outer, last = key.split(".")
        part = field_type(self.kind, outer, values) if outer else self.kind.variant(values)
        old = {name: new for one in classes(part) for name, new in renamed_keys(one).items()}
        if last in old:
            new = old[last]
            said = new if " " in new else f"it is now {flag_of('.'.join([*outer, new]))}"
            return f"raystp {self.step} has no flag {flag}: {said}"
        known = [*(flag_of(one) for one in keys_of(self.step, self.kind)), *OWN_FLAGS]
        near = _same_end(flag, known) or difflib.get_close_matches(flag, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        return f"raystp {self.step} has no flag {flag}{hint} `raystp {self.step} --help-all` lists them"


def _same_end(flag: str, known: Sequence[str]) -> list[str]:
    """Return the flags of nested fields with this name, as `--store` is meant for `--run.store`."""
    return [one for one in known if one.endswith(f".{flag.removeprefix('--')}")]


def _value_of(flag: str, left: list[str], what: str) -> str:
    if not left or left[0].startswith("--") or left[0] in SHORT_FLAGS:
        msg = f"{flag} needs {what}" + (f"; for a value that starts with dashes write {flag}=VALUE" if left else "")
        raise WrongCommandLine(msg)
    return left.pop(0)


def _as_list(kind: object, text: str) -> str:
    """Return `a,b` as `[a,b]` where the field takes a list and no single text."""
    lists = [one for one in members(kind) if typing.get_origin(one) in {list, tuple}]
    singles = [one for one in members(kind) if one not in lists]
    is_single = any(one is str or field_names(one) or typing.get_origin(one) is dict for one in singles)
    if not lists or is_single or text.lstrip()[:1] in {"[", ""} or text in {"null", "~", "none"}:
        return text
    return f"[{text}]" if not singles or "," in text else text


def _unknown_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean `raystp {near[0]}`?" if near else "."
    return f"there is no command {name!r}{hint} The steps are {', '.join(STEPS)}; `raystp --help` lists all commands"
