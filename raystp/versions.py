"""Versions of installed packages, from their metadata: nothing is imported."""

import functools
import importlib.metadata

ABSENT = "absent"


@functools.cache  # each artifact records several: 3 ms each
def installed_version(package: str) -> str:
    """Return the version of an installed package, `absent` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT
