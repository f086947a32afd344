"""Write a tiny archive of every stored format: `python tests/archives/make.py tests/archives/vN`.

Run it once for each version of a format, into a new folder. An archive is never written again.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from raystp import tables
from raystp.artifacts import ArtifactWriter
from raystp.expression.schema import SectionInfo, SpotPositions, make_section, write_section
from raystp.impute.writer import SlideOverview, TileTable, prediction_to_anndata, write_prediction
from raystp.index.reference import ReferenceRows
from raystp.index.write import write_reference_index
from raystp.models.baselines.gene_mean import fit_gene_mean
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.store import save_model, save_state
from raystp.models.training.fit import TrainState
from raystp.models.training.options import FitOptions
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

GENES = ["A", "B", "C"]
SPOTS = ["s0", "s1"]
SQUARES = np.array([[0.0, 8.0, 4.0], [4.0, 8.0, 4.0]])
EXPRESSION = np.arange(6, dtype=np.float32).reshape(2, 3)

FAILURE: list[object] = ["S3", "tile", "no slide"]
ROW_OF: Mapping[str, tuple[pa.Schema, list[object]]] = {
    "failures.parquet": (tables.FAILURES, FAILURE),
    "epochs.parquet": (tables.EPOCHS, [0, 2.5, None, 0.25, 1.0]),
    "slides.parquet": (
        tables.SLIDES,
        ["S1", "/data/S1.svs", "P1", "00ff", 0.5, "slide", 64, 32, True, 0.5, 2],
    ),
    "scores.parquet": (
        tables.SCORES,
        ["patient", "p", "ridge", "S1", "all", "PCC", 0.5, 0.25, 0.75, 0.0, None, 0, 2],
    ),
}


def main(folder: Path) -> None:
    """Write the archive."""
    if folder.exists():
        sys.exit(f"{folder} is there already, and an archive is never written again")
    path = StoragePath.of(folder)
    draft = ArtifactWriter(path, "tile", "archive", "0123456789ab", {"slides": "ff00"}, {"side": 112.0})
    _tables(path)
    _section(path)
    _models(path)
    reference = ReferenceRows(EXPRESSION[:, :2], EXPRESSION, GENES, ["S1", "S1"], SPOTS, ["P1", "P1"])
    notes = {"bank": write_reference_index(path / "bank", reference, shards=2, metric="l2"), "pixels": 224}
    draft.finish({"slides": 1, "tiles": 2}, [dict(zip(tables.FAILURES.names, FAILURE, strict=True))], notes)


def _tables(path: StoragePath) -> None:
    for name, (schema, row) in ROW_OF.items():
        (path / name).write_table(tables.of_columns([[value] for value in row], schema))
    tiles = [["S1", "S1"], [0, 1], *SQUARES.T, ["s0", None]]
    (path / "tiles.parquet").write_table(tables.of_columns(tiles, tables.TILES))
    for precision in ("float32", "float16"):
        schema = tables.embeddings(3, precision=precision)
        table = tables.of_columns([*tiles, tables.vectors(EXPRESSION, precision)], schema)
        (path / f"embeddings-{precision}.parquet").write_table(table)
    predictions = tables.of_columns([*tiles, tables.vectors(EXPRESSION)], tables.predictions(3))
    (path / "predictions.parquet").write_table(predictions)


def _section(path: StoragePath) -> None:
    at = np.arange(2.0)
    spots = SpotPositions(SPOTS, SQUARES[:, :2] + 2, at, at)
    about = SectionInfo("S1", "P1", "S1", mpp=0.5, spot_diameter_um=55.0, pitch_um=100.0, layout="toy")
    write_section(path / "section.h5ad", make_section(EXPRESSION + 1, GENES, spots, about))
    places = TileTable("S1", SPOTS, spots.xy, Level0Pixels(110.0), SlideOverview(np.zeros((2, 4, 3), np.uint8), 0.0625))
    prediction = prediction_to_anndata(EXPRESSION, GENES, places, provenance={"model": "m", "schema_version": 1})
    write_prediction(path / "prediction.h5ad", prediction)


def _models(path: StoragePath) -> None:
    meta = {"genes": GENES, "d_image": 2}
    save_model(path / "gene_mean", "gene_mean", fit_gene_mean(EXPRESSION), meta)
    bleep = seeded_bleep(2, 3, BleepOptions(dim=4), seed=0)
    save_model(path / "bleep", "bleep", bleep.state_dict(), {**meta, "options": {"dim": 4}})
    training = TrainState.start(bleep, bleep.loss, FitOptions())
    for parameter in bleep.parameters():
        parameter.grad = torch.ones_like(parameter)
    training.optimizer.step()  # so that there are moments to store
    training.epoch, training.best_epoch, training.best_value = 1, 0, -0.5
    training.best = {name: value.clone() for name, value in bleep.state_dict().items()}
    save_state(path / "checkpoint", training)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
