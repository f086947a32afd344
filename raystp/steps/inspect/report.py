"""What `inspect` finds, as plain values, and as text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SHOWN = 8
"""Entries of a list that are printed; the JSON has all."""


@dataclass(frozen=True)
class Inspection:
    """One inspected thing."""

    item: str
    kind: str
    """What it is, in a few words: `artifact of impute`, `slide`, `HDF5 file of tile features`."""
    read_as: str = ""
    """Which command or column takes it; empty if none does."""
    problem: str = ""
    """Why it would not be read."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, str] = field(default_factory=dict)
    """How its row of a slide table looks; empty cells are to be filled in."""
    made_from: tuple["MadeFrom", ...] = ()
    """The artifacts of the chain back to slides and weights, the nearest first."""

    def values(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        values: dict[str, Any] = {"item": self.item, "kind": self.kind, "read_as": self.read_as}
        values |= {"problem": self.problem, "facts": dict(self.facts), "row": dict(self.row)}
        return values | {"made_from": [one.values() for one in self.made_from]}

    def text(self) -> str:
        """Return the report as lines."""
        lines = [f"{self.item}: {self.kind}"]
        lines += [f"  read as: {self.read_as}"] if self.read_as else []
        lines += [f"  problem: {self.problem}"] if self.problem else []
        lines += [f"  {name}: {_shown(value)}" for name, value in self.facts.items()]
        if self.row:
            columns = [name for name, cell in self.row.items() if cell or name in {"slide", "path", "patient"}]
            lines += [f"  slide table: {','.join(columns)}", f"               {','.join(self.row[c] for c in columns)}"]
        lines += ["  made from:"] if self.made_from else []
        lines += [f"    {line}" for one in self.made_from for line in one.lines()]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class MadeFrom:
    """One artifact that an inspected one was made from, directly or through others."""

    artifact: str
    """`<step>/<name>-<fingerprint>`."""
    facts: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Role -> an artifact of the same store, or a digest of files or weights."""
    slides: tuple[Mapping[str, str], ...] = ()
    """Of a tile artifact: slide, path, patient and the id of the content."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**vars(self), "slides": [dict(one) for one in self.slides]}

    def lines(self) -> Iterator[str]:
        """Yield it as lines."""
        yield f"{self.artifact}: {_shown(self.facts)}"
        yield from (f"  {role}: {what}" for role, what in self.inputs.items())
        for one in self.slides[:SHOWN]:
            yield f"  slide {one['slide']}: content {one['content']}, {one['path']}"
        if len(self.slides) > SHOWN:
            yield f"  and {len(self.slides) - SHOWN} more slides; --json has all"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        shown = [f"{key} {_shown(one)}" for key, one in list(value.items())[:SHOWN]]
        return ", ".join(shown) + (f" and {len(value) - SHOWN} more" if len(value) > SHOWN else "")
    if isinstance(value, list | tuple):
        shown = [_shown(one) for one in value[:SHOWN]]
        return ", ".join(shown) + (f" and {len(value) - SHOWN} more" if len(value) > SHOWN else "")
    return str(value)
