"""spots: measured sections -> one AnnData per section, in one schema."""

import logging
from dataclasses import dataclass, replace

from raystp.artifacts import Artifact, create_or_open
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.digests import content_id, digest_of
from raystp.errors import ConfigError, StorageError, failure_as_reason
from raystp.expression.leaks.pseudo_bulk import PseudoBulk, pseudo_bulk
from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.registry import FILES_BESIDE, POOLED, SIZED, read
from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import section_info, write_section
from raystp.expression.section_checks.raw import warnings_of
from raystp.expression.sections import SectionEntry
from raystp.slides.open import open_header
from raystp.slides.table import SlideRow, read_slide_table
from raystp.steps.spots.config import SpotsConfig
from raystp.steps.spots.leaks import SectionContents, find_duplicates
from raystp.steps.spots.summary import section_summary
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "spots"

DEADLINE_S = 1800.0
"""Longest time to read one section: HDF5 can hang for ever in a damaged file."""


@dataclass(frozen=True)
class SpotsTask:
    """One measured section to read."""

    row: SlideRow
    target: StoragePath
    counts_layer: str | None
    options: SectionOptions


@dataclass(frozen=True)
class SectionRead:
    """A section that was read and written."""

    entry: SectionEntry
    """Its entry of the manifest."""
    slide_content: str
    """The id of its slide's content, which is not an input: a section does not depend on it."""
    bulk: PseudoBulk


CONFIG = SpotsConfig


def run(config: SpotsConfig) -> Artifact:
    """Read every measured section of the slide table and write `sections/<section>.h5ad`."""
    rows = [row for row in read_slide_table(config.slides, config.root, config.run.store) if row.layout]
    if not rows:
        table = config.slides.partition("?")[0]
        msg = f"slides: no row of {table} has a `layout`; a measured section needs `layout` and `counts`"
        raise ConfigError(msg)
    options = config.section_options()
    writer = create_or_open(config, STEP, {"sections": digest_of([_identity(row, options) for row in rows])})
    if isinstance(writer, Artifact):
        return writer
    work = [
        SpotsTask(row, writer.path / "sections" / f"{row.section}.h5ad", config.counts_layer, options) for row in rows
    ]
    contents = SectionContents()
    sections: dict[str, SectionEntry] = {}
    failures: list[dict[str, object]] = []
    with session(config.run.address), Progress(STEP, len(work), "section") as progress:
        for position, result in map_tasks(read_one, work, deadline_s=DEADLINE_S, on_crash=_crashed):
            row = rows[position]
            if isinstance(result, str):
                failures.append({"slide": row.slide, "stage": STEP, "reason": result})
            else:
                sections[row.section] = result.entry
                contents.add(row, result.slide_content, result.bulk)
            progress.add(1, failed=isinstance(result, str))
    ordered = {row.section: sections[row.section] for row in rows if row.section in sections}
    spots = sum(one["spots"] for one in sections.values())
    return writer.finish({"sections": len(sections), "spots": spots}, failures, _notes(ordered, contents))


def _notes(sections: dict[str, SectionEntry], contents: SectionContents) -> dict[str, object]:
    """Log a line for each section, its warnings and possible leaks; return the manifest's notes."""
    for name in sorted(sections):
        logger.info(f"  {name}: {section_summary(sections[name])}")
    duplicates = find_duplicates(contents)
    warnings = {name: [*warnings_of(one["notes"]), *duplicates.leaks.get(name, [])] for name, one in sections.items()}
    warnings = {name: warnings[name] for name in sorted(warnings) if warnings[name]}
    for name, warning in [(name, text) for name, texts in warnings.items() for text in texts]:
        logger.warning(f"  {name}: {warning}")
    for sentence in duplicates.within:
        logger.info(f"  {sentence}")
    notes: dict[str, object] = {"sections": sections}
    notes |= {"warnings": warnings} if warnings else {}
    return notes | ({"duplicates": duplicates.within} if duplicates.within else {})


def _identity(row: SlideRow, options: SectionOptions | None = None) -> list[str | float | None]:
    """Return what a section's result depends on: file contents and entries of the table, not paths."""
    found = FILES_BESIDE[row.layout](_source(row, options=options)) if row.layout in FILES_BESIDE else []
    given = () if row.layout in POOLED and found else (row.counts, row.positions)
    found += [row.path] if row.layout in SIZED else []
    files = [_content(path) if path else None for path in (*given, *found)]
    chosen = [row.mpp, row.spot_px, row.pitch_um, row.library, row.image, row.counts_layer]
    pooled = [row.bin_um, row.pool_um] if row.layout in POOLED else []
    return [row.section, row.slide, row.patient, row.layout, *chosen, *pooled, *files]


def _source(row: SlideRow, counts_layer: str | None = None, options: SectionOptions | None = None) -> SectionSource:
    assert row.layout is not None  # rows without one were left out
    assert row.counts is not None  # required together with `layout`
    options = options or SectionOptions()
    return SectionSource(
        section=row.section,
        slide=row.slide,
        patient=row.patient,
        layout=row.layout,
        counts=row.counts,
        positions=row.positions,
        mpp=row.mpp,
        spot_px=row.spot_px,
        pitch_um=row.pitch_um,
        library=row.library,
        image=row.image,
        counts_layer=row.counts_layer or counts_layer,
        options=replace(options, bin_um=row.bin_um or options.bin_um, pool_um=row.pool_um or options.pool_um),
    )


def _image_px(row: SlideRow) -> tuple[int, int] | None:
    """Return columns and rows of the slide by its header; None for one that is absent, downloaded, or image patches."""
    if not row.path.exists():
        return None
    header = open_header(row.slide, row.path, given_mpp=row.mpp, derived_mpp=1.0)  # um/px is not used here
    if header is None:
        return None
    with header:
        return None if header.reader == "patches" else (header.width, header.height)  # of patches it is their extent


def _content(path: StoragePath) -> str:
    """Return the id of a file's content; `unreadable` for one that cannot be read."""
    try:
        return content_id(path)
    except StorageError:
        return "unreadable"


def _crashed(work: SpotsTask) -> str:
    return (
        f"section {work.row.section!r} ({work.row.counts}) crashed every worker that read it, or took longer than "
        f"{DEADLINE_S:g} s: its file is damaged, or the machine is out of memory; skipped. Check the file, "
        "or rerun with --set run.retry_failed=true"
    )


@failure_as_reason
def read_one(work: SpotsTask) -> SectionRead:
    """Read one section and write it; return its entry of the manifest, and what it is compared by."""
    row = work.row
    source = _source(row, work.counts_layer, work.options)
    if row.layout in SIZED:
        source = replace(source, image_px=_image_px(row))
    section, notes = read(source)
    write_section(work.target, section)
    entry: SectionEntry = {
        "patient": row.patient,
        "slide": row.slide,
        "mpp": section_info(section).mpp,
        "spots": section.n_obs,
        "genes": section.n_vars,
        "notes": notes,
    }
    return SectionRead(entry, _content(row.path), pseudo_bulk(section))
