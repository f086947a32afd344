"""Targets: requests of the service, published folders whose card agrees with changed files, models, and addresses."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from raystp.cluster.serving.arrow import from_arrow
from raystp.cluster.serving.messages import from_json
from raystp.models.store import load_model
from raystp.steps.publish import step as publish
from raystp.steps.publish.card import CARD
from raystp.steps.publish.published import open_published, open_published_index, open_published_model
from raystp.storage import StoragePath
from tests.security.fuzz.changes import change_bytes, change_json
from tests.security.fuzz.target import Execute, Prepare, Target, known, of_bytes
from tests.steps.conftest import make_store
from tests.steps.publish.published import add_index

REQUESTS = (
    {"embeddings": [[0.5, 1.0], [2.0, 3.0]], "genes": ["A"], "k": 3, "weights": "softmax", "temperature": 0.1},
    {"slide": "S1", "region": {"x": 0.0, "y": 10.0, "tiles": [2, 2], "tile_um": 16.0}, "without": ["P1"]},
    {"pixels": ["aGVsbG8="], "spread": True, "neighbours": True, "k": "all"},
)
OPTIONS = json.dumps({"k": 3, "genes": ["A", "B"], "weights": "softmax", "without": ["P1"]}).encode()
URIS = (
    b"s3://bucket/folder/file.svs?endpoint=http://127.0.0.1:9&region=x",
    b"az://container/a b.svs",
    b"file:///a%20b/c",
    b"s3://key:secret@bucket/k",
)


def _requests() -> list[bytes]:
    return [json.dumps(one).encode() for one in REQUESTS]


def _arrow(options: bytes) -> bytes:
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.float32)), 4)
    table = pa.table({"features": column}).replace_schema_metadata({b"raystp": options})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _change_arrow(options: bytes, rng: np.random.Generator) -> bytes:
    """Change the options in the metadata, or any byte of the stream."""
    return _arrow(change_json(options, rng)) if rng.random() < 0.3 else change_bytes(_arrow(options), rng)


def _published(name: str, read: Callable[[Path], object]) -> Prepare:
    """Read a published folder of a hostile maker: one file is changed, and the card states its new digest."""

    def prepare(folder: Path) -> Execute:
        store, out = make_store(StoragePath.of(folder / "store")), folder / "published"
        add_index(store)
        values = {"model": "train/joint", "index": "index/joint", "out": str(out), "run": {"store": store.uri}}
        publish.run(publish.CONFIG.of(values))
        content, card = (out / name).read_bytes(), json.loads((out / CARD).read_bytes())
        change = change_json if name.endswith(".json") else change_bytes

        def execute(rng: np.random.Generator) -> object:
            changed = change(content, rng)
            (out / name).write_bytes(changed)
            if name != CARD:
                card["files"][name] = {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
                (out / CARD).write_text(json.dumps(card))
            return read(out)

        return execute

    return prepare


def _model(folder: Path) -> object:
    return open_published_model(open_published(str(folder)))


def _index(folder: Path) -> object:
    return open_published_index(open_published(str(folder)))


def _signed_model(folder: Path) -> object:
    """Open tensors whose header was changed, with a record that states their digest."""
    fields = json.loads((folder / "model.json").read_bytes())
    fields["sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(fields))
    return load_model(StoragePath.of(folder))


def _address(content: bytes) -> object:
    path = StoragePath.of(content.decode("utf-8", "replace"))
    return str(path), repr(path), path.name, str(path.parent), str(path / "x"), path.with_query()


TARGETS = (
    Target(
        "request as JSON",
        "requests",
        of_bytes(_requests, change_json, from_json),
        20,
    ),
    Target(
        "request as Arrow",
        "requests",
        of_bytes(known(OPTIONS), _change_arrow, lambda content: from_arrow(content, {})),
        20,
    ),
    Target("paths and URIs", "requests", of_bytes(lambda: URIS, change_bytes, _address), 10),
    Target("card.json", "published models", _published(CARD, _model), 2),
    Target("model.json", "published models", _published("model.json", _model), 2),
    Target("model.safetensors", "published models", _published("model.safetensors", _signed_model), 4),
    Target("index.json", "published models", _published("index/index.json", _index), 1),
)
