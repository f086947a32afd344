"""A cohort of small slides that are embedded within seconds, and snapshots of its artifacts."""

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
TILE_PX = 224
SLIDE_PX = 4 * TILE_PX
MPP = MicronsPerPixel(0.5)
TILING: dict[str, Any] = {"tile_um": 112, "tile_px": TILE_PX, "min_tissue": 0.0, "focus_tiles": 0}
EMBEDDING: dict[str, Any] = {"unit_tiles": UNIT_TILES, "run.encoders": 2, "run.batch_tiles": 2}
VARIES = {"created", "statistics", "packages"}
"""Keys of a manifest that describe the run, not its result."""


def draw(folder: Path) -> None:
    """Write the slides, each a part of one synthetic image: 4 x 4 tiles, all tissue."""
    rng, whole = np.random.default_rng(0), 3 * SLIDE_PX
    types = tissue_map(rng, width=whole, height=whole, mpp=MPP, cell=16)
    image = draw_slide(rng, types, cell=16, mpp=MPP, stain=draw_stain(rng), pen=False)
    folder.mkdir()
    for number, slide in enumerate(SLIDES):
        top, left = SLIDE_PX // 2 + number // 3 * SLIDE_PX, number % 3 * SLIDE_PX
        write_slide(folder / f"{slide}.svs", image[top : top + SLIDE_PX, left : left + SLIDE_PX], mpp=MPP)


def table(file: Path, paths: dict[str, str], mpp: str = "") -> str:
    """Write a slide table: slide -> path or URI, each with its own patient; return the table's path."""
    rows = [f"{slide},{path},patient-{number},{mpp}" for number, (slide, path) in enumerate(paths.items())]
    file.write_text("\n".join(["slide,path,patient,mpp", *rows]) + "\n")
    return str(file)


@dataclass(frozen=True)
class Snapshot:
    """The result of a run of `embed` as plain values: equal for equal results."""

    manifest: dict[str, Any]
    content: dict[str, bytes]
    """Every table and commit record, by its path."""


def snapshot(artifact: Artifact, slides: Sequence[str] = SLIDES) -> Snapshot:
    """Return manifest and content of these slides."""
    values = json.loads((artifact.path / "manifest.json").read_bytes())
    manifest = {key: value for key, value in values.items() if key not in VARIES}
    manifest["notes"].pop("tiles")  # where they are, seen from this store; `inputs` has their fingerprint
    content = {}
    for slide in slides:
        for unit in range(UNITS):
            for name in (f"embeddings/{slide}/{slide}.{unit:05d}.parquet", f"commits/{slide}.{unit:05d}.json"):
                content[name] = (artifact.path / name).read_bytes()
    return Snapshot(manifest, content)


def names(folder: Path) -> list[str]:
    """Return every file in a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def visible_files(folder: Path) -> list[str]:
    """Return the files of an artifact that readers see: temporary files of killed processes are hidden.

    Attempt markers are excluded: one may remain after a process was killed between its commit and `end`.
    """
    return [name for name in names(folder) if not Path(name).name.startswith(".") and not name.startswith("attempts/")]


def ids(folder: Path) -> list[tuple[str, int]]:
    """Return slide and tile number of every row in the embeddings, as a plain parquet reader sees them."""
    found = dataset(folder / "embeddings", format="parquet").to_table(["slide", "tile"])
    return [(row["slide"], row["tile"]) for row in found.to_pylist()]
