"""MLflow, thinly: one run per training, found again by a tag, so that a resumed training goes on in its own run.

Only plain parameters, metrics and files are logged; no model flavour, since loading one unpickles. Metrics carry their
epoch as the step, so an epoch that is computed twice after a crash overwrites itself.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunStatus
from mlflow.tracking import MlflowClient

TAG = "raystp.fingerprint"
LONGEST_PARAMETER = 500


class Run:
    """One MLflow run that is open."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log a nested config as flat parameters; one that stands already (a resumed run) is left as it is."""
        stand = self._client.get_run(self.run_id).data.params
        new = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in _flat(values) if key not in stand]
        self._client.log_batch(self.run_id, params=new)

    def metrics(self, values: Mapping[str, float | None], step: int) -> None:
        """Log numbers at an epoch; None is left out."""
        now = int(time.time() * 1000)
        batch = [Metric(key, float(value), now, step) for key, value in values.items() if value is not None]
        self._client.log_batch(self.run_id, metrics=batch)


@dataclass(frozen=True)
class Logbook:
    """Where a training is logged, and as what."""

    uri: str
    experiment: str
    name: str
    fingerprint: str
    parameters: Mapping[str, Any]


@contextlib.contextmanager
def tracked(book: Logbook) -> Iterator[Run]:
    """Open the run of this fingerprint, the earlier one if there is one, and close it with the outcome."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=book.uri)
    run_id = _find(client, book) or _create(client, book)
    client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    run = Run(client, run_id)
    run.parameters(book.parameters)
    try:
        yield run
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id, status="FINISHED")


def _find(client: MlflowClient, book: Logbook) -> str | None:
    known = client.get_experiment_by_name(book.experiment)
    if known is None:
        return None
    runs = client.search_runs(
        [known.experiment_id], filter_string=f"tags.`{TAG}` = '{book.fingerprint}'", max_results=1
    )
    return str(runs[0].info.run_id) if runs else None


def _create(client: MlflowClient, book: Logbook) -> str:
    known = client.get_experiment_by_name(book.experiment)
    if known is None:
        # Another process may make it in between: then it is there to be found.
        with contextlib.suppress(mlflow.MlflowException):
            client.create_experiment(book.experiment)
        known = client.get_experiment_by_name(book.experiment)
    assert known is not None  # just made, here or elsewhere
    return str(client.create_run(known.experiment_id, run_name=book.name, tags={TAG: book.fingerprint}).info.run_id)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value
