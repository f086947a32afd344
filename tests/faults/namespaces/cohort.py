"""The cohort of the network tests: the smoke demo's measured sections and a slide without measurements."""

from pathlib import Path

import numpy as np

from raystp.expression.synthetic.programs import plant_programs
from raystp.slides.synthetic.slide import TISSUES
from raystp.steps.demo.draw import UNMEASURED, DrawTask, draw
from raystp.storage import StoragePath

PATIENTS = ("patient-A", "patient-B", "patient-C")
SLIDE_PX = 1536


def draw_cohort(folder: Path) -> None:
    """Write slides, counts and the slide table, with paths relative to the table."""
    programs = plant_programs(np.random.default_rng([0, 0]), [tissue.name for tissue in TISSUES])
    for number, name in enumerate((*PATIENTS, UNMEASURED)):
        draw(DrawTask(name, number, SLIDE_PX, 0, programs, StoragePath.of(folder)))
    rows = [f"{name},slides/{name}.svs,{name},scverse,counts/{name}.h5ad" for name in PATIENTS]
    rows.append(f"{UNMEASURED},slides/{UNMEASURED}.svs,{UNMEASURED},,")
    (folder / "slides.csv").write_text("\n".join(["slide,path,patient,layout,counts", *rows]) + "\n")
