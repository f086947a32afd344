"""spots: measured sections -> one AnnData per section, in one schema."""

import logging
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from raystp.artifacts import Artifact, content_id, create_or_open, digest_of
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.config import Location, RunConfig, StepConfig
from raystp.errors import ConfigError, RaystpError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import section_info, write_section
from raystp.expression.sections import SectionEntry
from raystp.slides.table import SlideRow, read_slide_table
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "spots"


class SpotsConfig(StepConfig[RunConfig]):
    """Configuration of `raystp spots`."""

    where: ClassVar[frozenset[str]] = frozenset({"slides", "root"})

    slides: Annotated[str, Location("demo")]
    """The slide table, a CSV; rows with `layout` and `counts` are measured sections. `demo/<name>`: that of a demo."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that the table's relative paths start from. The default is the table's own folder."""

    run: RunConfig = Field(default_factory=RunConfig)


@dataclass(frozen=True)
class _ReadSection:
    row: SlideRow
    target: StoragePath


CONFIG = SpotsConfig


def run(config: SpotsConfig) -> Artifact:
    """Read every measured section of the slide table and write `sections/<section>.h5ad`."""
    rows = [row for row in read_slide_table(config.slides, config.root, config.run.store) if row.layout]
    if not rows:
        table = config.slides.partition("?")[0]
        msg = f"slides: no row of {table} has a `layout`; a measured section needs `layout` and `counts`"
        raise ConfigError(msg)
    writer = create_or_open(config, STEP, {"sections": digest_of([_identity(row) for row in rows])})
    if isinstance(writer, Artifact):
        return writer
    work = [_ReadSection(row, writer.path / "sections" / f"{row.section}.h5ad") for row in rows]
    sections: dict[str, SectionEntry] = {}
    failures: list[dict[str, object]] = []
    with session(config.run.address), Progress(STEP, len(work), "section") as progress:
        for position, result in map_tasks(_read, work):
            row = rows[position]
            if isinstance(result, str):
                failures.append({"slide": row.slide, "stage": STEP, "reason": result})
            else:
                sections[row.section] = result
            progress.add(1, failed=isinstance(result, str))
    for name in sorted(sections):
        logger.info(f"  {name}: {_summary(sections[name])}")
    spots = sum(one["spots"] for one in sections.values())
    ordered = {row.section: sections[row.section] for row in rows if row.section in sections}
    return writer.finish({"sections": len(sections), "spots": spots}, failures, {"sections": ordered})


def _identity(row: SlideRow) -> list[str | float | None]:
    """Return what a section's result depends on: file contents and entries of the table, not paths."""
    files = [content_id(path) if path else None for path in (row.counts, row.positions)]
    return [row.section, row.slide, row.patient, row.layout, row.mpp, row.spot_px, *files]


def _read(work: _ReadSection) -> SectionEntry | str:
    """Read one section and write it; return its entry of the manifest, or an error message."""
    row = work.row
    assert row.layout is not None  # rows without one were left out
    assert row.counts is not None  # required together with `layout`
    try:
        source = SectionSource(
            section=row.section,
            slide=row.slide,
            patient=row.patient,
            layout=row.layout,
            counts=row.counts,
            positions=row.positions,
            mpp=row.mpp,
            spot_px=row.spot_px,
        )
        section, notes = read(source)
        write_section(work.target, section)
    except RaystpError as error:
        return str(error)
    return {
        "patient": row.patient,
        "slide": row.slide,
        "mpp": section_info(section).mpp,
        "spots": section.n_obs,
        "genes": section.n_vars,
        "notes": notes,
    }


def _summary(entry: SectionEntry) -> str:
    notes = ", ".join(f"{key} {value}" for key, value in entry["notes"].items())
    summary = f"{entry['spots']} spots x {entry['genes']} genes, {entry['mpp']:.4f} um/px"
    return f"{summary}; {notes}" if notes else summary
