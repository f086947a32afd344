"""What `fit.select: cv` compares: combinations of values of a training's fields."""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CV = "cv"
"""Value of `fit.select`."""

MOST = 200
"""Most combinations of values."""

RETRIEVAL = "retrieval"
"""The part of a config whose values need no training of their own."""
RETRIEVED = frozenset({"vectors", "metric", "k", "weights", "temperature"})
"""Its fields that can be compared."""

FIXED = frozenset({"name", "run", "split", "targets", "spots", "model", "panel", "choose"})
"""Parts of a config that are the same for all: they say what is predicted, and where."""
CHOSEN = frozenset({"fit.select", "fit.epochs", "fit.patience"})
"""Fields that follow from the choice of the epoch."""
GENES = frozenset({"text", "text.unseen", "text.seed"})
"""Fields that say which genes are trained on."""


@dataclass(frozen=True)
class Candidate:
    """One combination of values."""

    training: Mapping[str, Any]
    """Dotted field -> value; each combination of these is a training per fold."""
    retrieval: Mapping[str, Any]
    """Field of `retrieval` -> value; they are scored on the same trainings."""

    @property
    def label(self) -> str:
        """The values as text; empty where there are none."""
        parts = [f"{key}={_text(value)}" for key, value in self.training.items()]
        if self.retrieval:
            parts.append(f"retrieval {', '.join(f'{key} {_text(value)}' for key, value in self.retrieval.items())}")
        return ", ".join(parts)

    def fingerprint_values(self, where: Collection[str]) -> dict[str, Any]:
        """Return what is compared; inputs (`where`) count by their own fingerprints."""
        return {
            "training": {key: value for key, value in self.training.items() if key not in where},
            "retrieval": dict(self.retrieval),
        }


def candidates_of(choose: Mapping[str, Sequence[Any]]) -> list[Candidate]:
    """Return all combinations of the values, in the order of the lists; the first has the first value of each."""
    picks = [[(key, value) for value in values] for key, values in choose.items()]
    found: list[Candidate] = []
    for combination in itertools.islice(itertools.product(*picks), MOST + 1):
        flat = dict(flat_fields(dict(combination)))
        own = {key.removeprefix(f"{RETRIEVAL}."): flat.pop(key) for key in list(flat) if key.startswith(RETRIEVAL)}
        one = Candidate(flat, own)
        if one not in found:
            found.append(one)
    return found


def check_choice(candidates: Sequence[Candidate]) -> None:
    """Raise ValueError where there is nothing to compare, too much, or a field that cannot be chosen."""
    if not candidates:
        msg = "choose: each field needs a list of one or more values, and one has none; remove the field"
        raise ValueError(msg)
    if len(candidates) > MOST:
        msg = f"choose: more than {MOST} combinations of values; list fewer, or sample them with `raystp tune`"
        raise ValueError(msg)
    for key in dict.fromkeys(key for one in candidates for key in one.training):
        if key.partition(".")[0] in FIXED or key in CHOSEN | GENES:
            why = "follows from the choice of the epoch" if key in CHOSEN else "must be the same for all scores"
            msg = f"choose: {key} {why}; remove it from the list"
            raise ValueError(msg)
    for key in dict.fromkeys(key for one in candidates for key in one.retrieval):
        if key not in RETRIEVED:
            msg = f"choose: {RETRIEVAL}.{key} cannot be compared; of `{RETRIEVAL}`, {', '.join(sorted(RETRIEVED))} can"
            raise ValueError(msg)


def flat_fields(changes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return dotted fields and their values; a mapping stands for those fields of a group that it names."""
    flat: list[tuple[str, Any]] = []
    for key, value in changes.items():
        if isinstance(value, Mapping):
            flat += flat_fields({f"{key}.{name}": one for name, one in value.items()})
        else:
            flat.append((key, value))
    return flat


def stored(value: Any) -> Any:
    """Return a value for a record, which is shared: without the query of a URI, which may hold credentials."""
    if isinstance(value, list | tuple):
        return [stored(one) for one in value]
    return value.partition("?")[0] if isinstance(value, str) and "://" in value else value


def _text(value: Any) -> str:
    if isinstance(value, str):
        is_path = value.startswith(("/", "~/", "./")) or "://" in value
        return str(stored(value)).rstrip("/").rpartition("/")[2] if is_path else value
    if isinstance(value, list | tuple):
        return "+".join(_text(one) for one in value)
    return json.dumps(value)
