"""The files of an index: written with their sha256, opened only while it matches, shared between indexes.

A sha256 is compared before a file is read, mapped or passed to FAISS, because FAISS's reader crashes on crafted files.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import faiss
import numpy as np

from raystp.digests import digest
from raystp.errors import ArtifactError
from raystp.index.description import CandidateIndexRecord, FileRecord
from raystp.storage import StoragePath


def write(folder: StoragePath, name: str, write_local: Callable[[Path], object]) -> FileRecord:
    """Write a file through `write_local`, which receives a local path, and return its record."""
    written: list[str] = []

    def write_and_digest(path: Path) -> None:
        write_local(path)
        written.append(digest(StoragePath.of(path)))

    (folder / name).write_file(write_and_digest)
    return {"file": name, "sha256": written[0]}


def write_index(folder: StoragePath, name: str, index: faiss.Index) -> FileRecord:
    """Write a FAISS index."""
    return write(folder, name, lambda path: faiss.write_index(index, str(path)))


def write_array(folder: StoragePath, name: str, values: np.ndarray) -> FileRecord:
    """Write an .npy file."""
    return write(folder, name, lambda path: np.save(path, np.ascontiguousarray(values), allow_pickle=False))


def map_array(folder: StoragePath, record: FileRecord, *, writable: bool = False) -> np.ndarray:
    """Map an .npy file; with `writable`, changes stay in memory and never reach the file.

    Raises ArtifactError where the sha256 differs.
    """
    with (folder / record["file"]).local() as path:
        check(folder, record, path)
        values: np.ndarray = np.load(path, mmap_mode="c" if writable else "r", allow_pickle=False)
    return np.asarray(values)  # a plain array that keeps the mapping alive


def read_index(folder: StoragePath, record: FileRecord) -> faiss.Index:
    """Read a FAISS index into memory, where rows can be added; raise ArtifactError where the sha256 differs."""
    with (folder / record["file"]).local() as path:
        check(folder, record, path)
        return faiss.read_index(str(path))


def map_index(folder: StoragePath, record: CandidateIndexRecord | FileRecord) -> faiss.Index:
    """Open a FAISS index with its large parts mapped, so that processes share them; raise as `map_array` does.

    IO_FLAG_MMAP maps the lists of an inverted file, IO_FLAG_MMAP_IFC the vectors of any other index (faiss 1.15). Lists
    of 4-bit codes are read, not mapped.
    """
    with (folder / record["file"]).local() as path:
        check(folder, record, path)
        flag = faiss.IO_FLAG_MMAP if record.get("lists", False) else faiss.IO_FLAG_MMAP_IFC
        return faiss.read_index(str(path), flag)


def check(folder: StoragePath, record: FileRecord, path: Path | None = None) -> None:
    """Raise ArtifactError where the sha256 of a file (or of its copy at `path`) differs from its record."""
    file = folder / record["file"]
    sha256 = digest(file if path is None else StoragePath.of(path))
    if sha256 != record["sha256"]:
        msg = (
            f"{file} is not the file that the index was written with: its sha256 is {sha256[:12]}..., expected "
            f"{record['sha256'][:12]}...; it is damaged or altered, run `raystp index` again"
        )
        raise ArtifactError(msg)


def reuse(old: StoragePath, new: StoragePath, name: str) -> None:
    """Put a file of one folder into another: as a hard link on one disk, else as a copy."""
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


def file_names(record: object) -> list[str]:
    """Return the names of all files that a description, or a part of one, refers to."""
    if isinstance(record, Mapping):
        own = [str(record["file"])] if {"file", "sha256"} <= record.keys() else []
        return own + [name for value in record.values() for name in file_names(value)]
    if isinstance(record, list):
        return [name for value in record for name in file_names(value)]
    return []
