"""MLflow's side of tracking: entries of a run brought to a server, each once, whatever was brought before.

An entry is a small plain value, so that what could not be brought can lie on disk and be brought later. Bringing one
twice changes nothing: parameters and metric points that stand are left, a file is written over by itself. No model
flavour is logged, since loading one unpickles.
"""

import contextlib
import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from raystp.storage import StoragePath

IDENTITY = "raystp.artifact"
"""The tag by which a run is found again: the artifact that it is about."""
PARENT = "mlflow.parentRunId"
LONGEST = 500
"""Characters of a parameter or tag; MLflow's own limits depend on the server."""

CLIENT = {
    # The client's own patience is minutes; here each call is short, and tried again by whoever calls.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # A step's last line on stdout is its summary.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""What MLflow's client reads from the environment alone; what stands there already is left."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow's page open on runs and curves rather than on prompts and traces."""

_PARAMETERS, _METRICS = 100, 1000
"""How many of each MLflow takes at once."""

Entry = dict[str, Any]
"""`kind` (open, params, tags, metrics, file, keep, end) and what belongs to it, as plain JSON values."""


@dataclass(frozen=True)
class RunRef:
    """Which run of which experiment, and where its files lie."""

    experiment: str
    name: str
    identity: str
    store: StoragePath
    """What files are named relative to; with SQLite the copies lie in its `mlflow-files`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    """Identity of the run that this one is under."""


class RunDelivery:
    """One run at a server; made anew after a failure, since what stood there before is asked once, at the start."""

    def __init__(self, uri: str, book: RunRef) -> None:
        for name, value in CLIENT.items():
            os.environ.setdefault(name, value)
        self._client, self._book, self._uri = MlflowClient(tracking_uri=uri), book, uri
        self._experiment = self._open_experiment()
        found = self._find(book.identity)
        self.run_id = found or self._create(book)
        self._parameters: set[str] = set()
        self._points: set[tuple[str, int]] = set()
        self._status = "RUNNING"
        if found:
            self._read()

    def bring(self, entries: list[Entry]) -> None:
        """Bring entries of one kind; metrics of many epochs go in one call."""
        kind = entries[0]["kind"]
        if kind == "metrics":
            self._metrics(entries)
            return
        for entry in entries:
            getattr(self, f"_{kind}")(entry)

    def _metrics(self, entries: list[Entry]) -> None:
        points: dict[tuple[str, int], Metric] = {}
        for entry in entries:
            for key, value in entry["values"].items():
                if (key, entry["step"]) not in self._points:
                    # The same epoch may be here twice: as it was told, and in a trial's whole history after it.
                    points.setdefault((key, entry["step"]), Metric(key, value, entry["time"], entry["step"]))
        new = list(points.items())
        for start in range(0, len(new), _METRICS):
            part = dict(new[start : start + _METRICS])
            self._client.log_batch(self.run_id, metrics=list(part.values()))
            self._points |= part.keys()

    def _params(self, entry: Entry) -> None:
        new = [Param(key, value[:LONGEST]) for key, value in entry["values"].items() if key not in self._parameters]
        for start in range(0, len(new), _PARAMETERS):
            self._client.log_batch(self.run_id, params=new[start : start + _PARAMETERS])
        self._parameters |= {one.key for one in new}

    def _tags(self, entry: Entry) -> None:
        self._client.log_batch(
            self.run_id, tags=[RunTag(key, value[:LONGEST]) for key, value in entry["values"].items()]
        )

    def _file(self, entry: Entry) -> None:
        place = self._book.store
        for part in entry["path"].split("/"):
            place = place / part
        with place.local() as path:
            self._client.log_artifact(self.run_id, str(path), entry["folder"])

    def _keep(self, entry: Entry) -> None:
        """Delete the runs under this one that are not named: what a sweep began and lost, and began again."""
        for run in self._client.search_runs([self._experiment], f"tags.`{PARENT}` = '{self.run_id}'", max_results=5000):
            if run.data.tags.get(IDENTITY) not in entry["identities"]:
                self._client.delete_run(run.info.run_id)

    def _open(self, entry: Entry) -> None:  # noqa: ARG002 -- every kind of entry has a method of this shape
        self._client.update_run(self.run_id, status="RUNNING")
        self._status = "RUNNING"

    def _end(self, entry: Entry) -> None:
        if entry["status"] != self._status:  # else the time of its end would move
            self._client.set_terminated(self.run_id, status=entry["status"])
            self._status = entry["status"]

    def _open_experiment(self) -> str:
        name = self._book.experiment
        known = self._client.get_experiment_by_name(name)
        if known is None:
            # SQLite keeps no files, and MLflow would put them into the working directory; a server has its own place.
            mine = self._uri.startswith("sqlite:") and self._book.store.is_local
            files = (self._book.store / "mlflow-files" / name).local_path.as_uri() if mine else None
            # Another process may make it in between: then it is there to be found.
            with contextlib.suppress(mlflow.MlflowException):
                self._client.create_experiment(name, artifact_location=files, tags=KIND)
            known = self._client.get_experiment_by_name(name)
        if known is None:
            msg = f"the experiment {name!r} cannot be made"
            raise mlflow.MlflowException(msg)
        return str(known.experiment_id)

    def _find(self, identity: str) -> str | None:
        runs = self._client.search_runs([self._experiment], f"tags.`{IDENTITY}` = '{identity}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _create(self, book: RunRef) -> str:
        tags = {**book.tags, IDENTITY: book.identity, "mlflow.user": getpass.getuser()}
        tags["mlflow.source.name"] = f"raystp {book.identity.partition('/')[0]}"
        if book.parent is not None:
            # A parent that is not there yet is made by its identity, and is found by it when its own entries come.
            bare = RunRef(book.experiment, book.parent, book.parent, book.store)
            tags[PARENT] = self._find(book.parent) or self._create(bare)
        return str(self._client.create_run(self._experiment, run_name=book.name, tags=tags).info.run_id)

    def _read(self) -> None:
        run = self._client.get_run(self.run_id)
        self._status, self._parameters = run.info.status, set(run.data.params)
        for key in run.data.metrics:
            self._points |= {(key, point.step) for point in self._client.get_metric_history(self.run_id, key)}
