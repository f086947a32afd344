"""A toy cohort whose numbers can be seen: four slides of three patients, six spots each, and a store made of them."""

import hashlib
import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, resolve
from raystp.expression.schema import SectionInfo, SpotPositions, make_section, write_section
from raystp.models.baselines.gene_mean import fit_gene_mean
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.store import load_model, save_model
from raystp.steps.impute.work import PredictOptions
from raystp.storage import StoragePath

PATIENTS = {"S1": "P1", "S2": "P2", "S3": "P3", "S4": "P1"}
GENES = ["A", "B", "C", "D"]
SPOTS = [f"s{number}" for number in range(6)]
CENTRES = np.array([[x, y] for y in (60.0, 120.0) for x in (40.0, 80.0, 120.0)])
SIDE = 32.0
MPP = 0.5

Write = Callable[[Path], Path]


def draw(path: Path) -> Path:
    """Write a slide of 160 x 192 px: glass, with a purple square of tissue."""
    pixels = np.full((192, 160, 3), 240, np.uint8)
    pixels[30:160, 20:140] = (150, 80, 160)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def counts_of(slide: str) -> np.ndarray:
    """Return a slide's counts, 6 spots x 4 genes: small whole numbers that differ from slide to slide."""
    number = list(PATIENTS).index(slide)
    counts: np.ndarray = np.arange(24.0).reshape(6, 4) % (5 + number) + 1
    return counts


def section_of(slide: str) -> ad.AnnData:
    whose = SectionInfo(slide, PATIENTS[slide], slide, mpp=MPP, spot_diameter_um=5.0, pitch_um=20.0, layout="toy")
    at = np.arange(6.0)
    return make_section(counts_of(slide), GENES, SpotPositions(SPOTS, CENTRES, at, at), whose)


def finish(store: StoragePath, step: str, name: str, notes: Mapping[str, Any]) -> Artifact:
    """Finish an artifact whose files are written already, or will be."""
    mark = hashlib.sha256(f"{step}/{name}".encode()).hexdigest()[:12]
    return ArtifactWriter(store / step / f"{name}-{mark}", step, name, mark, {}, {}).finish({}, [], notes)


def _tiles(store: StoragePath) -> Artifact:
    artifact = finish(store, "tile", "toy", {"side": SIDE * MPP, "pixels": 32, "patients": PATIENTS})
    rows = []
    for slide, patient in PATIENTS.items():
        corners = CENTRES - SIDE / 2
        columns = [[slide] * 6, range(6), corners[:, 0], corners[:, 1], [SIDE] * 6, SPOTS]
        (artifact.path / "tiles" / f"{slide}.parquet").write_table(tables.of_columns(columns, tables.TILES))
        png = io.BytesIO()
        Image.new("RGB", (16, 19)).save(png, format="PNG")
        (artifact.path / "thumbnails" / f"{slide}.png").write_bytes(png.getvalue())
        values = [slide, f"/none/{slide}.png", patient, "00", MPP, "table", 160, 192, True, 0.5, 6]
        rows.append(dict(zip(tables.SLIDES.names, values, strict=True)))
    (artifact.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    return artifact


def _embeddings(store: StoragePath, tiles: Artifact) -> None:
    """Embed tile n of the slide number m as (m, n), in two units of three tiles."""
    notes = {
        "encoder": {"name": "tiny"},
        "encoder_identity": "seed:0",
        "precision": "float32",
        "side": SIDE * MPP,
        "pixels": 32,
        "tiles": tiles.path.uri,
        "units": {slide: [f"{slide}.{number:05d}" for number in range(2)] for slide in PATIENTS},
        "patients": PATIENTS,
    }
    artifact = finish(store, "embed", "toy", notes)
    for m, slide in enumerate(PATIENTS):
        table = tiles.table(f"tiles/{slide}.parquet", tables.TILES)
        for number in range(2):
            part = table.slice(3 * number, 3)
            vectors = tables.vectors(np.array([[m, n] for n in part["tile"].to_pylist()], np.float32))
            content = tables.of_columns([*part.columns, vectors], tables.embeddings(2))
            (artifact.path / "embeddings" / slide / f"{slide}.{number:05d}.parquet").write_table(content)


def _model(store: StoragePath) -> None:
    """Save the mean of the sections S1 and S2 as a model."""
    meta: dict[str, Any] = {
        "genes": GENES,
        "d_image": 2,
        "protocol": "patient",
        "panel": {"name": "all"},
        "trained_tower": False,
        "encoder": {"name": "tiny"},
        "train": ["S1", "S2"],
        "validation": [],
        "test": ["S3"],
        "patients": {"S1": "P1", "S2": "P2"},
        "slides": ["S1", "S2"],
    }
    artifact = finish(store, "train", "toy", {})
    save_model(artifact.path, "gene_mean", fit_gene_mean(np.log1p(counts_of("S1"))), meta)


def make_store(store: StoragePath) -> StoragePath:
    """Write `spots/toy`, `tile/toy`, `embed/toy` and `train/toy` into a store; return it."""
    sections = {
        slide: {"patient": patient, "slide": slide, "mpp": MPP, "spots": 6, "genes": 4, "notes": {}}
        for slide, patient in PATIENTS.items()
    }
    spots = finish(store, "spots", "toy", {"sections": sections})
    for slide in PATIENTS:
        write_section(spots.path / "sections" / f"{slide}.h5ad", section_of(slide))
    _embeddings(store, _tiles(store))
    _model(store)
    return store


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> StoragePath:
    return make_store(StoragePath.of(tmp_path_factory.mktemp("toy") / "store"))


@pytest.fixture
def toy_store(made_store: StoragePath, tmp_path: Path) -> StoragePath:
    """A store of its own with `spots/toy`, `tile/toy`, `embed/toy` and `train/toy`, a model of S1 and S2."""
    shutil.copytree(made_store.local_path, tmp_path / "toy")
    return StoragePath.of(tmp_path / "toy")


def add_joint(store: StoragePath) -> None:
    """Leave `train/joint` in the store, a contrastive model of S1 and S2 that was never trained."""
    _, _, meta = load_model(resolve(store.uri, "train/toy", "train").path)
    artifact = finish(store, "train", "joint", {})
    heads = seeded_bleep(2, len(GENES), BleepOptions(dim=8), seed=0)
    save_model(artifact.path, "bleep", dict(heads.state_dict()), {**meta, "options": {"dim": 8}})


def predict_options(k: int, **changes: Any) -> PredictOptions:
    """Return options of a dense prediction by the plain mean of `k` neighbours, four tiles at a time."""
    values: dict[str, Any] = {
        "k": k,
        "weights": "mean",
        "exact": False,
        "genes": None,
        "spread": False,
        "output": "dense",
        "without": {},
        "protocol": "patient",
        "chunk_tiles": 4,
    }
    return PredictOptions(**{**values, **changes})


@pytest.fixture
def joint_store(toy_store: StoragePath) -> StoragePath:
    """The toy store with `train/joint`."""
    add_joint(toy_store)
    return toy_store


@pytest.fixture
def finished() -> Callable[[StoragePath, str, str, Mapping[str, Any]], Artifact]:
    """Finish an artifact: store, step, name, notes."""
    return finish


@pytest.fixture
def drawn() -> Write:
    """Write a slide of 160 x 192 px to a path."""
    return draw


@pytest.fixture
def section() -> Callable[[str], ad.AnnData]:
    """Return the measured section of one of the toy's slides."""
    return section_of
