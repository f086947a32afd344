"""demo: a synthetic cohort, and the whole path on it, in one Ray session.

Four patients' sections are drawn, measured by planted programs and noise, and predicted across patients; a fifth
slide is never measured, a sixth is damaged on purpose. The noise is that of `expression.synthetic`, set before any
model was trained on it.
"""

import json
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from raystp.artifacts import Artifact, begin
from raystp.cluster.progress import Progress, say
from raystp.cluster.session import session
from raystp.cluster.tasks import each
from raystp.config import Run, StepConfig, Where
from raystp.expression.synthetic import plant_programs
from raystp.slides.synthetic import TISSUES
from raystp.steps import pipeline
from raystp.steps.demo_draw import CELL, DAMAGED, UNMEASURED, Draw, draw
from raystp.storage import Place

STEP = "demo"
MODELS = ("bleep", "ridge", "knn", "gene_mean")


class DemoRun(Run):
    """Where the demo leaves its cohort and its artifacts."""

    store: Annotated[str, Where()] = "demo"
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
    work = [Draw(name, n, config.pixels, config.seed, programs, draft.place) for n, name in enumerate(names)]
    with Progress("draw", len(work), "slide") as progress:
        for _ in each(draw, work):
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


def _patients(config: DemoConfig) -> list[str]:
    return [f"patient-{chr(ord('A') + number)}" for number in range(config.patients)]


def _path(config: DemoConfig, cohort: Place) -> Artifact:
    """Run the pipeline on the cohort, with BLEEP and its baselines; return the evaluation."""
    patients = _patients(config)
    trained: dict[str, Any] = {
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
    }
    wanted: dict[str, Any] = {
        "name": config.name,
        "slides": (cohort / "slides.csv").uri,
        "train": [{"model": model, **trained} for model in MODELS],
        "index": {"shards": 2},
        "impute": {"k": config.neighbours},
        "evaluate": {
            "genes": ["TUM_UP01", "IMM_UP01", "STR_DN01"],
            "permutations": config.permutations,
            "planted": (cohort / "planted").uri,
        },
        "run": {"store": config.run.store},
    }
    return pipeline.path(pipeline.CONFIG.of(wanted))["evaluate"]
