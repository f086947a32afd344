"""tile: slides [+ spots, masks] -> a tiles table, a tissue mask and a thumbnail per slide.

A slide whose path is a file of image patches has a tile per patch, and no mask.

The mask is detected on an image of the slide, or given by the user. It is written as GeoJSON, as QuPath has it. QuPath
opens that file, and the same file given back through `masks` produces the same tiles.
"""

import logging

from raystp import tables
from raystp.artifacts import Artifact, create_or_open, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.digests import content_id, digest_of
from raystp.errors import StorageError
from raystp.slides.inputs.copies import find_copies
from raystp.slides.table import SlideRow, read_slide_table
from raystp.slides.tissue.masks import mask_digest, user_masks
from raystp.steps.tile.checks import SectionScale
from raystp.steps.tile.config import TileConfig
from raystp.steps.tile.work import TileResult, TileTask, tile_slide
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "tile"

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
    tasks = _tasks(rows, config, draft.path, spots=spots, masks=masks)
    slides: list[TileResult] = []
    failures: list[dict[str, object]] = []
    results: dict[int, TileResult | str] = {}
    with session(config.run.address), Progress(STEP, len(tasks), "slide") as progress:
        for position, result in map_tasks(tile_slide, tasks, deadline_s=config.run.deadline_s, on_crash=_crashed):
            results[position] = result
            progress.add(1, failed=isinstance(result, str))
    for position, row in enumerate(rows):
        result = results[position]
        if isinstance(result, str):
            failures.append({"slide": row.slide, "stage": STEP, "reason": result})
        else:
            slides.append(result)
    copies = _add_copies(slides, contents)
    for one in slides:
        for warning in one["warnings"]:
            logger.warning(f"  {one['slide']}: {warning}", extra={"slide": one["slide"]})
    columns = [{**one, "content": contents[one["slide"]]} for one in slides]
    (draft.path / "slides.parquet").write_table(tables.of_rows(columns, tables.SLIDES))
    rows_written = {"slides": len(slides), "tiles": sum(one["tiles"] for one in slides)}
    return draft.finish(rows_written, failures, _notes(config, slides, len(failures)) | copies)


def _add_copies(slides: list[TileResult], contents: dict[str, str]) -> dict[str, object]:
    """Add a warning to each slide whose content another patient's slide has; return notes on those of one patient."""
    by_name = {one["slide"]: one for one in slides}
    within = []
    patients = {name: one["patient"] for name, one in by_name.items()}
    for found in find_copies({name: contents[name] for name in by_name}, patients):
        if found.is_leak:
            by_name[found.slides[0]]["warnings"].append(found.sentence())
        else:
            within.append(found.sentence())
            logger.info(f"  {found.sentence()}")
    return {"duplicates": within} if within else {}


def _notes(config: TileConfig, slides: list[TileResult], failed: int) -> dict[str, object]:
    """Return the manifest's notes; their keys are a stored format."""
    notes: dict[str, object] = {
        "side": config.scales[0],
        **({"scales": list(config.scales)} if len(config.scales) > 1 else {}),
        "pixels": config.tile_px,
        "patients": {one["slide"]: one["patient"] for one in slides},
        "quality": {one["slide"]: one["quality"] for one in slides},
        "readers": {one["slide"]: one["reader"] for one in slides},
    }
    bounds = {one["slide"]: one["bounds"] for one in slides if one["bounds"]}
    outside = {one["slide"]: one["spots_outside"] for one in slides if one["spots_outside"]}
    unpatched = {one["slide"]: one["spots_without_patch"] for one in slides if one["spots_without_patch"]}
    warnings = {one["slide"]: one["warnings"] for one in slides if one["warnings"]}
    if not slides:
        notes["summary"] = (
            f"none of the {failed} slides has a tile: no later step can use this artifact; see the reasons"
        )
    notes |= {"bounds": bounds} if bounds else {}
    notes |= {"spots_without_patch": unpatched} if unpatched else {}
    return notes | ({"spots_outside": outside} if outside else {}) | ({"warnings": warnings} if warnings else {})


def _tasks(
    rows: list[SlideRow],
    config: TileConfig,
    target: StoragePath,
    *,
    spots: Artifact | None,
    masks: dict[str, StoragePath],
) -> list[TileTask]:
    if spots is None:
        return [TileTask(row, config, target, mask=masks.get(row.slide)) for row in rows]
    sections = spots.manifest.notes["sections"]
    failures = {str(one["slide"]): str(one["reason"]) for one in spots.failures().to_pylist()}
    tasks = []
    for row in rows:
        known = sections.get(row.section)
        tasks.append(
            TileTask(
                row,
                config,
                target,
                section=spots.path / "sections" / f"{row.section}.h5ad" if row.layout is not None else None,
                scale=SectionScale(float(known["mpp"]), known["notes"].get("mpp_by_pitch")) if known else None,
                mask=masks.get(row.slide),
                section_failure=failures.get(row.slide),
            )
        )
    return tasks


def _content(path: StoragePath) -> str:
    """Return the id of a slide's content; `unreadable` for a slide whose task fails later."""
    try:
        return content_id(path)
    except StorageError:
        return "unreadable"


def _crashed(task: TileTask) -> str:
    return (
        f"slide {task.row.slide!r} ({task.row.path}) crashed every worker that opened it, or exceeded the "
        f"{task.config.run.deadline_s:g} s deadline; skipped. Open it in a viewer, or rerun with "
        "--set run.retry_failed=true"
    )
