"""MLflow, thinly: one run per training, found again by a tag, so that a resumed training goes on in its own run.

Only plain parameters, metrics and files are logged; no model flavour, since loading one unpickles. Metrics carry their
epoch as the step, so an epoch that is computed twice after a crash overwrites itself.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import mlflow
from mlflow.entities import RunStatus
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
        for key, value in _flat(values):
            if key not in stand:
                self._client.log_param(self.run_id, key, str(value)[:LONGEST_PARAMETER])

    def metrics(self, values: Mapping[str, float | None], step: int) -> None:
        """Log numbers at an epoch; None is left out."""
        for key, value in values.items():
            if value is not None:
                self._client.log_metric(self.run_id, key, float(value), step=step)


@contextlib.contextmanager
def tracked(uri: str, experiment: str, name: str, *, fingerprint: str) -> Iterator[Run]:
    """Open the run of this fingerprint, the earlier one if there is one, and close it with the outcome."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    run_id = _find(client, experiment, fingerprint) or _create(client, experiment, name, fingerprint)
    client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    try:
        yield Run(client, run_id)
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id, status="FINISHED")


def _find(client: MlflowClient, experiment: str, fingerprint: str) -> str | None:
    known = client.get_experiment_by_name(experiment)
    if known is None:
        return None
    runs = client.search_runs([known.experiment_id], filter_string=f"tags.`{TAG}` = '{fingerprint}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _create(client: MlflowClient, experiment: str, name: str, fingerprint: str) -> str:
    known = client.get_experiment_by_name(experiment)
    if known is None:
        try:
            experiment_id = client.create_experiment(experiment)
        except mlflow.MlflowException:  # another process made it in between
            experiment_id = client.get_experiment_by_name(experiment).experiment_id  # type: ignore[union-attr]  # it is there
    else:
        experiment_id = known.experiment_id
    return str(client.create_run(experiment_id, run_name=name, tags={TAG: fingerprint}).info.run_id)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
