"""What is logged of a run, and where: plain values. MLflow is imported by `delivery`, which takes a second."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from raystp.errors import RaystpError
from raystp.storage import StoragePath

Entry: TypeAlias = dict[str, Any]
"""`kind` (open, params, tags, note, inputs, metrics, file, keep, adopt, end) and its fields, as JSON values."""


def sqlite_uri(file: Path) -> str:
    """Return the tracking URI of a SQLite file, whose path may have `%` and `?`, which are quoted in a URI."""
    from sqlalchemy.engine import URL, make_url  # noqa: PLC0415 -- a quarter of a second, for the driver only

    plain = f"sqlite:///{file}"
    if make_url(plain).database == str(file):
        return plain
    # With the driver's name: for `sqlite:///` alone, MLflow makes the folder of the quoted path.
    return str(URL.create("sqlite+pysqlite", database=str(file)).render_as_string())


class LostRunError(RaystpError):
    """The run was deleted by raystp itself: its trial was lost, and its entries are dropped."""


@dataclass(frozen=True)
class RunRef:
    """Reference to a run: its experiment, name and identity, and the store of its files."""

    experiment: str
    name: str
    identity: str
    store: StoragePath
    """Files are named relative to it. With SQLite, copies of files are in its `mlflow-files`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    """Identity of the parent run."""
