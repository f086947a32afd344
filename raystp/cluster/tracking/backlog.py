"""Entries that were not delivered: one JSON file per run, in `tracking/` of the store."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from raystp.cluster.tracking.runs import Entry, RunRef
from raystp.errors import StorageError
from raystp.storage import StoragePath


def backlog_file(store: StoragePath, identity: str) -> StoragePath:
    """Return the file with the kept entries of a run."""
    return store / "tracking" / f"{identity.replace('/', '.').replace('#', '.')}.json"


def read_backlog(store: StoragePath, run_ref: RunRef) -> list[Entry]:
    """Return the kept entries of a run; raise StorageError for a damaged file."""
    file = backlog_file(store, run_ref.identity)
    entries: list[Entry] = _read(file)["entries"] if file.exists() else []
    return entries


def kept_runs(store: StoragePath) -> Iterator[tuple[RunRef, list[Entry]]]:
    """Yield the runs that have kept entries; raise StorageError for a damaged file."""
    folder = store / "tracking"
    for name in folder.names():
        if name.endswith(".json"):
            values = _read(folder / name)
            yield RunRef(**{**values["book"], "store": store}), values["entries"]


def write_backlog(store: StoragePath, run_ref: RunRef, entries: list[Entry]) -> None:
    """Write undelivered entries, without the store's URI, which may contain a secret; `book` is the stored key."""
    reference = {key: value for key, value in asdict(run_ref).items() if key != "store"}
    content = json.dumps({"book": reference, "entries": entries}, indent=1)
    backlog_file(store, run_ref.identity).write_bytes(content.encode())


def _read(file: StoragePath) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(file.read_bytes())
        RunRef(**{**values["book"], "store": file})
        complete = all("kind" in entry for entry in values["entries"])
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        msg = f"{file} is not a file of kept MLflow entries, or is damaged: move it away, then repeat the command"
        raise StorageError(msg)
    return values
