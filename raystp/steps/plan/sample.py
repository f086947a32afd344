"""Choose a sample of slides, and measure what tiling and reading each of them takes.

Each slide is tiled by the code of the steps `spots` and `tile`, into a temporary folder. The bytes of its tiles follow
from its header; they are not read.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from raystp.digests import ID_EDGE
from raystp.errors import failure_reason
from raystp.slides.open import open_header
from raystp.slides.read_cost import read_cost
from raystp.slides.table import SlideRow
from raystp.slides.tissue.overview import THUMBNAIL_PX
from raystp.steps.spots.config import SpotsConfig
from raystp.steps.spots.step import SpotsTask, read_one
from raystp.steps.tile.checks import SectionScale
from raystp.steps.tile.config import TileConfig
from raystp.steps.tile.work import TileTask, tile_slide
from raystp.storage import StoragePath
from raystp.units import TilePixels

FEWEST = 8
"""Slides of each kind that are sampled at least: an interval needs some."""

REQUESTS_OF_ID = 3
"""To know a slide's content: its size, its start and its end (`digests.file_id`)."""


@dataclass(frozen=True)
class SlideCost:
    """What one slide of the sample takes."""

    row: SlideRow
    tiles: int = 0
    """Places: with several sides, each has a tile of each side."""
    read_bytes: int = 0
    """Of its tiles, each stored tile once."""
    opening_bytes: int = 0
    """To open it, and for the id of its content."""
    requests: int = 0
    """To open it and to read its tiles from an object store; 0 for a file of this machine."""
    overview_bytes: int = 0
    """To find its tissue."""
    written_bytes: int = 0
    """By `tile`."""
    tile_s: float = 0.0
    """CPU-seconds."""
    mpp: float = 0.0
    spots: int = 0
    """Of its measured section."""
    genes: int = 0
    """Of its measured section."""
    section_bytes: int = 0
    """Of its section, as `spots` writes it."""
    thumbnail_bytes: int = 0
    """Of its thumbnail as pixels, which each h5ad of a prediction has."""
    boxes: Float64[np.ndarray, "box 3"] | None = None
    """Of its tiles; with several sides, one after the other around each place."""
    problem: str = ""


def kind_of(row: SlideRow) -> str:
    """Return the class of a slide: its suffix, and whether it has measured spots."""
    suffix = Path(row.path.name).suffix.lower() or "no suffix"
    return f"{suffix}, measured" if row.layout else suffix


def choose(rows: Sequence[SlideRow], count: int, seed: int) -> list[SlideRow]:
    """Return a sample, by kind in proportion to their numbers, at least `FEWEST` of each; all where there are few."""
    if len(rows) <= count:
        return list(rows)
    groups: dict[str, list[SlideRow]] = defaultdict(list)
    for row in rows:
        groups[kind_of(row)].append(row)
    rng = np.random.default_rng(seed)
    chosen = []
    for kind in sorted(groups):
        of = groups[kind]
        size = min(len(of), max(FEWEST, round(count * len(of) / len(rows))))
        chosen += [of[number] for number in sorted(rng.choice(len(of), size, replace=False).tolist())]
    return chosen


def measure(rows: Sequence[SlideRow], tile: TileConfig, spots: SpotsConfig | None, *, threads: int) -> list[SlideCost]:
    """Return what each slide takes, in the order given; one that fails has its problem and no tiles."""

    def one(row: SlideRow) -> SlideCost:
        try:
            with tempfile.TemporaryDirectory(prefix="raystp-plan-") as folder:
                return _measure(row, tile, spots if row.layout else None, StoragePath.of(folder))
        except Exception as error:  # noqa: BLE001 -- one slide's fault, of whatever kind, does not end the plan
            return SlideCost(row, problem=failure_reason(error))

    with ThreadPoolExecutor(threads, thread_name_prefix="raystp-plan") as pool:
        return list(pool.map(one, rows))


def _measure(row: SlideRow, tile: TileConfig, spots: SpotsConfig | None, folder: StoragePath) -> SlideCost:
    section, scale, counted = None, None, (0, 0, 0)
    if spots is not None:
        section = folder / "sections" / f"{row.section}.h5ad"
        found = read_one(SpotsTask(row, section, spots.counts_layer, spots.section_options()))
        if isinstance(found, str):
            return SlideCost(row, problem=found)
        counted = found.entry["spots"], found.entry["genes"], section.size()
        by_pitch: Any = found.entry["notes"].get("mpp_by_pitch")
        scale = SectionScale(float(found.entry["mpp"]), by_pitch)
    start = time.thread_time()
    if not row.path.is_local and _must_be_downloaded(row):
        return SlideCost(row, problem=f"slide {row.slide!r} ({row.path}) is downloaded to be read: no tiles are known")
    target = folder / "tile"
    result = tile_slide(TileTask(row, tile, target, section=section, scale=scale))
    done = time.thread_time()
    if isinstance(result, str):
        return SlideCost(row, problem=result)
    table = (target / ("tiles" if len(tile.scales) == 1 else "scales") / f"{row.slide}.parquet").read_table(
        ["x", "y", "side"]
    )
    boxes = np.stack([table[name].to_numpy() for name in ("x", "y", "side")], axis=1)
    size = row.path.size()
    cost = read_cost(row.slide, row.path, boxes, TilePixels(tile.tile_px), mpp=result["mpp"], file_bytes=size)
    written = sum((target / name).size() for name in target.files())
    return SlideCost(
        row,
        tiles=result["tiles"],
        read_bytes=cost.bytes,
        opening_bytes=cost.opening_bytes + 2 * min(size, ID_EDGE),
        requests=0 if row.path.is_local else cost.requests + cost.opening_requests + REQUESTS_OF_ID,
        overview_bytes=cost.overview_bytes,
        written_bytes=written,
        tile_s=done - start,
        mpp=result["mpp"],
        spots=counted[0],
        genes=counted[1],
        section_bytes=counted[2],
        thumbnail_bytes=_thumbnail_bytes(result["width"], result["height"]),
        boxes=boxes,
    )


def _thumbnail_bytes(width: int, height: int) -> int:
    share = min(1.0, THUMBNAIL_PX / max(width, height))
    return 3 * round(width * share) * round(height * share)


def _must_be_downloaded(row: SlideRow) -> bool:
    opened = open_header(row.slide, row.path, given_mpp=row.mpp or 1.0)
    if opened is None:
        return True
    opened.close()
    return False
