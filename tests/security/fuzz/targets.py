"""All targets, by name."""

from collections.abc import Mapping

from tests.security.fuzz import images, interop, messages, sections, tables
from tests.security.fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    one.name: one for one in (*tables.TARGETS, *images.TARGETS, *sections.TARGETS, *interop.TARGETS, *messages.TARGETS)
}
