"""Register a published folder in MLflow's model registry: one version per card, below the run of its training."""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from raystp.cluster.tracking.delivery import RunDelivery
from raystp.cluster.tracking.outbox import silence_mlflow
from raystp.cluster.tracking.pyfunc import FOLDER, MODEL_CODE, MODEL_FILE, TablePredictor
from raystp.cluster.tracking.rejections import reason_of
from raystp.cluster.tracking.runs import RunRef
from raystp.errors import Unfinished

logger = logging.getLogger("raystp")

CARD_TAG = "raystp.card"
"""The tag of a version with the digest of its card, which states the digests of all files."""
SAVE_ENVIRONMENT = {
    # A uv project in the working directory is not the model's.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Settings that MLflow reads from the environment only."""


@dataclass(frozen=True)
class RegisteredModel:
    """A published folder, as it is registered."""

    name: str
    """Of the registered model, which has numbered versions."""
    digest: str
    """Of the card."""
    copy_files: Callable[[Path], object]
    """Copies the files of the card, and no others, into a folder."""
    opener: Callable[[Path], TablePredictor]
    """What opens the folder, a function of a module; MLflow calls it by its name."""
    signature: ModelSignature
    requirements: Sequence[str]
    """For pip."""
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class ModelVersionRef:
    """A version of a registered model."""

    name: str
    version: str
    is_new: bool

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{self.name}/{self.version}"


def register_model(uri: str, run_ref: RunRef, model: RegisteredModel, inputs: Mapping[str, str]) -> ModelVersionRef:
    """Register a model below a run, which is created where MLflow lacks it; a card is one version.

    `inputs` are what the training has read. Raises Unfinished where the server does not respond, or refuses.
    """
    silence_mlflow()
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        if (known := _known_version(client, model)) is not None:
            return ModelVersionRef(model.name, known, is_new=False)
        run = RunDelivery(uri, run_ref)
        run.deliver([{"kind": "inputs", "values": dict(inputs), "context": "training"}])
        return ModelVersionRef(model.name, _new_version(client, run, model), is_new=True)
    except Exception as error:
        # A database's own errors, and the lack of its driver, come from MLflow as they are.
        if not isinstance(error, OSError | ImportError | SQLAlchemyError | mlflow.MlflowException):
            raise
        msg = (
            f"the folder is written, and MLflow did not register it as {model.name!r} ({reason_of(error)}): see that "
            "the server of run.tracking responds and allows it, then repeat the command"
        )
        raise Unfinished(msg) from error


def _known_version(client: MlflowClient, model: RegisteredModel) -> str | None:
    """Return the version with this card."""
    for one in client.search_model_versions(f"name = '{model.name}'"):
        if one.tags.get(CARD_TAG) == model.digest:
            return str(one.version)
    return None


def _new_version(client: MlflowClient, run: RunDelivery, model: RegisteredModel) -> str:
    tags = {**model.tags, CARD_TAG: model.digest}
    logged = client.create_logged_model(
        run.experiment_id, name=model.name, source_run_id=run.run_id, tags=tags, model_type="raystp"
    )
    with tempfile.TemporaryDirectory() as temporary, _environment(SAVE_ENVIRONMENT):
        folder = Path(temporary) / "model"
        info = Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            run_id=run.run_id,
            model_id=logged.model_id,
        )
        save_model(folder, model, info)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    if not client.search_registered_models(f"name = '{model.name}'"):
        client.create_registered_model(model.name)
    version = client.create_model_version(
        model.name,
        logged.artifact_location,  # `models:/...` would be looked up in the process's own server
        run_id=run.run_id,
        tags=tags,
        description=model.description,
        model_id=logged.model_id,
    )
    return str(version.version)


def save_model(folder: Path, model: RegisteredModel, info: Model | None = None) -> None:
    """Write a model's folder as MLflow has it: MLmodel, code, requirements, and the published files."""
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it advises an example beside the signature
        published, code = Path(temporary) / FOLDER, Path(temporary) / MODEL_FILE
        model.copy_files(published)
        opener = model.opener
        code.write_text(MODEL_CODE.format(module=opener.__module__, function=opener.__qualname__), encoding="utf-8")
        options: dict[str, Any] = {} if info is None else {"mlflow_model": info}
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(code),
            artifacts={FOLDER: str(published)},
            signature=model.signature,
            pip_requirements=list(model.requirements),
            **options,
        )


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables, and restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
