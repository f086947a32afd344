"""tile: slides [+ spots, masks] -> a tiles table, a tissue mask and a thumbnail per slide.

The mask is detected on a thumbnail, or given by the user. It is written as GeoJSON in level-0 px. QuPath opens that
file, and the same file given back through `masks` produces the same tiles.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from raystp import tables
from raystp.artifacts import Artifact, content_id, create_or_open, digest_of, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.errors import RaystpError, SectionError, StorageError
from raystp.expression.schema import read_section
from raystp.slides.coordinates import boxes_around, check_spots_inside
from raystp.slides.open import Slide, open_slide
from raystp.slides.table import SlideRow, read_slide_table
from raystp.slides.tissue.masks import TissueMask, mask_digest, slide_mask, tissue_grid, user_masks
from raystp.slides.tissue.overview import write_images
from raystp.slides.tissue.quality import SlideQuality, sharpness, slide_quality
from raystp.steps.tile.config import TileConfig
from raystp.storage import StoragePath
from raystp.units import Microns

STEP = "tile"
THUMBNAIL_PX = 1024


@dataclass(frozen=True)
class _TileTask:
    """One slide to tile, in a Ray worker."""

    row: SlideRow
    config: TileConfig
    target: StoragePath
    section: StoragePath | None
    """The slide's measured spots."""
    derived_mpp: float | None
    mask: StoragePath | None = None
    """The user's own mask."""


class TileResult(TypedDict):
    """A slide's row of the slides table, without `content`, and what the manifest records about it."""

    slide: str
    path: str
    patient: str
    mpp: float
    mpp_from: str
    width: int
    height: int
    native: bool
    tissue: float
    tiles: int
    quality: SlideQuality
    reader: str


CONFIG = TileConfig


def run(config: TileConfig) -> Artifact:
    """Tile every slide of the table; a slide that fails is a row in the failures table."""
    rows = read_slide_table(config.slides, config.root, config.run.store)
    spots = resolve(config.run.store, config.spots, "spots") if config.spots else None
    contents = {row.slide: _content(row.path) for row in rows}
    table = digest_of([[row.slide, row.patient, row.mpp, contents[row.slide]] for row in rows])
    masks = user_masks(config.masks, [row.slide for row in rows])
    digests = {"masks": digest_of({slide: mask_digest(mask) for slide, mask in masks.items()})} if masks else {}
    draft = create_or_open(config, STEP, {"slides": table, **digests, **({"spots": spots} if spots else {})})
    if isinstance(draft, Artifact):
        return draft
    tasks = [_task(row, config, draft.path, spots=spots, mask=masks.get(row.slide)) for row in rows]
    slides: list[TileResult] = []
    failures: list[dict[str, object]] = []
    results: dict[int, TileResult | str] = {}
    with session(config.run.address), Progress(STEP, len(tasks), "slide") as progress:
        for position, result in map_tasks(_tile, tasks, deadline_s=config.run.deadline_s, on_crash=_crashed):
            results[position] = result
            progress.add(1, failed=isinstance(result, str))
    for position, row in enumerate(rows):
        result = results[position]
        if isinstance(result, str):
            failures.append({"slide": row.slide, "stage": STEP, "reason": result})
        else:
            slides.append(result)
    columns = [{**one, "content": contents[one["slide"]]} for one in slides]
    (draft.path / "slides.parquet").write_table(tables.of_rows(columns, tables.SLIDES))
    rows_written = {"slides": len(slides), "tiles": sum(one["tiles"] for one in slides)}
    return draft.finish(rows_written, failures, _notes(config, slides))


def _notes(config: TileConfig, slides: list[TileResult]) -> dict[str, object]:
    """Return the manifest's notes; their keys are a stored format."""
    return {
        "side": config.tile_um,
        "pixels": config.tile_px,
        "patients": {one["slide"]: one["patient"] for one in slides},
        "quality": {one["slide"]: one["quality"] for one in slides},
        "readers": {one["slide"]: one["reader"] for one in slides},
    }


def _task(
    row: SlideRow, config: TileConfig, target: StoragePath, *, spots: Artifact | None, mask: StoragePath | None
) -> _TileTask:
    if spots is None:
        return _TileTask(row, config, target, None, None, mask)
    known = spots.manifest.notes["sections"].get(row.section)
    section = spots.path / "sections" / f"{row.section}.h5ad" if row.layout is not None else None
    return _TileTask(row, config, target, section, float(known["mpp"]) if known else None, mask)


def _content(path: StoragePath) -> str:
    """Return the id of a slide's content; `unreadable` for a slide whose task fails later."""
    try:
        return content_id(path)
    except StorageError:
        return "unreadable"


def _crashed(task: _TileTask) -> str:
    return (
        f"slide {task.row.slide!r} ({task.row.path}) crashed every worker that opened it, or exceeded the "
        f"{task.config.run.deadline_s:g} s deadline; skipped. Open it in a viewer, or rerun with "
        "--set run.retry_failed=true"
    )


def _tile(task: _TileTask) -> TileResult | str:
    """Tile one slide; return its row and its notes, or the reason of a failure."""
    row, config = task.row, task.config
    try:
        if task.section is not None and not task.section.exists():
            msg = f"the measured section of slide {row.slide!r} is missing in the spots; see their failures table"
            raise SectionError(msg)
        with open_slide(
            row.slide, row.path, given_mpp=row.mpp, derived_mpp=task.derived_mpp, cache=config.run.node_cache()
        ) as slide:
            thumbnail = slide.thumbnail(THUMBNAIL_PX)
            tissue = slide_mask(slide, thumbnail, task.mask)
            boxes, spots = _boxes(slide, tissue, task)
            quality = slide_quality(tissue, sharpness(slide, boxes, config.focus_tiles))
            write_images(task.target, slide, thumbnail, tissue=tissue, boxes=boxes)
            (task.target / "tiles" / f"{row.slide}.parquet").write_table(_tiles_table(row.slide, boxes, spots))
            return {
                "slide": row.slide,
                "path": row.path.uri,
                "patient": row.patient,
                "mpp": float(slide.mpp),
                "mpp_from": slide.mpp_from,
                "width": slide.width,
                "height": slide.height,
                "native": config.geometry(slide.mpp).native,
                "tissue": tissue.share,
                "tiles": len(boxes),
                "quality": quality,
                "reader": slide.reader,
            }
    except RaystpError as error:
        return str(error)


def _boxes(slide: Slide, tissue: TissueMask, task: _TileTask) -> tuple[Float64[np.ndarray, "tile 3"], list[str] | None]:
    """Return the tile boxes around the slide's spots and the spots' ids, or a grid over its tissue."""
    config, geometry = task.config, task.config.geometry(slide.mpp)
    if task.section is None:
        stride = None if config.stride is None else Microns(config.stride)
        return tissue_grid(slide, tissue, geometry, stride=stride, min_tissue=config.min_tissue), None
    section = read_section(task.section)
    centres = np.asarray(section.obsm["spatial"], np.float64)
    names = [str(name) for name in section.obs_names]
    check_spots_inside(slide.name, names, centres, width=slide.width, height=slide.height)
    return boxes_around(centres, geometry), names


def _tiles_table(slide: str, boxes: Float64[np.ndarray, "tile 3"], spots: list[str] | None) -> pa.Table:
    count = len(boxes)
    names: list[str | None] = [*spots] if spots is not None else [None] * count
    columns = [[slide] * count, np.arange(count), boxes[:, 0], boxes[:, 1], boxes[:, 2], names]
    return tables.of_columns(columns, tables.TILES)
