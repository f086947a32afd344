"""A toy model with a reference index in a store, whose patients and sections have names that can be searched for."""

from typing import Any

import numpy as np

from raystp.artifacts import Artifact, resolve
from raystp.index.reference import ReferenceRows
from raystp.index.search.kinds import IndexParams
from raystp.index.write import write_reference_index
from raystp.models.store import load_model, save_model
from raystp.storage import StoragePath
from tests.steps.conftest import GENES, add_joint, finish

PATIENTS = ("patient-ALPHA", "patient-BETA")
SECTIONS = ("section-ALPHA", "section-BETA")
SLIDES = ("slide-ALPHA", "slide-BETA")
WEIGHTS_PATH = "/home/somebody/weights/tiny.safetensors"


def record(meta: dict[str, Any]) -> dict[str, Any]:
    """Return a model's record as a training writes it."""
    tile = {"side": 16.0, "pixels": 224}
    encoder = {"name": "tiny", "weights": WEIGHTS_PATH, "sha256": None, "random": False, "seed": 0, "trained": None}
    block = {"embeddings": "toy", "encoder": encoder, "encoder_identity": "seed:0", "tile": tile}
    return {
        **meta,
        "encoder": encoder,
        "features": {"blocks": [block], "neighbour_mean": 0},
        "tile": tile,
        "train": [SECTIONS[0]],
        "validation": [SECTIONS[1]],
        "test": ["section-GAMMA"],
        "patients": dict(zip(SECTIONS, PATIENTS, strict=True)),
        "slides": list(SLIDES),
        "left_out": {"case-DELTA": "no slide"},
    }


def add_index(store: StoragePath, *, kind: str = "exact") -> tuple[Artifact, Artifact]:
    """Leave `train/joint` and `index/joint` in a store: 300 rows of two patients, in two shards."""
    add_joint(store)
    model = resolve(store.uri, "train/joint", "train")
    name, arrays, meta = load_model(model.path)
    save_model(model.path, name, arrays, record(meta))
    random, owner = np.random.default_rng(0), np.arange(300) % 2
    rows = ReferenceRows(
        vectors=random.standard_normal((300, 8)).astype(np.float32),
        expression=random.random((300, len(GENES)), dtype=np.float32),
        genes=GENES,
        sections=[SECTIONS[one] for one in owner],
        spots=[f"spot-{SECTIONS[one]}-{row}" for row, one in enumerate(owner)],
        patients=[PATIENTS[one] for one in owner],
        columns={"slide": [SLIDES[one] for one in owner]},
    )
    index = finish(store, "index", "joint", {})
    params = IndexParams(kind=kind, k=5)  # type: ignore[arg-type]  # a kind of the test
    bank = write_reference_index(index.path, rows, shards=2, metric="cosine", params=params)
    notes = {
        "bank": bank,
        "model": model.manifest.folder,
        "vectors": "spot",
        "patients": list(PATIENTS),
        "slides": list(SLIDES),
        "distance": {"q50": 0.1, "q95": 0.2, "q99": 0.3, "without": "the tile's own patient", "tiles": 20},
    }
    return model, finish(store, "index", "joint", notes)
