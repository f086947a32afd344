"""A cohort of embeddings, a contrastive model and its bank, made up, as the steps would have left them in a store.

Tiles and reference spots are of the same 2,000 kinds: a feature vector is its kind's centre and noise. Their places in
the model's space follow from its image head, so that near is near there too. A spot's expression is its kind's, of
which 12 % is not zero, with noise.
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


def draft(store: Path, step: str, name: str, config: dict[str, Any], **inputs: str) -> ArtifactWriter:
    """Return an artifact in the making, in the place where `find` looks for it."""
    mark = hashlib.sha256(json.dumps([step, name, config]).encode()).hexdigest()[:12]
    return ArtifactWriter(StoragePath.of(store) / step / f"{name}-{mark}", step, name, mark, dict(inputs), config)


def features(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return so many feature vectors, and the kind of each."""
    rng = np.random.default_rng([seed, 0xFEA7])
    kinds = rng.integers(0, KINDS, count)
    drawn = rng.standard_normal((count, FEATURES), dtype=np.float32)
    drawn *= NOISE
    drawn += centres()[kinds]
    return drawn, kinds


def centres() -> np.ndarray:
    """Return each kind's feature vector."""
    return np.random.default_rng(0xCE27).standard_normal((KINDS, FEATURES), dtype=np.float32)


def expression(kinds: np.ndarray, genes: int, seed: int) -> sp.csr_array:
    """Return log1p expression of so many spots: their kind's genes, with noise."""
    rng = np.random.default_rng([seed, 0xE89])
    kept = int(DENSE * genes)
    profile = np.random.default_rng(0x9E0E)
    own = np.stack([np.sort(profile.choice(genes, kept, replace=False)) for _ in range(KINDS)]).astype(np.int32)
    level = profile.gamma(2.0, 0.6, (KINDS, kept)).astype(np.float32)
    values = level[kinds] * (0.6 + 0.8 * rng.random((len(kinds), kept), dtype=np.float32))
    starts = np.arange(len(kinds) + 1, dtype=np.int64) * kept
    return sp.csr_array((values.ravel(), own[kinds].ravel(), starts), shape=(len(kinds), genes))


def make_model(store: Path, genes: int) -> tuple[Artifact, ContrastivePredictor]:
    """Leave a model that was never trained; its image head maps tiles that are near to places that are near."""
    names = [f"GENE{number:05d}" for number in range(genes)]
    heads = seeded_bleep(FEATURES, genes, BleepOptions(), seed=0).eval()
    made = draft(store, "train", "made", {"model": "bleep", "genes": genes, "name": "made"}, **NEVER)
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
    save_model(made.path, "bleep", dict(heads.state_dict()), meta)
    kept = {key: meta[key] for key in ("protocol", "train", "validation", "test", "patients", "panel", "d_image")}
    return made.finish({"genes": genes}, [], kept), BleepPredictor("bleep", names, FEATURES, heads)


def make_embeddings(store: Path, tiles: int, slides: int) -> Artifact:
    """Leave the tiles of so many slides with their features, and the slides' small pictures."""
    each = tiles // slides
    names = [f"slide-{number:04d}" for number in range(slides)]
    tile = draft(store, "tile", "made", {"slides": slides, "each": each, "name": "made"})
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (236, 220, 230)).save(picture, "PNG")
    wide = int(np.ceil(each**0.5))
    rows = []
    for name in names:
        (tile.path / "thumbnails" / f"{name}.png").write_bytes(picture.getvalue())
        rows.append(_slide(name, wide * SIDE, each))
    (tile.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    finished = tile.finish({"slides": slides}, [], {"side": 56.0, "pixels": 224})
    embed = draft(store, "embed", "made", {"slides": slides, "each": each, "name": "made"}, tiles=tile.folder)
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


def _units(place: StoragePath, slide: str, count: int, seed: int) -> Iterator[str]:
    """Write a slide's embeddings, unit by unit, and yield their names."""
    wide = int(np.ceil(count**0.5))
    schema = tables.embeddings(FEATURES, precision="float16")
    drawn, _ = features(count, 1000 + seed)
    for number, first in enumerate(range(0, count, UNIT)):
        tile = np.arange(first, min(first + UNIT, count))
        x, y = tile % wide * SIDE, tile // wide * SIDE
        columns = [pa.array([slide] * len(tile)), pa.array(tile), pa.array(x), pa.array(y)]
        columns += [pa.array(np.full(len(tile), SIDE)), pa.nulls(len(tile), pa.string())]
        columns.append(tables.vectors(drawn[tile], "float16"))
        name = f"{slide}.{number:05d}"
        (place / "embeddings" / slide / f"{name}.parquet").write_table(pa.Table.from_arrays(columns, schema=schema))
        yield name


def _slide(name: str, side: float, tiles: int) -> dict[str, Any]:
    values: dict[str, Any] = {"slide": name, "patient": f"patient-{name}", "path": f"{name}.svs", "content": "made"}
    values |= {"mpp_from": "table", "native": True}
    values |= {"width": int(side), "height": int(side), "mpp": 0.5, "tissue": 1.0, "tiles": tiles}
    return {field.name: values.get(field.name) for field in tables.SLIDES}
