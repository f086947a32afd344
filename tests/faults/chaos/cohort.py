"""The smoke cohort in an object store, and the config of the whole pipeline on it."""

from typing import Any

import numpy as np
import yaml

from raystp.expression.synthetic.programs import plant_programs
from raystp.slides.synthetic.slide import TISSUES
from raystp.steps.demo.draw import DrawTask, draw
from raystp.storage import StoragePath
from tests.conftest import ROOT

PATIENTS = ("patient-A", "patient-B", "patient-C")
SMOKE = yaml.safe_load((ROOT / "conf" / "demo" / "smoke.yaml").read_text())
CHECKPOINT = {"checkpoint_every": 1}


def draw_cohort(folder: StoragePath, target: StoragePath) -> str:
    """Draw the slides and counts in a local folder and upload them; return the URI of the slide table."""
    programs = plant_programs(np.random.default_rng([0, 0]), [tissue.name for tissue in TISSUES])
    rows = ["slide,path,patient,layout,counts"]
    for number, name in enumerate(PATIENTS):
        draw(DrawTask(name, number, SMOKE["pixels"], 0, programs, folder))
        rows.append(f"{name},slides/{name}.svs,{name},scverse,counts/{name}.h5ad")
    for name in folder.files():
        (target / name).write_bytes((folder / name).read_bytes())
    table = target / "slides.csv"
    table.write_bytes("\n".join(rows).encode() + b"\n")
    return table.uri


def pipeline_config(slides: str, store: str, address: str) -> dict[str, Any]:
    """Return the config of a pipeline over all steps, with a checkpoint after each epoch."""
    fit = {"epochs": 5, "batch_size": 16, "accumulate_batches": 2}
    trained = {"split": {"test": ["patient-C"]}, "panel": {"variable": 50}, "fit": fit, "run": CHECKPOINT}
    return {
        "name": "chaos",
        "slides": slides,
        "tile": {"tile_um": 64},
        "embed": {"unit_tiles": 24, "run": {"encoders": 2}},
        "train": trained,
        "index": {"shards": 2},
        "impute": {"k": 10},
        "evaluate": {"permutations": 0},
        "run": {"store": store, "address": address, "tracking": "none", "retry_failed": True},
    }
