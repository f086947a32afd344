"""Folders and files that appear whole: written to a temporary place, then renamed or uploaded."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from raystp.storage import StoragePath

TEMPORARY = ".writing-"
"""Start of the name of a folder that is being written; one is left only where the process was killed."""

LAST_FILES = ("zarr.json", ".zattrs", ".zgroup")
"""Files of a store's root: uploaded last, so a reader that finds them finds all."""

UPLOADS = 16
"""Files that are uploaded at a time: a store has hundreds of small ones."""


def write_folder(target: StoragePath, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new local folder, then move it to `target`, in place of a folder that is there.

    In an object store the files are uploaded, those of the root last.
    """
    if not target.is_local:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            _upload(Path(folder), target)
        return
    final = target.local_path
    final.parent.mkdir(parents=True, exist_ok=True)
    new, old = (final.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{final.name}") for _ in range(2))
    new.mkdir()
    try:
        write(new)
        if final.exists():
            os.rename(final, old)  # noqa: PTH104 -- the standard name of the atomic rename
        os.rename(new, final)  # noqa: PTH104 -- the same
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def plain_json(value: object) -> Any:
    """Return a value as plain JSON: tuples as lists, numpy's numbers as Python's, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain_json(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def json_text(value: object) -> str:
    """Return the same text for equal values: keys sorted, no spaces."""
    return json.dumps(plain_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _upload(folder: Path, target: StoragePath) -> None:
    target.remove()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    last = [path for path in files if path.parent == folder and path.name in LAST_FILES]

    def upload(path: Path) -> None:
        (target / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())

    with ThreadPoolExecutor(UPLOADS) as threads:
        list(threads.map(upload, [path for path in files if path not in last]))
    for path in last:
        upload(path)
