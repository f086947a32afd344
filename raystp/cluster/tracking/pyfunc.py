"""A published model as MLflow's generic `python_function`: a table of tiles -> a table of expression.

MLflow stores such a model as code (`MODEL_CODE`, a few lines that import raystp) beside the published folder. Nothing
is pickled. The code names the function that opens the folder, because this package knows no models.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array

with warnings.catch_warnings():  # MLflow warns of a type hint of its own
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    from mlflow.pyfunc.model import PythonModel

FOLDER = "published"
"""Name of the published folder among the model's files, and in its MLmodel file."""
MODEL_FILE = "raystp_model.py"
MODEL_CODE = '''"""A model that raystp published, loaded by MLflow; install the packages of requirements.txt first."""

from {module} import {function}

from raystp.cluster.tracking.pyfunc import serve

serve({function})
'''

TablePredictor = Callable[[pd.DataFrame, Mapping[str, Any]], pd.DataFrame]
"""A table of tiles and the parameters of a call -> a row of expression per tile."""


class PublishedPyfunc(PythonModel):
    """What MLflow calls: opens the published folder once, then predicts tables."""

    def __init__(self, open_folder: Callable[[Path], TablePredictor]) -> None:
        self._open_folder = open_folder

    def load_context(self, context: Any) -> None:
        """Open the folder; raises ModelError for a damaged or altered one."""
        self._predict = self._open_folder(Path(context.artifacts[FOLDER]))

    def predict(  # with the names that MLflow expects
        self,
        context: Any,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return a row of expression per row of the table."""
        return self._predict(model_input, params or {})


def serve(open_folder: Callable[[Path], TablePredictor]) -> None:
    """Give MLflow the model; called by the code of a registered model."""
    set_model(PublishedPyfunc(open_folder))


def tile_signature(genes: Iterable[str], *, protocol: str, needs_places: bool) -> ModelSignature:
    """Return the columns of the table, those of the answer, and the parameters of a call, with their defaults.

    `needs_places`: the model reads the tiles around each tile, so that slide and position must be given.
    """
    places = [ColSpec(DataType.string, "slide", required=needs_places)]
    places += [ColSpec(DataType.double, name, required=needs_places) for name in ("x", "y", "side")]
    patient = ColSpec(DataType.string, "patient", required=False)
    inputs: list[ColSpec | TensorSpec] = [ColSpec(Array(DataType.double), "vector"), *places, patient]
    params = [
        ParamSpec("genes", DataType.string, default=[], shape=(-1,)),
        ParamSpec("protocol", DataType.string, default=protocol),
    ]
    return ModelSignature(
        inputs=Schema(inputs),
        outputs=Schema([ColSpec(DataType.float, gene) for gene in genes]),
        params=ParamSchema(params),
    )
