"""Every error that raystp raises on purpose, on one screen.

RaystpError
├── ConfigError      a config file or override does not describe the step
├── StorageError     a place cannot be read or written
├── ArtifactError    an artifact is absent, unfinished, damaged, or of another schema version
├── SlideError       a slide cannot be opened, has no um/px, or cannot be read at a place
├── SectionError     measured spots do not fit their own layout, their slide, or the schema
├── PanelError       a gene panel cannot be had from these sections
├── EncoderError     an encoder is unknown, or its weights are not the ones that were named
├── ModelError       a model cannot be trained or applied as asked
├── LeakError        a reference or a split would let a patient judge themselves
└── Unfinished       some of the work is left, and the same command goes on with it

Each message is a sentence: what is wrong, what was seen, what would do, which file.
"""


class RaystpError(Exception):
    """The root: `except RaystpError` catches what raystp foresaw, and nothing else."""


class ConfigError(RaystpError):
    """A config file or an override does not describe the step; all faults are in one message."""


class StorageError(RaystpError):
    """A place cannot be read or written."""


class ArtifactError(RaystpError):
    """An artifact is absent, unfinished, damaged, or of another schema version."""


class SlideError(RaystpError):
    """A slide cannot be opened, has no um/px, or cannot be read at a place."""


class SectionError(RaystpError):
    """Measured spots do not fit their own layout, their slide, or the schema."""


class PanelError(RaystpError):
    """A gene panel cannot be had from these sections."""


class EncoderError(RaystpError):
    """An encoder is unknown, or its weights are not the ones that were named."""


class ModelError(RaystpError):
    """A model cannot be trained or applied as asked."""


class LeakError(RaystpError):
    """A reference or a split would let a patient judge themselves."""


class Unfinished(RaystpError):  # noqa: N818 -- nothing is wrong with what was asked for
    """Some of the work is left, and the same command goes on with it."""


def some(values: list[str], limit: int = 5) -> str:
    """Return up to `limit` values for a message, and how many more there are."""
    shown = ", ".join(repr(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
