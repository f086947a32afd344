"""Slides that stand in a table more than once, found by their content: a possible leak between patients."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

UNKNOWN = frozenset({"unreadable", "absent"})
"""Ids of content that are none."""


@dataclass(frozen=True)
class SlideCopies:
    """Slides with one content."""

    slides: tuple[str, ...]
    patients: tuple[str, ...]
    """The patient of each; empty where it is unknown."""

    @property
    def is_leak(self) -> bool:
        """Whether they stand under two patients, so that a split by patient may have them on both sides."""
        return len(set(self.patients) - {""}) > 1

    def sentence(self) -> str:
        """Return what was found, and what to do about it where the slides are of two patients."""
        named = " and ".join(
            f"'{slide}' (patient '{patient}')" for slide, patient in zip(self.slides, self.patients, strict=True)
        )
        found = f"slides {named} have the same content"
        if not self.is_leak:
            return found
        return (
            f"{found}: a possible leak, since a split by patient may train on one and test on the other; give them "
            "one patient, or leave one out"
        )


def find_copies(contents: Mapping[str, str], patients: Mapping[str, str]) -> list[SlideCopies]:
    """Return the groups of slides with one content id, in the order of the slides."""
    by_content: dict[str, list[str]] = defaultdict(list)
    for slide, content in contents.items():
        if content not in UNKNOWN:
            by_content[content].append(slide)
    groups: Iterable[list[str]] = (slides for slides in by_content.values() if len(slides) > 1)
    return [SlideCopies(tuple(slides), tuple(patients[slide] for slide in slides)) for slides in groups]
