"""Which names a file may have, and the mark of one that is still being written."""

import re

TEMPORARY = ".aside-"
"""What the name of an unfinished file begins with; it is never listed."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def is_safe_name(name: str) -> bool:
    """Say whether a slide or section id can be a file's name: letters, digits, `.`, `_`, `-`, and no dots alone."""
    return bool(_SAFE_NAME.fullmatch(name)) and set(name) != {"."} and not name.startswith(TEMPORARY)
