"""Comparison of two stores: every artifact, file by file and row by row, without what describes the run."""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from raystp.storage import StoragePath

VARIES = {"created", "statistics", "packages", "seconds", "sha256"}
"""Keys and columns with times, rates and digests of files that are compared themselves."""
IGNORED = ("attempts/", "overviews/", "training/")
"""Folders of an artifact with markers of crashes, and pictures of files that are compared themselves."""
PAGES = (".html", ".png", ".jpg", ".log")
TOLERANCE = 1e-6
"""For floats that pass through a resumed training."""


def artifacts(store: StoragePath) -> list[str]:
    """Return the finished artifacts of a store, `<step>/<name>-<fingerprint>`."""
    ends = "/manifest.json"
    return [name.removesuffix(ends) for name in store.files() if name.endswith(ends) and name.count("/") == 2]


def differences(found: StoragePath, expected: StoragePath) -> Iterator[str]:
    """Yield a line for each artifact or file that one store lacks, and for each file whose content differs."""
    mine, theirs = artifacts(found), artifacts(expected)
    yield from (f"{name}: only in one of the stores" for name in sorted({*mine} ^ {*theirs}))
    for artifact in sorted({*mine} & {*theirs}):
        left, right = _files(found / artifact), _files(expected / artifact)
        yield from (f"{artifact}/{name}: only in one of the stores" for name in sorted(left ^ right))
        for name in sorted(left & right):
            content = (found / artifact / name).read_bytes()
            if name.endswith(".json"):  # manifests name the artifacts that were read, each in its own store
                content = content.replace(_address(found), _address(expected))
            fault = _difference(name, content, (expected / artifact / name).read_bytes())
            if fault:
                yield f"{artifact}/{name}: {fault}"


def _files(artifact: StoragePath) -> set[str]:
    return {name for name in artifact.files() if not name.startswith(IGNORED) and not name.endswith(PAGES)}


def _address(store: StoragePath) -> bytes:
    return f"{str(store).partition('?')[0]}/".encode()


def _difference(name: str, found: bytes, expected: bytes) -> str:
    if found == expected:
        return ""
    if name.endswith(".parquet"):
        return _of_tables(pq.read_table(io.BytesIO(found)), pq.read_table(io.BytesIO(expected)))
    if name.endswith(".json"):
        return "" if _close(json.loads(found), json.loads(expected)) else "other values"
    if name.endswith(".safetensors"):
        return "" if _close(safetensors.numpy.load(found), safetensors.numpy.load(expected)) else "other weights"
    if name.endswith(".npy"):
        return "" if _close(np.load(io.BytesIO(found)), np.load(io.BytesIO(expected))) else "other values"
    return f"{len(found)} other bytes for {len(expected)}"


def _of_tables(found: pa.Table, expected: pa.Table) -> str:
    if found.column_names != expected.column_names or len(found) != len(expected):
        return f"{found.shape} {found.column_names} for {expected.shape} {expected.column_names}"
    for column in found.column_names:
        if column not in VARIES and not _close(found[column].to_pylist(), expected[column].to_pylist()):
            return f"column {column!r} differs"
    return ""


def _close(found: Any, expected: Any) -> bool:
    """Return whether two values are equal, floats within the tolerance, without keys that vary."""
    if isinstance(expected, dict):
        keys = expected.keys() - VARIES
        return (
            isinstance(found, dict)
            and found.keys() - VARIES == keys
            and all(_close(found[key], expected[key]) for key in keys)
        )
    if isinstance(expected, np.ndarray) or (isinstance(expected, list) and expected and _is_numeric(expected)):
        left, right = np.asarray(found), np.asarray(expected)
        if left.shape != right.shape or left.dtype != right.dtype:
            return False
        is_float = left.dtype.kind == "f"
        return bool(
            np.allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
            if is_float
            else (left == right).all()
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_close, found, expected))
    if isinstance(expected, float):
        return found == expected or bool(np.isclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
    return bool(found == expected)


def _is_numeric(values: list[Any]) -> bool:
    return all(isinstance(one, float) for one in values)
