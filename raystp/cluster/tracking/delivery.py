"""Delivery of a run's entries to an MLflow server: each entry once, whatever was delivered before.

An entry is a small JSON value, so an undelivered one can be kept in a file and sent later. Delivery is idempotent:
existing parameters and metric points are skipped, and a file overwrites itself. An experiment or run that was deleted
in MLflow is restored. Models are not logged as MLflow flavors, because loading one unpickles.
"""

import contextlib
import getpass
import logging
import os
import re

import mlflow
from mlflow.entities import LifecycleStage, Metric, Param, RunTag, ViewType
from mlflow.tracking import MlflowClient

from raystp.cluster.tracking.lineage import dataset_input
from raystp.cluster.tracking.runs import Entry, LostRunError, RunRef

IDENTITY_TAG = "raystp.artifact"
"""The tag by which a run is found again: the artifact that it belongs to."""
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
"""The description of a run, Markdown that its page shows."""
LOST_TAG = "raystp.lost"
"""The tag of a run that raystp itself deleted: it is not restored."""
CHANGED_TAG = "raystp.changed."
"""Start of the tag with a parameter's new value: MLflow allows no second value of a parameter."""
MAX_VALUE_LENGTH, MAX_KEY_LENGTH = 500, 250
"""Characters of a parameter or tag, and of its name; MLflow's own limits depend on the server."""
MAX_NOTE_LENGTH = 5000
LONG_VALUES = "long-values"
"""Folder of the run's files with the values that are longer, whole."""

CLIENT_ENVIRONMENT = {
    # The client would retry for minutes; here each call is short, and the caller retries.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # The last line of a step's stdout is its summary.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Settings that MLflow's client reads from the environment only; variables that are already set are kept."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's page open with runs and curves instead of prompts and traces."""

MAX_PARAMETERS, MAX_METRICS = 100, 1000
"""MLflow's limits per request."""

logger = logging.getLogger("raystp")


class RunDelivery:
    """Delivery to one run of a server. It reads the run's state once: create a new one after a failure."""

    def __init__(self, uri: str, run_ref: RunRef) -> None:
        for name, value in CLIENT_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._client, self._run_ref, self._uri = MlflowClient(tracking_uri=uri), run_ref, uri
        self.experiment_id = self._open_experiment()
        found = self._find(run_ref.identity)
        self.run_id = found or self._create(run_ref)
        self._parameters: dict[str, str] = {}
        self._points: set[tuple[str, int]] = set()
        self._status = "RUNNING"
        if found:
            self._read_run()

    @property
    def page(self) -> str | None:
        """The address of the run's page on the server, without user and password; None for a database."""
        if not self._uri.startswith(("http://", "https://")):
            return None
        server = re.sub(r"//[^/@]*@", "//", self._uri).rstrip("/")
        return f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def deliver(self, entries: list[Entry]) -> None:
        """Deliver entries of one kind; metrics of many epochs take one request."""
        kind = entries[0]["kind"]
        if kind == "metrics":
            self._metrics(entries)
            return
        for entry in entries:
            getattr(self, f"_{kind}")(entry)

    def _metrics(self, entries: list[Entry]) -> None:
        points: dict[tuple[str, int], Metric] = {}
        for entry in entries:
            for name, value in entry["values"].items():
                key = _key(name)
                if (key, entry["step"]) not in self._points:
                    # An epoch may occur twice: when it was reported, and in a trial's history after its end.
                    points.setdefault((key, entry["step"]), Metric(key, value, entry["time"], entry["step"]))
        new = list(points.items())
        for start in range(0, len(new), MAX_METRICS):
            part = dict(new[start : start + MAX_METRICS])
            self._client.log_batch(self.run_id, metrics=list(part.values()))
            self._points |= part.keys()

    def _params(self, entry: Entry) -> None:
        values = self._short(entry)
        changed = {key: text for key, text in values.items() if self._parameters.get(key, text) != text}
        self._client.log_batch(self.run_id, tags=[RunTag(f"{CHANGED_TAG}{key}", text) for key, text in changed.items()])
        new = [Param(key, text) for key, text in values.items() if key not in self._parameters]
        for start in range(0, len(new), MAX_PARAMETERS):
            self._client.log_batch(self.run_id, params=new[start : start + MAX_PARAMETERS])
        self._parameters |= {one.key: one.value for one in new}

    def _tags(self, entry: Entry) -> None:
        tags = [RunTag(key, text) for key, text in self._short(entry).items()]
        self._client.log_batch(self.run_id, tags=tags)

    def _note(self, entry: Entry) -> None:
        self._client.set_tag(self.run_id, NOTE_TAG, entry["text"][:MAX_NOTE_LENGTH])

    def _inputs(self, entry: Entry) -> None:
        """Log what the run has read; MLflow keeps a dataset that a run has already once."""
        store, context = self._run_ref.store, entry["context"]
        found = [dataset_input(store, role, value, context) for role, value in entry["values"].items()]
        self._client.log_inputs(self.run_id, found)

    def _short(self, entry: Entry) -> dict[str, str]:
        """Return the values in MLflow's limits; a longer one is logged whole, as a file."""
        for name, text in entry["values"].items():
            if len(text) > MAX_VALUE_LENGTH:
                self._client.log_text(self.run_id, text, f"{LONG_VALUES}/{_key(name).replace('/', '.')}.txt")
        return {_key(name): text[:MAX_VALUE_LENGTH] for name, text in entry["values"].items()}

    def _file(self, entry: Entry) -> None:
        file = self._run_ref.store
        for part in entry["path"].split("/"):
            file = file / part
        if not file.exists():
            msg = f"no file {file}"
            raise FileNotFoundError(msg)
        with file.local() as path:
            self._client.log_artifact(self.run_id, str(path), entry["folder"])

    def _keep(self, entry: Entry) -> None:
        """Delete the child runs that are not listed: trials that a sweep lost and started again."""
        runs = self._client.search_runs(
            [self.experiment_id], f"tags.`{PARENT_TAG}` = '{self.run_id}'", max_results=5000
        )
        for run in runs:
            if run.data.tags.get(IDENTITY_TAG) not in entry["identities"]:
                self._client.set_tag(run.info.run_id, LOST_TAG, "true")
                self._client.delete_run(run.info.run_id)

    def _adopt(self, entry: Entry) -> None:
        """Show the runs of these artifacts below this run; those that MLflow does not have are left out."""
        for identity in entry["identities"]:
            condition = f"tags.`{IDENTITY_TAG}` = '{identity}'"
            for run in self._client.search_runs([self.experiment_id], condition, max_results=1):
                self._client.set_tag(run.info.run_id, PARENT_TAG, self.run_id)

    def _open(self, entry: Entry) -> None:  # noqa: ARG002 -- the signature of all kinds of entries
        self._client.update_run(self.run_id, status="RUNNING")
        self._status = "RUNNING"

    def _end(self, entry: Entry) -> None:
        if entry["status"] != self._status:  # else its end time would change
            self._client.set_terminated(self.run_id, status=entry["status"])
            self._status = entry["status"]

    def _open_experiment(self) -> str:
        name = self._run_ref.experiment
        known = self._client.get_experiment_by_name(name)
        if known is None:
            # SQLite stores no files, and MLflow would write them to the working directory; a server has its own store.
            local = self._uri.startswith("sqlite") and self._run_ref.store.is_local
            folder = self._run_ref.store / "mlflow-files" / re.sub(r"[/\\]|^\.+", "_", name)
            # Another process may create it at the same time; then it is found below.
            with contextlib.suppress(mlflow.MlflowException):
                files = folder.local_path.as_uri() if local else None
                self._client.create_experiment(name, artifact_location=files, tags=EXPERIMENT_TAGS)
            known = self._client.get_experiment_by_name(name)
        if known is None:
            msg = f"cannot create the experiment {name!r}"
            raise mlflow.MlflowException(msg)
        if known.lifecycle_stage == LifecycleStage.DELETED:
            self._client.restore_experiment(known.experiment_id)
            logger.info(f"  MLflow: the experiment {name!r} was deleted; restored")
        return str(known.experiment_id)

    def _find(self, identity: str) -> str | None:
        """Return the run of an artifact; a deleted one is restored."""
        condition = f"tags.`{IDENTITY_TAG}` = '{identity}'"
        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
            runs = self._client.search_runs([self.experiment_id], condition, run_view_type=view, max_results=1)
            if runs and LOST_TAG in runs[0].data.tags:
                msg = f"the run {runs[0].info.run_name!r} was deleted with a lost trial"
                raise LostRunError(msg)
            if runs and view == ViewType.DELETED_ONLY:
                self._client.restore_run(runs[0].info.run_id)
                logger.info(f"  MLflow: the run {runs[0].info.run_name!r} was deleted; restored")
            if runs:
                return str(runs[0].info.run_id)
        return None

    def _create(self, run_ref: RunRef) -> str:
        tags = {**run_ref.tags, IDENTITY_TAG: run_ref.identity, "mlflow.user": getpass.getuser()}
        tags["mlflow.source.name"] = f"raystp {run_ref.identity.partition('/')[0]}"
        if run_ref.parent is not None:
            # A parent that does not exist yet is created by its identity; its own entries will find it.
            parent = RunRef(run_ref.experiment, run_ref.parent, run_ref.parent, run_ref.store)
            tags[PARENT_TAG] = self._find(run_ref.parent) or self._create(parent)
        return str(self._client.create_run(self.experiment_id, run_name=run_ref.name, tags=tags).info.run_id)

    def _read_run(self) -> None:
        run = self._client.get_run(self.run_id)
        self._status, self._parameters = run.info.status, dict(run.data.params)
        for key in run.data.metrics:
            self._points |= {(key, point.step) for point in self._client.get_metric_history(self.run_id, key)}


def _key(name: str) -> str:
    """Return a name in the characters and the length that MLflow accepts."""
    return re.sub(r"[^A-Za-z0-9_\-. :/]", "_", name)[:MAX_KEY_LENGTH]
