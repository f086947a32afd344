"""A bank's files: written with their sha256, opened only where it is still the same, shared between banks.

A description names a file as `{"file": name, "sha256": digest}`. Nothing is read, mapped or given to FAISS before its
digest was compared, for FAISS's reader crashes on crafted files.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from raystp import artifacts
from raystp.errors import ArtifactError
from raystp.storage import StoragePath

Described = dict[str, Any]


def write(place: StoragePath, name: str, make: Callable[[Path], Any]) -> Described:
    """Let `make` write a local file, publish it in the folder, and return its description."""
    digests = []

    def written(path: Path) -> None:
        make(path)
        digests.append(artifacts.digest(StoragePath.of(path)))

    (place / name).write_file(written)
    return {"file": name, "sha256": digests[0]}


def write_index(place: StoragePath, name: str, index: faiss.Index) -> Described:
    """Write a FAISS index."""
    return write(place, name, lambda path: faiss.write_index(index, str(path)))


def write_array(place: StoragePath, name: str, values: np.ndarray) -> Described:
    """Write a plain .npy."""
    return write(place, name, lambda path: np.save(path, np.ascontiguousarray(values), allow_pickle=False))


def map_array(place: StoragePath, described: Mapping[str, Any]) -> np.ndarray:
    """Map a .npy that is not to be written to; raises ArtifactError for any other content than was described."""
    with (place / described["file"]).local() as path:
        check(place, described, path)
        values: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(values)  # a plain array over the mapping, which lives as long as it does


def read_index(place: StoragePath, described: Mapping[str, Any]) -> Any:
    """Read a FAISS index into memory, where rows may be added to it; raises as `map_array` does."""
    with (place / described["file"]).local() as path:
        check(place, described, path)
        return faiss.read_index(str(path))


def map_index(place: StoragePath, described: Mapping[str, Any]) -> Any:
    """Open a FAISS index, its large parts mapped, so that processes share them; raises as `map_array` does.

    IO_FLAG_MMAP maps the lists of an inverted file, IO_FLAG_MMAP_IFC the vectors of any other index (faiss 1.15); lists
    in blocks (4-bit codes) are read.
    """
    with (place / described["file"]).local() as path:
        check(place, described, path)
        inverted = described.get("lists", False)
        flag = faiss.IO_FLAG_MMAP if inverted else faiss.IO_FLAG_MMAP_IFC
        return faiss.read_index(str(path), flag)


def check(place: StoragePath, described: Mapping[str, Any], path: Path | None = None) -> None:
    """Raise ArtifactError where a file (or its copy at `path`) is not the one that was described."""
    file = place / described["file"]
    found = artifacts.digest(file if path is None else StoragePath.of(path))
    if found != described["sha256"]:
        msg = (
            f"{file} is not the file that its index was written with: sha256 {found[:12]}..., "
            f"{described['sha256'][:12]}... was wanted; it is damaged or altered, run `raystp index` again"
        )
        raise ArtifactError(msg)


def reuse(old: StoragePath, new: StoragePath, name: str) -> None:
    """Let a file stand in a second folder: as a hard link on one disk, else as a copy."""
    source, target = old / name, new / name
    if source.is_local and target.is_local:
        target.local_path.parent.mkdir(parents=True, exist_ok=True)
        target.local_path.unlink(missing_ok=True)
        try:
            os.link(source.local_path, target.local_path)
        except OSError:  # another disk, or a file system without links
            target.write_file(lambda path: shutil.copyfile(source.local_path, path))
        return
    with source.local() as content:
        target.write_file(lambda path: shutil.copyfile(content, path))


def names_of(described: Any) -> list[str]:
    """Return the names of all files that a description, or a part of one, mentions."""
    if isinstance(described, Mapping):
        own = [described["file"]] if {"file", "sha256"} <= described.keys() else []
        return own + [name for value in described.values() for name in names_of(value)]
    if isinstance(described, list):
        return [name for value in described for name in names_of(value)]
    return []
