"""demo: a synthetic cohort, and the whole path on it, in one Ray session.

Four patients' sections are drawn, measured by planted programs and noise, and predicted across patients; a fifth
slide is never measured, a sixth is damaged on purpose. The noise is that of `expression.synthetic`, set before any
model was trained on it.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from raystp.artifacts import Artifact, begin
from raystp.cluster.progress import Progress, say
from raystp.cluster.session import session
from raystp.cluster.tasks import each
from raystp.config import Run, StepConfig
from raystp.expression.schema import About, Spots, make_section, write_section
from raystp.expression.synthetic import Programs, expected_expression, measure, plant_programs, type_fractions
from raystp.expression.synthetic_places import PITCH, visium_places
from raystp.slides.synthetic import TISSUES, damage, draw_slide, draw_stain, tissue_map, write_slide
from raystp.steps import embed, evaluate, impute, index, spots, tile, train
from raystp.storage import Place
from raystp.units import Level0Pixels, MicronsPerPixel

STEP = "demo"
MPP = MicronsPerPixel(0.5)
CELL = 16
SPOT_UM = 55.0
LEAST_TISSUE = 0.5
UNMEASURED, DAMAGED = "unmeasured", "damaged"
MODELS = ("bleep", "ridge", "knn", "gene_mean")


class DemoRun(Run):
    """Where the demo leaves its cohort and its artifacts."""

    store: str = "demo"
    """A folder of its own, so that it can be thrown away."""


class DemoConfig(StepConfig[DemoRun]):
    """How large a cohort to draw."""

    name: str = Field(default="demo", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    """Begins the names of the cohort and of all that is made of it."""

    patients: int = Field(default=4, ge=3, le=26)
    """Measured patients: the last tests, the one before validates, the others train."""

    pixels: int = Field(default=4096, ge=1024, multiple_of=CELL)
    """Side of each slide in level-0 pixels, at 0.5 um/px."""

    epochs: int = Field(default=100, ge=1)
    """Epochs of BLEEP, of which the best on the validation patient counts."""

    contrast: int = Field(default=128, ge=2)
    """Pairs that BLEEP tells apart from each other."""

    neighbours: int = Field(default=50, ge=1)
    """Neighbours that BLEEP and kNN take the mean of."""

    permutations: int = Field(default=20, ge=0)
    """Permutations of each model's null."""

    seed: int = 0

    run: DemoRun = Field(default_factory=DemoRun)


CONFIG = DemoConfig


@dataclass(frozen=True)
class _Draw:
    """One slide to draw."""

    slide: str
    number: int
    pixels: int
    seed: int
    programs: Programs
    folder: Place


def run(config: DemoConfig) -> Artifact:
    """Draw the cohort, run every step on it, and return the evaluation; the damaged slide is expected to fail."""
    with session(config.run.address):
        cohort = _cohort(config)
        return _path(config, cohort.place)


def _cohort(config: DemoConfig) -> Artifact:
    """Draw slides and measurements, the slide table, and what was planted."""
    draft = begin(config, STEP, {})
    if isinstance(draft, Artifact):
        say(f"demo: the cohort is there already: {draft.place}")
        return draft
    programs = plant_programs(np.random.default_rng([config.seed, 0]), [tissue.name for tissue in TISSUES])
    patients = _patients(config)
    names = [*patients, UNMEASURED, DAMAGED]
    work = [_Draw(name, n, config.pixels, config.seed, programs, draft.place) for n, name in enumerate(names)]
    with Progress("draw", len(work), "slide") as progress:
        for _ in each(_draw, work):
            progress.add(1)
    rows = ["slide,path,patient,layout,counts"]
    rows += [f"{name},slides/{name}.svs,{name},scverse,counts/{name}.h5ad" for name in patients]
    rows += [f"{name},slides/{name}.svs,{name},," for name in (UNMEASURED, DAMAGED)]
    (draft.place / "slides.csv").write_bytes("\n".join(rows).encode() + b"\n")
    genes = np.asarray(programs.genes)
    planted = {"planted": genes[programs.planted].tolist(), "no signal": genes[~programs.planted].tolist()}
    (draft.place / "planted" / "genes.json").write_bytes(json.dumps(planted).encode())
    (draft.place / "genes.txt").write_bytes("\n".join(programs.genes).encode())
    return draft.finish({"slides": len(work), "genes": len(programs.genes)}, [])


def _draw(work: _Draw) -> int:
    """Draw one slide and, where it is a patient's, measure it; return its spots."""
    rng = np.random.default_rng([work.seed, 1, work.number])
    side = work.pixels
    kinds = tissue_map(rng, width=side, height=side, mpp=MPP, cell=CELL)
    image = draw_slide(rng, kinds, cell=CELL, mpp=MPP, stain=draw_stain(rng))
    slides = work.folder / "slides" / f"{work.slide}.svs"
    slides.write_file(lambda path: write_slide(path, image, mpp=MPP))
    if work.slide == DAMAGED:
        damage(slides.path)
    if work.slide in (UNMEASURED, DAMAGED):
        return 0
    xy, row, col = visium_places(side, side, mpp=MPP)
    radius = Level0Pixels(SPOT_UM / MPP / 2)
    shares = type_fractions(kinds, xy, cell=CELL, radius_px=radius, types=len(TISSUES))
    kept = shares[:, 0] < LEAST_TISSUE
    expected = expected_expression(work.programs, shares[kept, 1:])
    counts = measure(rng, expected)
    names = [f"{r}x{c}" for r, c in zip(row[kept].tolist(), col[kept].tolist(), strict=True)]
    about = About(work.slide, work.slide, work.slide, float(MPP), SPOT_UM, float(PITCH), "scverse")
    places = Spots(names, xy[kept], row[kept].astype(np.float64), col[kept].astype(np.float64))
    write_section(
        work.folder / "counts" / f"{work.slide}.h5ad", make_section(counts, work.programs.genes, places, about)
    )
    columns = {"spot": names, **{gene: expected[:, n] for n, gene in enumerate(work.programs.genes)}}
    (work.folder / "planted" / f"{work.slide}.parquet").write_table(pa.table(columns))
    return len(names)


def _patients(config: DemoConfig) -> list[str]:
    return [f"patient-{chr(ord('A') + number)}" for number in range(config.patients)]


def _path(config: DemoConfig, cohort: Place) -> Artifact:
    """Run the steps one after the other."""
    where, name = {"store": config.run.store}, config.name
    table = (cohort / "slides.csv").uri
    spots.run(spots.CONFIG.of({"slides": table, "name": name, "run": where}))
    tile.run(tile.CONFIG.of({"slides": table, "spots": f"spots/{name}", "name": name, "run": where}))
    embed.run(embed.CONFIG.of({"tiles": f"tile/{name}", "name": name, "run": where}))
    for model in MODELS:
        _train_and_impute(model, config, cohort)
    wanted: dict[str, Any] = {
        "name": name,
        "spots": f"spots/{name}",
        "predictions": [f"impute/{name}-{model}" for model in MODELS],
        "genes": ["TUM_UP01", "IMM_UP01", "STR_DN01"],
        "permutations": config.permutations,
        "planted": (cohort / "planted").uri,
        "run": where,
    }
    return evaluate.run(evaluate.CONFIG.of(wanted))


def _train_and_impute(model: str, config: DemoConfig, cohort: Place) -> None:
    patients, where = _patients(config), {"store": config.run.store}
    sources = {"spots": f"spots/{config.name}", "embeddings": f"embed/{config.name}"}
    name = f"{config.name}-{model}"
    trained: dict[str, Any] = {
        **sources,
        "name": name,
        "model": model,
        "k": config.neighbours,
        "panel": {"name": "all genes", "file": (cohort / "genes.txt").uri},
        "split": {"test": patients[-1:], "validation": patients[-2:-1]},
        "fit": {
            "epochs": config.epochs,
            "contrast": config.contrast,
            "step": 1,
            "select": "best_pcc",
            "seed": config.seed,
        },
        "run": where,
    }
    train.run(train.CONFIG.of(trained))
    asked: dict[str, Any] = {**sources, "name": name, "model": f"train/{name}", "run": where}
    if model == "bleep":
        index.run(index.CONFIG.of({**asked, "shards": 2}))
        asked["k"] = config.neighbours
        asked["index"] = f"index/{name}"
    impute.run(impute.CONFIG.of(asked))
