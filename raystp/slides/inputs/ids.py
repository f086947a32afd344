"""Slide ids from file names, and patients from TCGA barcodes.

An id becomes a file name in the store, so it has letters, digits, `.`, `_` and `-` only, and no two slides share one.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from raystp.storage import is_safe_name

MAX_ID = 128
_BARCODE = re.compile(r"(?:^|[^A-Za-z0-9])(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Za-z0-9])")
_DIGEST = 8


def slide_ids(names: Sequence[str]) -> list[str]:
    """Return a different id for each file, given by its path relative to a common folder, in that order.

    It is the file's name without its suffix. Files of one name have their relative path, then the suffix too, then
    8 digits of the path's sha256.
    """
    choices = [_choices(name) for name in names]
    level = [0] * len(names)
    while True:
        ids = [of[at] for of, at in zip(choices, level, strict=True)]
        count = Counter(ids)
        clashing = [n for n, one in enumerate(ids) if count[one] > 1 and level[n] < len(choices[n]) - 1]
        if not clashing:
            return ids
        for number in clashing:
            level[number] += 1


def stem_of(name: str) -> str:
    """Return a file's name without its folder and its suffix; of `a.ome.tif` it is `a`."""
    stem = name.rpartition("/")[2]
    head, dot, _ = stem.rpartition(".")
    stem = head if dot and head else stem
    return stem[:-4] if stem.lower().endswith(".ome") and len(stem) > len(".ome") else stem


def barcode_patient(name: str) -> str:
    """Return the patient of a TCGA barcode in a name, its first three fields; empty if there is none."""
    found = _BARCODE.search(name)
    return found[1] if found else ""


def _choices(name: str) -> tuple[str, ...]:
    folder = name.rpartition("/")[0]
    whole = f"{folder}/{stem_of(name)}" if folder else stem_of(name)
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:_DIGEST]
    texts = (stem_of(name), whole, name, f"{stem_of(name)[: MAX_ID - _DIGEST - 1]}-{digest}")
    return tuple(_safe(text, digest) for text in texts)


def _safe(text: str, digest: str) -> str:
    """Return a text as an id: accents are dropped, and each run of other characters becomes `_`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    found = re.sub(r"[^A-Za-z0-9._-]+", "_", plain)
    if len(found) > MAX_ID:
        found = f"{found[: MAX_ID - _DIGEST - 1]}-{digest}"
    return found if is_safe_name(found) and found.strip("._") else f"slide-{digest}"
