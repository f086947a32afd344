"""tile: slides [+ spots, masks] -> a tiles table, a tissue mask and a thumbnail per slide.

The mask is found on a thumbnail, or it is the user's own. Either way it is left as GeoJSON in level-0 px, which QuPath
opens and which, given back through `masks`, gives the same tiles.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from raystp import tables
from raystp.artifacts import Artifact, content_id, create_or_open, digest_of, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.config import Location, StepConfig
from raystp.errors import RaystpError, SectionError, StorageError
from raystp.expression.schema import read_section
from raystp.slides.open import Slide, open_slide
from raystp.slides.places import TileGeometry, check_inside, tiles_around
from raystp.slides.tissue.focus import sharpness
from raystp.slides.tissue.masks import TissueMask, digest, look, own_masks, quality, save, tissue_grid
from raystp.steps.run_config import SlideRun
from raystp.steps.slide_table import SlideRow, read_slide_table
from raystp.storage import StoragePath
from raystp.units import Microns, TilePixels

STEP = "tile"
THUMBNAIL_PX = 1024


class TileRun(SlideRun):
    """Where and how wide to tile."""

    deadline_s: float = Field(default=1800.0, gt=0)
    """Seconds within which a slide must be tiled. A process in which a decoder hangs longer is ended; after three the
    slide is left out."""


class TileConfig(StepConfig[TileRun]):
    """Which squares of tissue to look at: around measured spots, and over the tissue of slides without any."""

    where: ClassVar[frozenset[str]] = frozenset({"slides", "root", "spots", "masks"})

    slides: Annotated[str, Location("demo")]
    """The slide table, a CSV. `demo/<name>`: a demo's own."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that relative paths of the table start from; by default the table's own folder."""

    spots: Annotated[str | None, Location("spots")] = None
    """The measured spots, `spots/<name>`; without them every slide is tiled as a grid over its tissue."""

    masks: Annotated[str | None, Location()] = None
    """A folder of tissue masks of your own, `<slide>.geojson` in level-0 px; a slide without a file there is masked as
    without this folder. `masks/` of an earlier tile artifact is such a folder, to be copied and edited in QuPath."""

    side: float = Field(default=112.0, gt=0)
    """Side of a tile in micrometres of tissue."""

    pixels: int = Field(default=224, ge=16, le=4096)
    """Side of a tile in pixels, as an encoder sees it; side / pixels is the um/px at which tissue is read."""

    stride: float | None = Field(default=None, gt=0)
    """Step of the grid in micrometres; by default the tile's side, so that tiles neither overlap nor leave gaps."""

    min_tissue: float = Field(default=0.5, ge=0, le=1)
    """Least share of tissue under a tile of the grid."""

    focus_places: int = Field(default=5, ge=0, le=100)
    """Tiles whose sharpness is measured, a note on the slide's quality; 0 measures none."""

    run: TileRun = Field(default_factory=TileRun)


@dataclass(frozen=True)
class _TileSlide:
    row: SlideRow
    config: TileConfig
    target: StoragePath
    section: StoragePath | None
    derived_mpp: float | None
    mask: StoragePath | None = None


CONFIG = TileConfig


def run(config: TileConfig) -> Artifact:
    """Tile every slide of the table; a slide that fails is a row in the failures table."""
    rows = read_slide_table(config.slides, config.root, config.run.store)
    spots = resolve(config.run.store, config.spots, "spots") if config.spots else None
    contents = {row.slide: _content(row.path) for row in rows}
    table = digest_of([[row.slide, row.patient, row.mpp, contents[row.slide]] for row in rows])
    masks = own_masks(config.masks, [row.slide for row in rows])
    drawn = {"masks": digest_of({slide: digest(mask) for slide, mask in masks.items()})} if masks else {}
    draft = create_or_open(config, STEP, {"slides": table, **drawn, **({"spots": spots} if spots else {})})
    if isinstance(draft, Artifact):
        return draft
    slides: dict[str, dict[str, Any]] = {}
    failures: list[dict[str, object]] = []
    work = [_work(row, config, draft.path, spots) for row in rows]
    work = [replace(one, mask=masks.get(one.row.slide)) for one in work]
    with session(config.run.address), Progress(STEP, len(work), "slide") as progress:
        for position, answer in map_tasks(_tile, work, deadline_s=config.run.deadline_s, on_crash=_lost):
            row = rows[position]
            if isinstance(answer, str):
                failures.append({"slide": row.slide, "stage": STEP, "reason": answer})
            else:
                slides[row.slide] = {"content": contents[row.slide], **answer}
            progress.add(1, failed=isinstance(answer, str))
    ordered = [slides[row.slide] for row in rows if row.slide in slides]
    notes = {
        "side": config.side,
        "pixels": config.pixels,
        "patients": {one["slide"]: one["patient"] for one in ordered},
        "quality": {one["slide"]: one.pop("quality") for one in ordered},
        "readers": {one["slide"]: one.pop("reader") for one in ordered},
    }
    (draft.path / "slides.parquet").write_table(tables.of_rows(ordered, tables.SLIDES))
    count = sum(int(one["tiles"]) for one in ordered)
    return draft.finish({"slides": len(ordered), "tiles": count}, failures, notes)


def _work(row: SlideRow, config: TileConfig, target: StoragePath, spots: Artifact | None) -> _TileSlide:
    sections = spots.manifest.notes["sections"] if spots else {}
    measured = row.layout is not None and spots is not None
    known = sections.get(row.section)
    place = spots.path / "sections" / f"{row.section}.h5ad" if measured and spots else None
    return _TileSlide(row, config, target, place, float(known["mpp"]) if known else None)


def _content(place: StoragePath) -> str:
    """Return the id of a slide's content; one that cannot be read has none: its task says so, and the others go on."""
    try:
        return content_id(place)
    except StorageError:
        return "unreadable"


def _lost(work: _TileSlide) -> str:
    return (
        f"slide {work.row.slide!r} ({work.row.path}) has ended every process that opened it, or held it for longer "
        f"than {work.config.run.deadline_s:g} s: it is left out; open it in a viewer, or try again with "
        "--set run.retry_failed=true"
    )


def _tile(work: _TileSlide) -> dict[str, Any] | str:
    """Tile one slide; return its row of the slides table and its quality, or the sentence of a failure."""
    row = work.row
    try:
        if work.section is not None and not work.section.exists():
            msg = f"the measured section of slide '{row.slide}' is not among the spots: see their failures table"
            raise SectionError(msg)
        with open_slide(
            row.slide, row.path, given_mpp=row.mpp, derived_mpp=work.derived_mpp, cache=work.config.run.node_cache()
        ) as slide:
            thumbnail = slide.thumbnail(THUMBNAIL_PX)
            seen = look(slide, thumbnail, work.mask)
            squares, spots = _squares(slide, seen, work)
            sharp = sharpness(slide, squares, work.config.focus_places)
            save(work.target, slide, thumbnail, seen=seen, squares=squares)
            (work.target / "tiles" / f"{row.slide}.parquet").write_table(_table(row.slide, squares, spots))
            found = {"tiles": len(squares), "quality": quality(seen, sharp), "reader": slide.reader}
            return _slide_row(work, slide, seen.share) | found

    except RaystpError as error:
        return str(error)


def _squares(
    slide: Slide, seen: TissueMask, work: _TileSlide
) -> tuple[Float64[np.ndarray, "tile 3"], list[str] | None]:
    """Return the squares around the slide's spots and their ids, or a grid over its tissue."""
    framing = _framing(work.config, slide)
    if work.section is None:
        stride = None if work.config.stride is None else Microns(work.config.stride)
        return tissue_grid(slide, seen, framing, stride=stride, min_tissue=work.config.min_tissue), None
    section = read_section(work.section)
    centres = np.asarray(section.obsm["spatial"], np.float64)
    names = [str(name) for name in section.obs_names]
    check_inside(slide.name, names, centres, width=slide.width, height=slide.height)
    return tiles_around(centres, framing), names


def _framing(config: TileConfig, slide: Slide) -> TileGeometry:
    return TileGeometry(Microns(config.side), TilePixels(config.pixels), slide.mpp)


def _table(slide: str, squares: Float64[np.ndarray, "tile 3"], spots: list[str] | None) -> Any:
    count = len(squares)
    names: list[str | None] = [*spots] if spots is not None else [None] * count
    columns = [[slide] * count, np.arange(count), squares[:, 0], squares[:, 1], squares[:, 2], names]
    return tables.of_columns(columns, tables.TILES)


def _slide_row(work: _TileSlide, slide: Slide, tissue: float) -> dict[str, Any]:
    return {
        "slide": work.row.slide,
        "path": work.row.path.uri,
        "patient": work.row.patient,
        "mpp": float(slide.mpp),
        "mpp_from": slide.mpp_from,
        "width": slide.width,
        "height": slide.height,
        "native": _framing(work.config, slide).native,
        "tissue": tissue,
    }
