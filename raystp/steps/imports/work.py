"""Import one slide, in a Ray worker: read the tool's files, check them, and write tiles and vectors."""

import json
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa

from raystp import tables
from raystp.errors import FormatError, SectionError, failure_as_reason
from raystp.interop.features.arrays import check_inside
from raystp.interop.features.tiles import TileVectors
from raystp.interop.registry import feature_format
from raystp.slides.coordinates import Area
from raystp.slides.open import Slide, open_slide
from raystp.slides.tissue.area import scanned_area
from raystp.slides.tissue.geojson import to_geojson
from raystp.steps.imports.config import ImportConfig
from raystp.steps.imports.joins import around_spots, of_spots, scale_notes
from raystp.steps.imports.pictures import as_polygons, picture
from raystp.steps.imports.sources import Source, content_of, image_of
from raystp.storage import StoragePath
from raystp.units import is_plausible

UNIT_TILES = 16_384
"""Rows of a file of vectors."""


@dataclass(frozen=True)
class ImportTask:
    """One slide to import, and the folders of its two artifacts."""

    source: Source
    config: ImportConfig
    tiles: StoragePath
    embeddings: StoragePath


class ImportedSlide(TypedDict):
    """What the commit record of a slide has: its row of the slides table, and what the manifests record about it."""

    slide: str
    path: str
    patient: str
    content: str
    mpp: float
    mpp_from: str
    width: int
    height: int
    native: bool
    bounds: list[int] | None
    """The scanned part (x, y, width, height) in level-0 px, where QuPath's coordinates start; None for all of it."""
    tissue: float
    tiles: int
    side_um: float
    tile_px: int
    dim: int
    precision: str
    encoder: str
    """The tool's own name of the encoder, where the slide's files have it."""
    units: list[str]
    source: str
    """Id of the content of its files."""
    notes: list[str]


def commit_record(task: ImportTask) -> StoragePath:
    """Return the path of a slide's commit record."""
    return task.embeddings / "commits" / f"{task.source.slide}.json"


@failure_as_reason
def import_slide(task: ImportTask) -> ImportedSlide:
    """Import a slide and commit it, or return what was committed before; a failure is returned as its reason.

    The record lies beside the vectors: it does not count where the folder of tiles was removed since.
    """
    record = commit_record(task)
    if record.exists() and _tiles_file(task).exists():
        committed: ImportedSlide = json.loads(record.read_bytes())
        if committed["source"] == task.source.content:
            return committed
    imported = _import(task)
    _check_unchanged(task.source)
    record.write_bytes(json.dumps(imported).encode())
    return imported


def _tiles_file(task: ImportTask) -> StoragePath:
    return task.tiles / "tiles" / f"{task.source.slide}.parquet"


def _check_unchanged(source: Source) -> None:
    """Raise FormatError where a file is no longer the one that the fingerprint covers."""
    if content_of(source.files) != source.content or image_of(source.row) != source.image:
        msg = f"the files of slide {source.slide!r} changed while they were imported: run the import again"
        raise FormatError(msg)


def _import(task: ImportTask) -> ImportedSlide:
    source, config = task.source, task.config
    slide = _open(source, config)
    try:
        return _import_open(task, slide)
    finally:
        if slide is not None:
            slide.close()


def _import_open(task: ImportTask, slide: Slide | None) -> ImportedSlide:
    source, config, row = task.source, task.config, task.source.row
    given = None if row is None else row.mpp
    known = given if slide is None else float(slide.mpp)
    tiles = feature_format(config.format).read(source.files, config.choice, known)
    mpp = tiles.mpp if known is None else known
    if mpp is None or not is_plausible(mpp):
        msg = f"slide {source.slide!r} has no um/px ({mpp}): give it in the column mpp of the slide table"
        raise FormatError(msg)
    size, notes = _size(tiles, slide)
    notes = [*notes, *scale_notes(slide, mpp, source.section_mpp, source.slide)]
    check_inside(tiles.boxes, size, str(source.files.files.get("vectors", source.slide)))
    names = list(tiles.spots) if tiles.spots is not None else None
    if source.section_failure is not None:
        msg = f"the measured section of slide {source.slide!r} is missing in the spots: {source.section_failure}"
        raise SectionError(msg)
    if source.section is not None:
        named = tiles.spots is not None and None not in tiles.spots
        join = of_spots(tiles, source.section) if named else around_spots(tiles, source.section, config.spot_px)
        tiles, names, said = join
        notes = [*notes, *said]
    units = _write(task, tiles, names)
    (task.tiles / "thumbnails" / f"{source.slide}.png").write_bytes(picture(slide, tiles.boxes, size))
    area = Area(0, 0, *size) if slide is None else scanned_area(slide)
    share = _write_tissue(task, tiles, size, area)
    side = float(np.median(tiles.boxes[:, 2])) if len(tiles.boxes) else 0.0
    return {
        "slide": source.slide,
        "path": "" if row is None else row.path.uri,
        "patient": "" if row is None else row.patient,
        "content": source.image,
        "mpp": mpp,
        "mpp_from": slide.mpp_from if slide is not None else "table" if given is not None else "slide",
        "width": size[0],
        "height": size[1],
        "native": bool(tiles.tile_px) and side == tiles.tile_px,
        "bounds": None if slide is None or slide.bounds is None else list(slide.bounds),
        "tissue": share,
        "tiles": len(tiles.boxes),
        "side_um": side * mpp,
        "tile_px": tiles.tile_px,
        "dim": tiles.vectors.shape[1],
        "precision": str(tiles.vectors.dtype),
        "encoder": tiles.encoder or "",
        "units": units,
        "source": source.content,
        "notes": [*tiles.notes, *notes],
    }


def _open(source: Source, config: ImportConfig) -> Slide | None:
    """Open the slide of the table's row; None where there is no such file, and the table has um/px."""
    row = source.row
    if row is None or not row.path.exists():
        return None
    cache = config.run.node_cache()
    return open_slide(source.slide, row.path, given_mpp=row.mpp, derived_mpp=source.section_mpp, cache=cache)


def _size(tiles: TileVectors, slide: Slide | None) -> tuple[tuple[int, int], list[str]]:
    """Return width and height of the slide in level-0 px; without a slide and its size, what the tiles span."""
    if slide is not None:
        return (slide.width, slide.height), []
    if tiles.size is not None:
        return tiles.size, []
    ends = tiles.boxes[:, :2] + tiles.boxes[:, 2:]
    spanned = np.ceil(ends.max(axis=0)) if len(ends) else np.ones(2)
    note = "the slide's size is not known: that of the part with tiles is noted"
    return (max(1, int(spanned[0])), max(1, int(spanned[1]))), [note]


def _write(task: ImportTask, tiles: TileVectors, spots: list[str | None] | None) -> list[str]:
    """Write the slide's table of tiles, and its vectors in units; return the names of the units."""
    slide, count = task.source.slide, len(tiles.boxes)
    columns = [[slide] * count, np.arange(count), *tiles.boxes.T, spots if spots is not None else [None] * count]
    table = tables.of_columns(columns, tables.TILES)
    _tiles_file(task).write_table(table)
    about = {"attributes": dict(tiles.attributes), "image": tiles.image, "encoder": tiles.encoder}
    (task.tiles / "source" / f"{slide}.json").write_bytes(json.dumps(about, sort_keys=True).encode())
    precision, units = str(tiles.vectors.dtype), []
    schema = tables.embeddings(tiles.vectors.shape[1], precision=precision)
    for number, first in enumerate(range(0, count, UNIT_TILES)):
        part = table.slice(first, UNIT_TILES)
        vectors = tables.vectors(tiles.vectors[first : first + UNIT_TILES], precision)
        unit = f"{slide}.{number:05d}"
        written = pa.Table.from_arrays([*(one.combine_chunks() for one in part.columns), vectors], schema=schema)
        (task.embeddings / "embeddings" / slide / f"{unit}.parquet").write_table(written)
        units.append(unit)
    return units


def _write_tissue(task: ImportTask, tiles: TileVectors, size: tuple[int, int], area: Area) -> float:
    """Write the tool's tissue as a mask in the frame of the scanned area, as `tile` does; return its share of it."""
    if tiles.tissue is None:
        return 0.0
    regions, slide = as_polygons(tiles.tissue), task.source.slide
    content = to_geojson(regions, slide=slide, width=size[0], height=size[1], area=area)
    (task.tiles / "masks" / f"{slide}.geojson").write_bytes(content)
    return min(1.0, float(regions.area) / (area.width * area.height))
