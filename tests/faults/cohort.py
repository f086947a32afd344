"""A cohort of small slides that read and embed within seconds, and what an undisturbed run leaves of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow.dataset import dataset

from raystp.artifacts import Artifact
from raystp.slides.synthetic.slide import draw_slide, draw_stain, tissue_map, write_slide
from raystp.units import MicronsPerPixel

SLIDES = ("A", "B", "C", "D", "E", "F")
UNITS = 4
"""Of each slide."""
UNIT_TILES = 4
SIDE = 224
PIXELS = 4 * SIDE
MPP = MicronsPerPixel(0.5)
TILING: dict[str, Any] = {"tile_um": 112, "tile_px": SIDE, "min_tissue": 0.0, "focus_tiles": 0}
EMBEDDING: dict[str, Any] = {"unit_tiles": UNIT_TILES, "run.encoders": 2, "run.batch_tiles": 2}
VARIES = {"created", "statistics", "packages"}
"""What a manifest says of the run rather than of its result."""


def draw(folder: Path) -> None:
    """Write the slides, each a part of one drawing: 4 x 4 tiles, all of tissue."""
    rng, whole = np.random.default_rng(0), 3 * PIXELS
    types = tissue_map(rng, width=whole, height=whole, mpp=MPP, cell=16)
    picture = draw_slide(rng, types, cell=16, mpp=MPP, stain=draw_stain(rng), pen=False)
    folder.mkdir()
    for number, slide in enumerate(SLIDES):
        top, left = PIXELS // 2 + number // 3 * PIXELS, number % 3 * PIXELS
        write_slide(folder / f"{slide}.svs", picture[top : top + PIXELS, left : left + PIXELS], mpp=MPP)


def table(file: Path, paths: dict[str, str], mpp: str = "") -> str:
    """Write a slide table: slide -> path or URI, each of a patient of its own; return its path."""
    rows = [f"{slide},{path},patient-{number},{mpp}" for number, (slide, path) in enumerate(paths.items())]
    file.write_text("\n".join(["slide,path,patient,mpp", *rows]) + "\n")
    return str(file)


@dataclass(frozen=True)
class Left:
    """What a run of `embed` left, as plain values: two runs that did the same are equal."""

    manifest: dict[str, Any]
    content: dict[str, bytes]
    """Every table and commit record, by its path."""


def left(artifact: Artifact, slides: Sequence[str] = SLIDES) -> Left:
    """Return what there is of these slides; everything, where all are named."""
    values = json.loads((artifact.path / "manifest.json").read_bytes())
    manifest = {key: value for key, value in values.items() if key not in VARIES}
    content = {}
    for slide in slides:
        for unit in range(UNITS):
            for name in (f"embeddings/{slide}/{slide}.{unit:05d}.parquet", f"commits/{slide}.{unit:05d}.json"):
                content[name] = (artifact.path / name).read_bytes()
    return Left(manifest, content)


def names(folder: Path) -> list[str]:
    """Return every file in a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def shown(folder: Path) -> list[str]:
    """Return the files of an artifact that its readers see: what a killed process was writing is hidden from them.

    Marks of attempts may stay too, of a process that was killed between its commit and its last word.
    """
    return [name for name in names(folder) if not Path(name).name.startswith(".") and not name.startswith("attempts/")]


def ids(folder: Path) -> list[tuple[str, int]]:
    """Return slide and number of every row in a folder of embeddings, as any reader of a folder of parquet does."""
    found = dataset(folder / "embeddings", format="parquet").to_table(["slide", "tile"])
    return [(row["slide"], row["tile"]) for row in found.to_pylist()]
