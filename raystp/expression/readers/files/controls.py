"""Probes that measure no gene, by their names."""

import re

_CONTROL = re.compile(
    r"^(blank[_-]|neg_?control|antisense|unassigned|deprecated|intergenic[_ ])|control", re.IGNORECASE
)
"""No symbol of a human or mouse gene has `control` in it."""


def is_control(name: str) -> bool:
    """Return whether a feature is no gene: blank and unassigned codewords, negative controls, antisense probes."""
    return _CONTROL.search(name) is not None
