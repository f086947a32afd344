"""A toy cohort of whole cases: slides without any spot, and a table of labels."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.steps.train import step as train
from raystp.steps.train.config import TrainConfig
from raystp.storage import StoragePath

WIDTH = 8
GENES = ["HOT1", "HOT2", "HOT3", "NULL1", "NULL2", "NULL3"]
CASES = [f"P{number:02d}" for number in range(44)]
TEST, VALIDATION = CASES[-8:], CASES[-12:-8]
TWO_SLIDES = {"P01", "P38"}
EMPTY = "P99"
"""A case with a label, and a slide without tiles."""


def _finish(store: StoragePath, step: str, notes: dict[str, Any]) -> Artifact:
    mark = hashlib.sha256(step.encode()).hexdigest()[:12]
    return ArtifactWriter(store / step / f"bulk-{mark}", step, "bulk", mark, {}, {}).finish({}, [], notes)


@dataclass(frozen=True)
class Cohort:
    """What was planted."""

    store: Path
    table: Path
    hot: dict[str, np.ndarray]
    """Slide -> tile x planted gene: where it is raised."""

    def train(self, name: str = "bulk", **changes: Any) -> TrainConfig:
        asked: dict[str, Any] = {
            "name": name,
            "embeddings": "embed/bulk",
            "targets": "cases",
            "model": "attention",
            "cases": {"table": str(self.table)},
            "panel": {"name": "all", "variable": len(GENES)},
            "split": {"test": TEST, "validation": VALIDATION},
            "attention": {"embedding": 16, "hidden": 8},
            # Half of the genes are noise, so four cases of validation say little of an epoch.
            "fit": {"epochs": 30, "lr": 2e-2, "batch_size": 4, "select": "last", "patience": None},
            "run": {"store": str(self.store), "tracking": "none"},
        }
        for key, value in changes.items():
            both = isinstance(asked.get(key), dict) and isinstance(value, dict)
            asked[key] = {**asked[key], **value} if both else value
        if asked["attention"] is None:
            asked.pop("attention")
        return train.CONFIG.of(asked)


def _draw(store: StoragePath) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Write tiles and embeddings; a case's label of a planted gene is the share of its tiles moved along one axis."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    hot, labels, rows, patients = {}, [], [], {}
    tiles = _finish(store, "tile", {"side": 16.0, "pixels": 32})
    embed = ArtifactWriter(store / "embed" / "bulk-0123456789ab", "embed", "bulk", "0123456789ab", {}, {})
    for case in CASES:
        share, here = rng.uniform(0.05, 0.5, size=3), []
        for slide in [f"{case}-a", f"{case}-b"] if case in TWO_SLIDES else [f"{case}-a"]:
            size = int(rng.integers(40, 90))
            raised = rng.random((size, 3)) < share
            moved = rng.normal(size=(size, WIDTH)) + 0.7 * rng.normal(size=WIDTH - 3) @ axes[3:]
            _write(embed.path, tiles.path, slide, (moved + 2.5 * raised @ axes[:3]).astype(np.float32))
            hot[slide], patients[slide] = raised, case
            here.append(raised)
            values = [slide, f"/none/{slide}.png", case, "00", 0.5, "table", 400, 400, True, 0.5, size]
            rows.append(dict(zip(tables.SLIDES.names, values, strict=True)))
        labels.append(3 + 4 * np.concatenate(here).mean(axis=0) + 0.05 * rng.normal(size=3))
    rows.append({**rows[-1], "slide": f"{EMPTY}-a", "patient": EMPTY, "tiles": 0})
    (tiles.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    _thumbnail(tiles.path, f"{EMPTY}-a")
    units = {**{slide: [slide] for slide in patients}, f"{EMPTY}-a": []}
    patients[f"{EMPTY}-a"] = EMPTY
    notes = {"encoder": {"name": "toy"}, "precision": "float32", "side": 16.0, "pixels": 32}
    notes |= {"tiles": tiles.path.uri, "units": units, "patients": patients}
    embed.finish({}, [], notes)
    labels.append(np.full(3, 4.0))
    return hot, np.concatenate([np.array(labels), rng.normal(3, 1, size=(len(labels), 3)).clip(0)], axis=1)


def _write(embed: StoragePath, tiles: StoragePath, slide: str, vectors: np.ndarray) -> None:
    at = np.arange(len(vectors))
    columns = [[slide] * len(at), at, at % 10 * 32.0, at // 10 * 32.0, np.full(len(at), 32.0), [None] * len(at)]
    content = tables.of_columns([*columns, tables.vectors(vectors)], tables.embeddings(WIDTH))
    (embed / "embeddings" / slide / f"{slide}.parquet").write_table(content)
    _thumbnail(tiles, slide)


def _thumbnail(tiles: StoragePath, slide: str) -> None:
    png = io.BytesIO()
    Image.new("RGB", (20, 20)).save(png, format="PNG")
    (tiles / "thumbnails" / f"{slide}.png").write_bytes(png.getvalue())


def draw_cohort(folder: Path) -> Cohort:
    """Draw 44 cases of which nothing but a table and slides is there; two have two slides."""
    hot, labels = _draw(StoragePath.of(folder / "store"))
    frame = pd.DataFrame(labels, columns=GENES)
    frame.insert(0, "case", [*CASES, EMPTY])
    frame.to_csv(folder / "bulk.csv", index=False)
    return Cohort(folder / "store", folder / "bulk.csv", hot)
