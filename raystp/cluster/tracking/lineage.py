"""What a run has read, as MLflow's datasets: the artifacts of earlier steps, and plain files by their digest.

A dataset's name is `<step>/<name>` and its digest is the artifact's fingerprint, so two runs that show one digest have
read the same. The source is the artifact's folder, without credentials.
"""

import json

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from raystp.storage import StoragePath

ROLE_TAG = "raystp.role"
MAX_NAME, MAX_DIGEST = 500, 36
"""MLflow's limits, in characters."""
PLAIN_FILE = "raystp"
"""Source type of a plain file, of which only the digest is known."""


def dataset_input(store: StoragePath, role: str, value: str, context: str) -> DatasetInput:
    """Return an input of a manifest: `value` is `<step>/<name>-<fingerprint>`, or a digest; `context` is its use."""
    return DatasetInput(
        _dataset(store, role, value), [InputTag(MLFLOW_DATASET_CONTEXT, context), InputTag(ROLE_TAG, role)]
    )


def _dataset(store: StoragePath, role: str, value: str) -> Dataset:
    step, slash, folder = value.partition("/")
    if not slash:
        return Dataset(role[:MAX_NAME], value[:MAX_DIGEST], PLAIN_FILE, json.dumps({"digest": value}))
    name, _, fingerprint = folder.rpartition("-")
    scheme = "local" if store.is_local else store.uri.partition("://")[0]
    source = json.dumps({"uri": str(store / step / folder)})
    return Dataset(f"{step}/{name}"[:MAX_NAME], fingerprint[:MAX_DIGEST], scheme, source)
