"""Changes of sound files: any bytes, values at any depth of JSON, records of zip archives, objects of HDF5."""

import contextlib
import copy
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.expression.readers.mutations import mutate_hdf5

EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32_767, 65_535, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, -0.5, 1e300, 10**9, 2**63, 10**30, float("nan"), float("inf"),
    "", "x", "NaN", "1e9", "../../etc/passwd", "/etc/passwd", "file://[", "s3://b/k", "a\nb", "a\0b", "\ud800",
    "ü" * 300, [], {}, [[]], [None], ["x"], [1, 2, 3], {"type": "x"}, {"a": {"b": []}}, [[[[1, 2]]]],
]  # fmt: skip
TEXTS = (
    b"-1", b"null", b"99999999999", b'"x"', b"{}", b"[]", b"NaN", b"1e999", b"\\ud800", b"\\u0000", b"9" * 5000,
    b"[" * 300,
    b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\xed\xa0\x80", b"../", b"<!DOCTYPE x>", b"&lt;", b"%s", b'"', b"<", b">",
)  # fmt: skip


def change_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file after one to three changes: bits, bytes, numbers of 1 to 8 bytes, pieces, or its end."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not changed:
            break
        at, kind = int(rng.integers(len(changed))), int(rng.integers(8))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = int(rng.integers(256))
        elif kind in {2, 3}:
            size = (1, 2, 4, 8)[int(rng.integers(4))]
            value = EXTREMES[int(rng.integers(len(EXTREMES)))] & (256**size - 1)
            changed[at : at + size] = value.to_bytes(size, "little" if kind == 2 else "big")
        elif kind == 4:
            del changed[at : at + int(rng.integers(1, 9))]
        elif kind == 5:
            start = int(rng.integers(len(changed)))
            changed[at:at] = changed[start : start + int(rng.integers(1, 65))]
        elif kind == 6:
            changed[at : at + int(rng.integers(3))] = TEXTS[int(rng.integers(len(TEXTS)))]
        elif rng.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def change_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Return JSON with one to three values at any depth changed or removed; one of four times with changed bytes."""
    if rng.random() < 0.25:
        return change_bytes(content, rng)
    values = json.loads(content)
    for _ in range(int(rng.integers(1, 4))):
        holder, key = _any_place(values, rng)
        kind = int(rng.integers(6))
        if holder is None:
            values = _value(rng) if kind == 0 else values
        elif kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif kind == 2:
            holder[key] = [holder[key]]
        elif kind == 3 and isinstance(holder, dict):
            other = list(holder)[int(rng.integers(len(holder)))]
            holder[other] = holder.pop(key)
        elif kind == 4 and isinstance(holder[key], int | float):
            holder[key] = type(holder[key])(holder[key] * float(rng.choice([-1, 0, 0.5, 10, 1e9])))
        else:
            holder[key] = _value(rng)
    return json.dumps(values).encode("utf-8", "surrogatepass")


def _value(rng: np.random.Generator) -> Any:
    return copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])  # it may be changed in its turn


def _any_place(values: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return a dict or list of a tree and one of its keys; (None, None) for a tree of one value."""
    holder, key = None, None
    while isinstance(values, dict | list) and values:
        keys = list(values) if isinstance(values, dict) else range(len(values))
        holder, key = values, keys[int(rng.integers(len(keys)))]
        values = values[key]
        if rng.random() < 0.3:
            break
    return holder, key


def change_zip(content: bytes, rng: np.random.Generator) -> bytes:
    """Return an archive with one number of a record changed, which random bytes seldom meet, or with other bytes."""
    marks = [at for mark in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06") for at in _places(content, mark)]
    if not marks or rng.random() < 0.4:
        return change_bytes(content, rng)
    changed = bytearray(content)
    at = marks[int(rng.integers(len(marks)))] + 4 + 2 * int(rng.integers(20))
    form = ("<H", "<I")[int(rng.integers(2))]
    if at + struct.calcsize(form) <= len(changed):
        value = EXTREMES[int(rng.integers(len(EXTREMES)))] & (256 ** struct.calcsize(form) - 1)
        struct.pack_into(form, changed, at, value)
    return bytes(changed)


def _places(content: bytes, mark: bytes) -> list[int]:
    found, at = [], content.find(mark)
    while at >= 0:
        found.append(at)
        at = content.find(mark, at + 1)
    return found


def change_file(file: Path, content: bytes, rng: np.random.Generator) -> None:
    """Write a changed file, by its name: objects of HDF5, values of JSON, records of archives, else bytes."""
    if file.suffix in {".h5", ".h5ad"}:
        file.write_bytes(content)
        with contextlib.suppress(OSError, ValueError, TypeError, RuntimeError, KeyError):  # a fault that h5py refuses
            mutate_hdf5(file, rng)
        return
    is_json = file.suffix in {".json", ".geojson"} or file.name in {".zattrs", ".zarray", ".zgroup"}
    change = change_json if is_json else change_zip if file.suffix in {".pt", ".npz", ".xlsx"} else change_bytes
    file.write_bytes(change(content, rng))
