"""Simulate a cohort of embeddings and a contrastive model, as the steps write them to a store.

Tiles and reference spots are of the same 2,000 kinds: a feature vector is its kind's centre plus noise. The image head
maps them to the joint space, where near vectors stay near. A spot's expression is its kind's, 12 % of it not zero, plus
noise.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.models.bleep.learner import BleepPredictor
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.predictor import ContrastivePredictor
from raystp.models.store import save_model
from raystp.storage import StoragePath

KINDS, FEATURES, DENSE, NOISE = 2_000, 256, 0.12, 0.35
UNIT, SIDE = 4_096, 112.0
NEVER = {"spots": "made", "images": "made"}


def artifact_writer(store: Path, step: str, name: str, config: dict[str, Any], **inputs: str) -> ArtifactWriter:
    """Return the writer of an artifact that `resolve` finds by its name."""
    fingerprint = hashlib.sha256(json.dumps([step, name, config]).encode()).hexdigest()[:12]
    return ArtifactWriter(
        StoragePath.of(store) / step / f"{name}-{fingerprint}", step, name, fingerprint, dict(inputs), config
    )


def features(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` feature vectors, and the kind of each."""
    rng = np.random.default_rng([seed, 0xFEA7])
    kinds = rng.integers(0, KINDS, count)
    vectors = rng.standard_normal((count, FEATURES), dtype=np.float32)
    vectors *= NOISE
    vectors += centres()[kinds]
    return vectors, kinds


def centres() -> np.ndarray:
    """Return each kind's feature vector."""
    return np.random.default_rng(0xCE27).standard_normal((KINDS, FEATURES), dtype=np.float32)


def expression(kinds: np.ndarray, genes: int, seed: int) -> sp.csr_array:
    """Return log1p expression of spots of these kinds, with noise."""
    rng = np.random.default_rng([seed, 0xE89])
    kept = int(DENSE * genes)
    profile = np.random.default_rng(0x9E0E)
    own = np.stack([np.sort(profile.choice(genes, kept, replace=False)) for _ in range(KINDS)]).astype(np.int32)
    level = profile.gamma(2.0, 0.6, (KINDS, kept)).astype(np.float32)
    values = level[kinds] * (0.6 + 0.8 * rng.random((len(kinds), kept), dtype=np.float32))
    starts = np.arange(len(kinds) + 1, dtype=np.int64) * kept
    return sp.csr_array((values.ravel(), own[kinds].ravel(), starts), shape=(len(kinds), genes))


def make_model(store: Path, genes: int) -> tuple[Artifact, ContrastivePredictor]:
    """Write an untrained model; its image head maps near tiles to near vectors."""
    names = [f"GENE{number:05d}" for number in range(genes)]
    heads = seeded_bleep(FEATURES, genes, BleepOptions(), seed=0).eval()
    writer = artifact_writer(store, "train", "made", {"model": "bleep", "genes": genes, "name": "made"}, **NEVER)
    meta = {
        "genes": names,
        "d_image": FEATURES,
        "options": BleepOptions().__dict__,
        "protocol": "patient",
        "panel": {"name": "made"},
        "train": ["reference"],
        "validation": [],
        "test": [],
        "patients": {"reference": "reference"},
        "slides": ["reference"],
    }
    save_model(writer.path, "bleep", dict(heads.state_dict()), meta)
    kept = {key: meta[key] for key in ("protocol", "train", "validation", "test", "patients", "panel", "d_image")}
    return writer.finish({"genes": genes}, [], kept), BleepPredictor("bleep", names, FEATURES, heads)


def make_embeddings(store: Path, tiles: int, slides: int) -> Artifact:
    """Write the tiles of `slides` slides with their features, and the slides' thumbnails."""
    each = tiles // slides
    names = [f"slide-{number:04d}" for number in range(slides)]
    tile = artifact_writer(store, "tile", "made", {"slides": slides, "each": each, "name": "made"})
    thumbnail = io.BytesIO()
    Image.new("RGB", (64, 64), (236, 220, 230)).save(thumbnail, "PNG")
    columns = int(np.ceil(each**0.5))
    rows = []
    for name in names:
        (tile.path / "thumbnails" / f"{name}.png").write_bytes(thumbnail.getvalue())
        rows.append(_slide(name, columns * SIDE, each))
    (tile.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    finished = tile.finish({"slides": slides}, [], {"side": 56.0, "pixels": 224})
    embed = artifact_writer(store, "embed", "made", {"slides": slides, "each": each, "name": "made"}, tiles=tile.folder)
    units = {name: list(_units(embed.path, name, each, seed)) for seed, name in enumerate(names)}
    notes = {
        "encoder": {"name": "made"},
        "precision": "float16",
        "side": 56.0,
        "pixels": 224,
        "tiles": finished.path.uri,
        "units": units,
        "patients": {name: f"patient-{name}" for name in names},
        "readers": {},
    }
    return embed.finish({"slides": slides, "tiles": each * slides}, [], notes)


def _units(folder: StoragePath, slide: str, count: int, seed: int) -> Iterator[str]:
    """Write a slide's embeddings, unit by unit, and yield the units' names."""
    per_row = int(np.ceil(count**0.5))
    schema = tables.embeddings(FEATURES, precision="float16")
    vectors, _ = features(count, 1000 + seed)
    for number, first in enumerate(range(0, count, UNIT)):
        tile = np.arange(first, min(first + UNIT, count))
        x, y = tile % per_row * SIDE, tile // per_row * SIDE
        columns = [pa.array([slide] * len(tile)), pa.array(tile), pa.array(x), pa.array(y)]
        columns += [pa.array(np.full(len(tile), SIDE)), pa.nulls(len(tile), pa.string())]
        columns.append(tables.vectors(vectors[tile], "float16"))
        name = f"{slide}.{number:05d}"
        (folder / "embeddings" / slide / f"{name}.parquet").write_table(pa.Table.from_arrays(columns, schema=schema))
        yield name


def _slide(name: str, side: float, tiles: int) -> dict[str, Any]:
    values: dict[str, Any] = {"slide": name, "patient": f"patient-{name}", "path": f"{name}.svs", "content": "made"}
    values |= {"mpp_from": "table", "native": True}
    values |= {"width": int(side), "height": int(side), "mpp": 0.5, "tissue": 1.0, "tiles": tiles}
    return {field.name: values.get(field.name) for field in tables.SLIDES}
