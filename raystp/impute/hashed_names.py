"""Names of patients, sections and slides as salted hashes: a published model names no patient, and leaks are found.

A hash hides a name only as far as it cannot be guessed: whoever has a list of candidates can hash each of them.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping

HASH_DIGITS = 32
"""Hexadecimal digits of a hash: 128 bits."""


def hash_name(name: str, salt: str) -> str:
    """Return the first 128 bits of the SHA-256 of salt, line feed and name, in hexadecimal."""
    return hashlib.sha256(f"{salt}\n{name}".encode()).hexdigest()[:HASH_DIGITS]


def names_behind(hashes: Collection[str], candidates: Iterable[str], salt: str) -> frozenset[str]:
    """Return the candidates whose hash is among the hashes."""
    known = frozenset(hashes)
    return frozenset(name for name in candidates if hash_name(name, salt) in known)


def stored_names(patients: Mapping[str, str], salt: str | None) -> dict[str, str]:
    """Return slide -> its patient by the name in the index's rows: of a published model (with a salt), a hash."""
    return {slide: patient if salt is None else hash_name(patient, salt) for slide, patient in patients.items()}


def stored_values(values: Mapping[str, Collection[str]], salt: str | None) -> dict[str, list[str]]:
    """Return column of the index's rows -> values as the rows have them: of a published model, hashes of names."""
    return {
        column: [one if salt is None else hash_name(one, salt) for one in names] for column, names in values.items()
    }
