"""Nothing is unpickled: a pickle that leaves a file where it is loaded, in each kind of file that raystp reads.

Tensors of `.pt` and weights: `tests/interop/features/test_saved.py`, `tests/encoders/test_weights.py`. zarr:
`tests/interop/features/test_lazyslide.py`. MLflow: `tests/steps/publish/test_register.py`.
"""

import ast
import contextlib
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raystp.cluster.serving.arrow import from_arrow
from raystp.cluster.serving.asgi import RequestRefused
from raystp.config import RunConfig, StepConfig
from raystp.encoders.text.table import read_table_text
from raystp.errors import RaystpError
from raystp.expression.genes.panel import read_panel
from raystp.expression.schema import read_h5ad
from raystp.index import files
from raystp.models.store import load_completion, load_model, load_state
from raystp.models.training.fit import TrainState
from raystp.slides.table import read_slide_table
from raystp.steps.publish.published import open_published, open_published_model
from raystp.storage import StoragePath

SOURCES = Path(__file__).parents[2] / "raystp"


@dataclass(frozen=True)
class Spy:
    """Leaves a file where it is unpickled."""

    file: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def spy(tmp_path: Path) -> Iterator[Spy]:
    made = Spy(tmp_path / "unpickled")
    pickle.loads(pickle.dumps(made))
    assert made.file.exists(), "the bomb works"
    made.file.rmdir()
    yield made
    assert not made.file.exists()


def _model(folder: Path, name: str, content: bytes) -> StoragePath:
    """Write tensors and the record that states their digest."""
    (folder / f"{name}.safetensors").write_bytes(content)
    fields = {"schema_version": 1, "sha256": hashlib.sha256(content).hexdigest(), "kind": "ridge"}
    (folder / f"{name}.json").write_text(json.dumps({**fields, "genes": ["A"], "d_image": 2, "epoch": 1}))
    return StoragePath.of(folder)


def _load_state(folder: StoragePath) -> None:
    network = torch.nn.Linear(2, 1)
    load_state(folder, TrainState(network, torch.nn.functional.mse_loss, torch.optim.SGD(network.parameters())))


@pytest.mark.parametrize(
    ("name", "load"), [("model", load_model), ("completion", load_completion), ("state", _load_state)]
)
def test_tensors_of_a_model_a_completion_and_a_checkpoint(
    spy: Spy, tmp_path: Path, name: str, load: Callable[[StoragePath], object]
) -> None:
    state = io.BytesIO()
    torch.save({"w": spy}, state)
    for content in (pickle.dumps(spy), state.getvalue()):
        with pytest.raises(RaystpError, match=rf"{name}\.safetensors cannot be read"):
            load(_model(tmp_path, name, content))


def test_a_published_folder(spy: Spy, tmp_path: Path) -> None:
    for name in ("card.json", "model.json"):
        (tmp_path / name).write_bytes(pickle.dumps(spy))
        with pytest.raises(RaystpError, match=r"card\.json is not readable JSON"):
            open_published_model(open_published(str(tmp_path)))


def _objects(spy: Spy) -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array([spy, spy], dtype=object), allow_pickle=True)
    return sink.getvalue()


def test_arrays_of_an_index_whose_digest_is_right(spy: Spy, tmp_path: Path) -> None:
    content = _objects(spy)
    (tmp_path / "v.npy").write_bytes(content)
    record: Any = {"file": "v.npy", "sha256": hashlib.sha256(content).hexdigest()}
    with pytest.raises(ValueError, match="Python objects"):
        files.map_array(StoragePath.of(tmp_path), record)


def test_a_panel_and_vectors_of_genes(spy: Spy, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(_objects(spy))
    (tmp_path / "names.txt").write_text("A\nB\n")
    np.savez(tmp_path / "a.npz", genes=np.array([spy, spy], dtype=object), vectors=np.ones((2, 2)), allow_pickle=True)
    with pytest.raises(RaystpError, match="allow_pickle=False"):
        read_panel(StoragePath.of(tmp_path / "a.npy"))
    with pytest.raises(RaystpError, match="allow_pickle=False"):
        read_table_text(StoragePath.of(tmp_path / "a.npy"), names=StoragePath.of(tmp_path / "names.txt"))
    with pytest.raises(RaystpError, match="allow_pickle=False"):
        read_table_text(StoragePath.of(tmp_path / "a.npz"))


def test_uns_of_an_h5ad_is_bytes(spy: Spy, tmp_path: Path) -> None:
    ad.AnnData(X=np.ones((2, 2), np.float32)).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        for name, value in (("opaque", np.void(pickle.dumps(spy))), ("text", pickle.dumps(spy, 0).decode())):
            file[f"uns/{name}"] = value
            file[f"uns/{name}"].attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})
    try:
        read_h5ad(StoragePath.of(tmp_path / "a.h5ad"))
    except RaystpError as error:
        assert "is not an h5ad file that anndata can read" in str(error)  # noqa: PT017 -- either outcome is right


class PickledConfig(StepConfig[RunConfig]):
    """A config with one field of text and one of any values."""

    name: str = ""
    options: dict[str, list[float]] = {}  # noqa: RUF012 -- pydantic copies it
    run: RunConfig = RunConfig()


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.mkdir [{}]",
        "options: !!python/object/new:os.mkdir [{}]",
        "!!python/object/apply:os.mkdir [{}]",
        "name: !!python/name:os.mkdir",
        "name: !!python/module:os",
    ],
)
def test_tags_of_python_in_a_config(spy: Spy, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text.format(spy.file))
    with pytest.raises(RaystpError, match=r"a\.yaml|name|options"):
        PickledConfig.load(tmp_path / "a.yaml")
    with contextlib.suppress(RaystpError):  # for a field of text it is text
        PickledConfig.load(None, [text.format(spy.file).replace(": ", "=", 1)])


def _extension(spy: Spy) -> pa.Schema:
    """A column of a type of Python, whose pickle old versions of pyarrow load with the schema."""
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(spy)}
    return pa.schema([pa.field("slide", pa.string(), metadata=metadata), pa.field("path", pa.string())])


def test_types_of_python_in_parquet_and_arrow(spy: Spy, tmp_path: Path) -> None:
    table = pa.table({"slide": ["S1"], "path": ["a.svs"]}, schema=_extension(spy))
    pq.write_table(table, tmp_path / "a.parquet")
    assert [row.slide for row in read_slide_table(str(tmp_path / "a.parquet"), None, "store")] == ["S1"]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(RequestRefused):
        from_arrow(sink.getvalue().to_pybytes(), {})


UNSAFE = {
    "pickle": {"load", "loads", "Unpickler"},
    "cloudpickle": {"load", "loads"},
    "joblib": {"load"},
    "marshal": {"load", "loads"},
    "shelve": {"open"},
    "yaml": {"load", "load_all", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all"},
    "pd": {"read_pickle", "eval", "read_hdf"},
    "os": {"system", "popen"},
}
"""Functions that run code of what they read."""


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(SOURCES)}:{node.lineno}", node


def _keyword(call: ast.Call, name: str) -> object:
    values = [one.value for one in call.keywords if one.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def test_no_call_in_the_package_can_unpickle_or_run_a_string() -> None:
    found = []
    for where, call in _calls():
        function = call.func
        if isinstance(function, ast.Name) and function.id in {"eval", "exec", "compile", "__import__"}:
            found.append(where)
        if not (isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)):
            continue
        module, name = function.value.id, function.attr
        unsafe = name in UNSAFE.get(module, set())
        unsafe |= (module, name) == ("np", "load") and _keyword(call, "allow_pickle") is not False
        unsafe |= (module, name) == ("torch", "load") and _keyword(call, "weights_only") is not True
        unsafe |= _keyword(call, "shell") is True or _keyword(call, "trust_remote_code") is True
        found += [where] if unsafe else []
    assert found == []
