"""import: a folder of another tool [+ slides, spots] -> tiles and embeddings, as `tile` and `embed` write them.

A data set of slides with spots becomes a slide table instead (`tables`).

Files are copied into artifacts, never used in place. Each slide is one task; its commit record is written last, so an
interrupted import continues. Nothing is unpickled.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.encoders.card import MPP_TOLERANCE
from raystp.errors import ConfigError
from raystp.interop.features.encoders import check_card, imported_name, match_card
from raystp.interop.registry import TABLES, FeatureFormat, feature_format
from raystp.steps.encoder_source import EncoderSource, source_of
from raystp.steps.imports.config import ImportConfig
from raystp.steps.imports.sources import ImportSources, find_sources
from raystp.steps.imports.tables import write_tables
from raystp.steps.imports.verify import SAME, VerifyTask, verify_slide
from raystp.steps.imports.work import ImportedSlide, ImportTask, import_slide
from raystp.steps.input_config import EncoderConfig

logger = logging.getLogger("raystp")

STEP = "import"
CONFIG = ImportConfig

TRIED_SLIDES = 5
"""Slides that are opened, one after the other, until tiles of one can be embedded again."""

WITHOUT_WEIGHTS = EncoderConfig().name
"""The encoder whose filters are made from a seed."""


@dataclass(frozen=True)
class _Encoder:
    """The encoder that the embeddings name."""

    name: str
    identity: str
    cosines: tuple[float, ...] = ()
    """Of tiles that were embedded again."""


def run(config: ImportConfig) -> Artifact | str:
    """Import every slide, except what is committed already; a slide that fails is a row of the failures table.

    Return the embeddings; of a data set, a text on what was written. Raises FormatError or ConfigError for a folder
    that cannot be imported.
    """
    if config.format in TABLES:
        return write_tables(config)
    form = feature_format(config.format)
    sources = find_sources(config, form)
    for note in sources.notes:
        logger.warning(f"  {note}")
    given: dict[str, Artifact | str] = {"source": sources.digest}
    given |= {"spots": sources.spots} if sources.spots is not None else {}
    tiles = create_or_open(config, "tile", given)
    folder = tiles.manifest.folder if isinstance(tiles, Artifact) else tiles.folder
    claimed = _claimed(config)
    weights = {"weights": claimed.identity} if claimed is not None else {}
    draft = create_or_open(config, "embed", {"tiles": folder, **weights})
    if isinstance(draft, Artifact) and isinstance(tiles, Artifact):
        return draft
    with session(config.run.address):
        encoder = _encoder(config, sources, claimed)
        tasks = [ImportTask(one, config, tiles.path, draft.path) for one in sources.slides]
        slides, failures = _import(tasks, config.run.deadline_s)
    kept, odd = _of_one_dim(slides, config, sources.encoder)
    failures += odd
    if isinstance(tiles, Artifact):
        kept, lacking = _with_tiles(kept, tiles)
        failures += lacking
    for one in kept:
        for note in one["notes"]:
            logger.info(f"  {one['slide']}: {note}", extra={"slide": one["slide"]})
    sides = _check_sides(kept, config)
    if isinstance(tiles, ArtifactWriter):
        _finish_tiles(tiles, kept, failures, sides=sides, form=form)
    if isinstance(draft, Artifact):
        return draft
    return _finish_embeddings(draft, kept, failures, encoder=encoder, tiles=folder, sources=sources)


def _import(tasks: Sequence[ImportTask], deadline_s: float) -> tuple[list[ImportedSlide], list[dict[str, object]]]:
    """Run the tasks; return the slides in their order, and the rows of the failures table."""
    results: dict[int, ImportedSlide | str] = {}
    with Progress(STEP, len(tasks), "slide") as progress:
        for position, result in map_tasks(import_slide, tasks, deadline_s=deadline_s, on_crash=_crashed):
            results[position] = result
            progress.add(1, failed=isinstance(result, str))
    slides: list[ImportedSlide] = []
    failures: list[dict[str, object]] = []
    for position, task in enumerate(tasks):
        result = results[position]
        if isinstance(result, str):
            failures.append({"slide": task.source.slide, "stage": STEP, "reason": result})
        else:
            slides.append(result)
    return slides, failures


def _crashed(task: ImportTask) -> str:
    return (
        f"the files of slide {task.source.slide!r} crashed every worker that opened them, or exceeded the "
        f"{task.config.run.deadline_s:g} s deadline; skipped. Rerun with --set run.retry_failed=true"
    )


def _claimed(config: ImportConfig) -> EncoderSource | None:
    """Return raystp's encoder whose weights are given, or that needs none; raises EncoderError for wrong weights."""
    if config.encoder is None or (config.weights is None and config.encoder != WITHOUT_WEIGHTS):
        return None
    return source_of(EncoderConfig(name=config.encoder, weights=config.weights), config.run.store)


def _encoder(config: ImportConfig, sources: ImportSources, claimed: EncoderSource | None) -> _Encoder:
    """Return the encoder of the vectors: a name of its own, or the one that is claimed; verified where it can be."""
    own = imported_name(config.format, sources.encoder)
    if config.encoder is None:
        return _Encoder(own, own)
    if claimed is None or config.slides is None:
        logger.warning(f"  {config.encoder}: taken on your word; give `weights` and `slides` to compare some tiles")
        return _Encoder(config.encoder, own)
    return _verified(config, sources, claimed, own)


def _verified(config: ImportConfig, sources: ImportSources, claimed: EncoderSource, own: str) -> _Encoder:
    """Embed some tiles of the first slide that can be read again, and say what was found."""
    name = str(config.encoder)
    readable = [one for one in sources.slides if one.row is not None and one.row.path.exists()][:TRIED_SLIDES]
    tasks, found = [VerifyTask(one, config, claimed) for one in readable], dict[str, list[float]]()
    for task in tasks:
        ((_, result),) = map_tasks(verify_slide, [task], deadline_s=config.run.deadline_s)
        if result and not isinstance(result, str):
            found[task.source.slide] = result
            break
        logger.warning(f"  {name}: no tile of {task.source.slide} was embedded again: {result or 'it has none'}")
    if not found:
        logger.warning(f"  {name}: no slide could be read, so it is taken on your word")
        return _Encoder(name, own)
    ((slide, cosines),) = found.items()
    said = f"  {name}: {len(cosines)} tiles of {slide} embedded again, cosines {', '.join(f'{c:.4f}' for c in cosines)}"
    if min(cosines) >= SAME:
        logger.info(f"{said}: the same")
        return _Encoder(name, claimed.identity, tuple(cosines))
    logger.warning(
        f"{said}; {SAME} and more is the same encoder on the same pixels. The vectors stay apart from raystp's own"
    )
    return _Encoder(name, own, tuple(cosines))


def _of_one_dim(
    slides: Sequence[ImportedSlide], config: ImportConfig, encoder: str
) -> tuple[list[ImportedSlide], list[dict[str, object]]]:
    """Return the slides whose vectors have the commonest length, type and encoder, and the others as failures.

    Raises FormatError where they cannot be those of the claimed encoder.
    """
    if not slides:
        return [], []
    usual, _ = Counter(_vectors_of(one) for one in slides).most_common(1)[0]
    dim, precision, named = usual
    if named and named != encoder:
        logger.warning(f"  the files name the encoder {named!r}; by their folder or encoder_name it is {encoder!r}")
    if config.encoder is None:
        logger.info(f"  {match_card(config.format, encoder, dim)[1]}")
        names = []
    else:
        names = [encoder, named] if named and named != encoder else [encoder]
    for name in names:
        if note := check_card(str(config.encoder), config.format, name, dim):
            logger.warning(f"  {note}")
    kept = [one for one in slides if _vectors_of(one) == usual]
    failures: list[dict[str, object]] = [
        {
            "slide": one["slide"],
            "stage": STEP,
            "reason": f"its vectors have {one['dim']} values of {one['precision']}, those of most slides {dim} of "
            f"{precision}; the files name {one['encoder']!r} and {named!r}: they are of another encoder",
        }
        for one in slides
        if _vectors_of(one) != usual
    ]
    return kept, failures


def _with_tiles(
    slides: Sequence[ImportedSlide], tiles: Artifact
) -> tuple[list[ImportedSlide], list[dict[str, object]]]:
    """Return the slides that finished tiles have, and the others as failures: these tiles do not change any more."""
    there = set(tiles.table("slides.parquet", tables.SLIDES, ["slide"])["slide"].to_pylist())
    reason = f"{tiles.path} was finished without this slide, which failed then; rerun with --set run.retry_failed=true"
    failures: list[dict[str, object]] = [
        {"slide": one["slide"], "stage": STEP, "reason": reason} for one in slides if one["slide"] not in there
    ]
    return [one for one in slides if one["slide"] in there], failures


def _vectors_of(slide: ImportedSlide) -> tuple[int, str, str]:
    return slide["dim"], slide["precision"], slide["encoder"]


def _check_sides(slides: Sequence[ImportedSlide], config: ImportConfig) -> dict[str, int]:
    """Return and print how many slides have tiles of which side in um; raises ConfigError for too different ones."""
    sides = Counter(f"{one['side_um']:.1f}" for one in slides if one["tiles"])
    said = ", ".join(f"{side} um on {count}" for side, count in sides.most_common())
    logger.info(f"  side of tiles: {said or 'no slide has a tile'}")
    widths = [float(side) for side in sides]
    if widths and max(widths) > (1 + MPP_TOLERANCE) * min(widths) and not config.mixed_sides:
        msg = (
            f"the tiles of these slides have different sides ({said}), more than {MPP_TOLERANCE:.0%} apart: models "
            "would read tissue at two scales. Import each scanner by itself (`slides`), or set mixed_sides=true"
        )
        raise ConfigError(msg)
    return dict(sides)


def _typical(slides: Sequence[ImportedSlide], key: str) -> float:
    found = [float(one[key]) for one in slides if one["tiles"]]  # type: ignore[literal-required]
    return float(np.median(found)) if found else 0.0


def _finish_tiles(
    writer: ArtifactWriter,
    slides: Sequence[ImportedSlide],
    failures: list[dict[str, object]],
    *,
    sides: dict[str, int],
    form: FeatureFormat,
) -> Artifact:
    columns = set(tables.SLIDES.names)
    rows: list[dict[str, object]] = [{key: value for key, value in one.items() if key in columns} for one in slides]
    (writer.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    notes: dict[str, Any] = {
        "imported": {"format": form.name, "tool": form.tool},
        "side": round(_typical(slides, "side_um"), 4),
        "sides": sides,
        "pixels": int(_typical(slides, "tile_px")),
        "patients": {one["slide"]: one["patient"] for one in slides},
        "assumed": {one["slide"]: one["notes"] for one in slides if one["notes"]},
    }
    bounds = {one["slide"]: one["bounds"] for one in slides if one["bounds"]}
    notes |= {"bounds": bounds} if bounds else {}
    return writer.finish({"slides": len(slides), "tiles": sum(one["tiles"] for one in slides)}, failures, notes)


def _finish_embeddings(
    writer: ArtifactWriter,
    slides: Sequence[ImportedSlide],
    failures: list[dict[str, object]],
    *,
    encoder: _Encoder,
    tiles: str,
    sources: ImportSources,
) -> Artifact:
    with_tiles = [one for one in slides if one["tiles"]]
    failures = failures + [
        {"slide": one["slide"], "stage": STEP, "reason": "its files have no tile: the tool found no tissue"}
        for one in slides
        if not one["tiles"]
    ]
    described = EncoderConfig(name=encoder.name).model_dump(mode="json")
    notes: dict[str, Any] = {
        "encoder": described,
        "encoder_identity": encoder.identity,
        "imported": {"encoder": sources.encoder, "cosines": [round(one, 6) for one in encoder.cosines]},
        "precision": with_tiles[0]["precision"] if with_tiles else "float32",
        "side": round(_typical(slides, "side_um"), 4),
        "pixels": int(_typical(slides, "tile_px")),
        "tiles": tiles,
        "units": {one["slide"]: one["units"] for one in with_tiles},
        "patients": {one["slide"]: one["patient"] for one in with_tiles},
        "readers": {},
    }
    rows = {"slides": len(with_tiles), "tiles": sum(one["tiles"] for one in with_tiles)}
    return writer.finish(rows, json.loads(json.dumps(failures)), notes)
