"""Draw and measure one slide of the demo, in a Ray worker. It imports no step, so a worker starts quickly."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raystp.expression.schema import SectionInfo, SpotPositions, make_section, write_section
from raystp.expression.synthetic.programs import Programs, expected_expression, measure
from raystp.expression.synthetic.spots import PITCH, type_fractions, visium_positions
from raystp.slides.synthetic.slide import TISSUES, damage, draw_slide, draw_stain, tissue_map, write_slide
from raystp.steps.demo.config import CELL
from raystp.storage import StoragePath
from raystp.units import Level0Pixels, MicronsPerPixel

MPP = MicronsPerPixel(0.5)
SPOT_UM = 55.0
MAX_GLASS = 0.5
UNMEASURED, DAMAGED = "unmeasured", "damaged"


@dataclass(frozen=True)
class DrawTask:
    """One slide to draw."""

    slide: str
    number: int
    slide_px: int
    """Side of the slide in level-0 px."""
    seed: int
    programs: Programs
    folder: StoragePath


def draw(work: DrawTask) -> int:
    """Draw one slide, measure it if it is a patient's, and return its number of spots."""
    rng = np.random.default_rng([work.seed, 1, work.number])
    side = work.slide_px
    kinds = tissue_map(rng, width=side, height=side, mpp=MPP, cell=CELL)
    image = draw_slide(rng, kinds, cell=CELL, mpp=MPP, stain=draw_stain(rng))
    file = work.folder / "slides" / f"{work.slide}.svs"
    file.write_file(lambda path: write_slide(path, image, mpp=MPP))
    if work.slide == DAMAGED:
        damage(file.local_path)
    if work.slide in (UNMEASURED, DAMAGED):
        return 0
    xy, row, col = visium_positions(side, side, mpp=MPP)
    radius = Level0Pixels(SPOT_UM / MPP / 2)
    shares = type_fractions(kinds, xy, cell=CELL, radius_px=radius, types=len(TISSUES))
    kept = shares[:, 0] < MAX_GLASS
    expected = expected_expression(work.programs, shares[kept, 1:])
    counts = measure(rng, expected)
    names = [f"{r}x{c}" for r, c in zip(row[kept].tolist(), col[kept].tolist(), strict=True)]
    info = SectionInfo(work.slide, work.slide, work.slide, float(MPP), SPOT_UM, float(PITCH), "scverse")
    positions = SpotPositions(names, xy[kept], row[kept].astype(np.float64), col[kept].astype(np.float64))
    write_section(
        work.folder / "counts" / f"{work.slide}.h5ad", make_section(counts, work.programs.genes, positions, info)
    )
    columns = {"spot": names, **{gene: expected[:, n] for n, gene in enumerate(work.programs.genes)}}
    (work.folder / "planted" / f"{work.slide}.parquet").write_table(pa.table(columns))
    return len(names)
