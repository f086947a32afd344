"""What the labels of measured spots are: how counts become the expression that a model learns and is scored on.

A model's record states them, and all that compares with measured spots reads them there (`Labels.of`). The values are
computed in `label_values`. Imports nothing heavy, because configs read this module.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from raystp.errors import ModelError

TOTALS = {
    "all": "counts per 10,000 of all genes of the section",
    "panel": "counts per 10,000 of the genes of the panel",
    "none": "counts",
}
SHORT_TOTALS = {"all": "CP10k", "panel": "CP10k of the panel", "none": "counts"}


@dataclass(frozen=True)
class Labels:
    """How a spot's counts become its label; the default is raystp's own."""

    totals: Literal["all", "panel", "none"] = "all"
    """What a spot's counts are divided by, and then multiplied by 10,000. `all`: its counts of all genes of the
    section. `panel`: its counts of the panel's genes; a spot without any is 0. `none`: nothing, labels keep the depth.
    """
    log: Literal["ln", "log10"] = "ln"
    """Logarithm of 1 + the value."""
    smooth: Literal["none", "array_3x3"] = "none"
    """`array_3x3`: after the logarithm, the mean over the measured spots at most one array row and column away, the
    spot itself included. Of a section without array coordinates: over those within 1.6 pitches."""
    absent: Literal["missing", "zero"] = "missing"
    """A gene that a section has not measured. `missing`: it counts in no loss and no score. `zero`: its label is 0."""

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> "Labels":
        """Return the labels in a model's record, or in a manifest's notes; earlier versions had the default ones.

        Raises ModelError for a record that this version does not know.
        """
        stored = meta.get("labels", {})
        allowed = {name: get_args(kind) for name, kind in get_type_hints(cls).items()}
        for name, value in stored.items():
            if value not in allowed.get(name, ()):
                known = f"{', '.join(allowed[name])}" if name in allowed else f"the fields {', '.join(allowed)}"
                msg = f"labels.{name}: {str(value)[:40]!r} in a model's record, and this raystp knows {known}"
                raise ModelError(f"{msg}: install the version that wrote the model")
        return cls(**stored)

    @property
    def record(self) -> dict[str, str]:
        """The plain values of a model's record."""
        return asdict(self)

    @property
    def unit(self) -> str:
        """A short name, for axes and colour bars."""
        return self._written(SHORT_TOTALS[self.totals])

    @property
    def sentence(self) -> str:
        """What the values are, in words: `log1p of counts per 10,000 of all genes of the section`."""
        return self._written(f"of {TOTALS[self.totals]}")

    @property
    def is_default(self) -> bool:
        """Whether these are raystp's own labels."""
        return self == Labels()

    @property
    def changed(self) -> str:
        """The fields that are not the default, as they are set: `totals=none, log=log10`."""
        own = [(one.name, getattr(self, one.name)) for one in fields(self) if getattr(self, one.name) != one.default]
        return ", ".join(f"{name}={value}" for name, value in own)

    def _written(self, what: str) -> str:
        log = "log1p" if self.log == "ln" else "log10(1 + x)"
        smooth = ", mean over 3 x 3 array places" if self.smooth == "array_3x3" else ""
        return f"{log} {what}{smooth}{', 0 for an absent gene' if self.absent == 'zero' else ''}"


DEFAULT_LABELS = Labels()
