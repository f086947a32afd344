"""spots: measured sections -> one AnnData per section, in one schema."""

import logging
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from raystp.artifacts import Artifact, content_id, create_or_open, digest_of
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.config import Location, RunConfig, StepConfig
from raystp.errors import ConfigError, RaystpError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import write_section
from raystp.slides.table import SlideRow, read_slide_table
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "spots"


class SpotsConfig(StepConfig[RunConfig]):
    """Which slide table's measured sections to read."""

    where: ClassVar[frozenset[str]] = frozenset({"slides", "root"})

    slides: Annotated[str, Location("demo")]
    """The slide table, a CSV; rows with `layout` and `counts` are measured sections. `demo/<name>`: a demo's own."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that relative paths of the table start from; by default the table's own folder."""

    run: RunConfig = Field(default_factory=RunConfig)


@dataclass(frozen=True)
class _ReadSection:
    row: SlideRow
    target: StoragePath


CONFIG = SpotsConfig


def run(config: SpotsConfig) -> Artifact:
    """Read every measured section of the slide table and leave `sections/<section>.h5ad`."""
    rows = [row for row in read_slide_table(config.slides, config.root, config.run.store) if row.layout]
    if not rows:
        table = config.slides.partition("?")[0]
        msg = f"slides: no row of {table} has a `layout`; a measured section needs `layout` and `counts`"
        raise ConfigError(msg)
    draft = create_or_open(config, STEP, {"sections": digest_of([_identity(row) for row in rows])})
    if isinstance(draft, Artifact):
        return draft
    work = [_ReadSection(row, draft.path / "sections" / f"{row.section}.h5ad") for row in rows]
    sections: dict[str, dict[str, Any]] = {}
    failures: list[dict[str, object]] = []
    with session(config.run.address), Progress(STEP, len(work), "section") as progress:
        for position, answer in map_tasks(_read, work):
            row = rows[position]
            if isinstance(answer, str):
                failures.append({"slide": row.slide, "stage": STEP, "reason": answer})
            else:
                sections[row.section] = answer
            progress.add(1, failed=isinstance(answer, str))
    for name in sorted(sections):
        logger.info(f"  {name}: {_said(sections[name])}")
    spots = sum(one["spots"] for one in sections.values())
    ordered = {row.section: sections[row.section] for row in rows if row.section in sections}
    return draft.finish({"sections": len(sections), "spots": spots}, failures, {"sections": ordered})


def _identity(row: SlideRow) -> list[Any]:
    """Return what a section's result depends on: its contents and what the table says of it, not where it lies."""
    files = [content_id(place) if place else None for place in (row.counts, row.positions)]
    return [row.section, row.slide, row.patient, row.layout, row.mpp, row.spot_px, *files]


def _read(work: _ReadSection) -> dict[str, Any] | str:
    """Read one section and write it; return what the manifest says of it, or the sentence of a failure."""
    row = work.row
    assert row.layout is not None  # rows without one were left out
    assert row.counts is not None  # it comes with `layout`
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
    mark = section.uns["raystp"]
    kept = {"patient": row.patient, "slide": row.slide, "mpp": float(mark["mpp"])}
    return {**kept, "spots": section.n_obs, "genes": section.n_vars, "notes": notes}


def _said(one: dict[str, Any]) -> str:
    notes = ", ".join(f"{key} {value}" for key, value in one["notes"].items())
    return f"{one['spots']} spots x {one['genes']} genes, {one['mpp']:.4f} um/px" + (f"; {notes}" if notes else "")
