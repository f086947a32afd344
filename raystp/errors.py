"""All errors that raystp raises on purpose.

RaystpError
├── ConfigError      a config file or override is not valid
├── StorageError     a file or folder cannot be read or written
├── ArtifactError    an artifact is absent, unfinished, damaged, or has another schema version
├── SlideError       a slide cannot be opened, has no um/px, or one of its regions cannot be read
├── SectionError     measured spots do not fit their layout, their slide, or the schema
├── PanelError       a gene panel cannot be computed from these sections
├── EncoderError     an encoder is unknown, or its weights are not the configured ones
├── ModelError       a model cannot be trained or applied with these options
├── LeakError        a patient is on both sides of a split, or of a query and its reference
└── Unfinished       part of the work is left; the same command continues

Each message has what is wrong, the value seen, what is allowed, the file, and the next command.
"""


class RaystpError(Exception):
    """Base class: `except RaystpError` catches the errors that raystp raises on purpose, and no others."""


class ConfigError(RaystpError):
    """A config file or an override is not valid; one message has all faults."""


class StorageError(RaystpError):
    """A file or folder cannot be read or written."""


class ArtifactError(RaystpError):
    """An artifact is absent, unfinished, damaged, or has another schema version."""


class SlideError(RaystpError):
    """A slide cannot be opened, has no um/px, or one of its regions cannot be read."""


class SectionError(RaystpError):
    """Measured spots do not fit their layout, their slide, or the schema."""


class PanelError(RaystpError):
    """A gene panel cannot be computed from these sections."""


class EncoderError(RaystpError):
    """An encoder is unknown, or its weights are not the configured ones."""


class ModelError(RaystpError):
    """A model cannot be trained or applied with these options."""


class LeakError(RaystpError):
    """A patient is on both sides of a split, or of a query and its reference."""


class Unfinished(RaystpError):  # noqa: N818 -- not an error of the user or the data
    """Part of the work is left; the same command continues."""


def some(values: list[str], limit: int = 5) -> str:
    """Return up to `limit` values for a message, and the number of the others."""
    shown = ", ".join(repr(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
