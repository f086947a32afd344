"""What is imported: the files of each slide, joined with the rows of the slide table."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from raystp.artifacts import Artifact, resolve
from raystp.digests import ABSENT_CONTENT, content_id, digest_of
from raystp.errors import ConfigError, StorageError, some
from raystp.interop.choice import FoundFiles, SlideFiles
from raystp.interop.registry import FeatureFormat
from raystp.slides.inputs.copies import find_copies
from raystp.slides.inputs.ids import slide_ids, stem_of
from raystp.slides.table import SlideRow, read_slide_table
from raystp.steps.imports.config import ImportConfig
from raystp.storage import StoragePath

UNREADABLE = "unreadable"
"""The id of files that cannot be read."""

THREADS = 16
"""Files whose ids are computed at once."""


@dataclass(frozen=True)
class Source:
    """One slide to import."""

    slide: str
    """The slide's id: that of the table, else from the name of its files."""
    files: SlideFiles
    row: SlideRow | None
    """Its row of the slide table."""
    content: str
    """Id of the content of its files."""
    image: str = ABSENT_CONTENT
    """Id of the content of the slide of its row: it gives um/px where the table does not, and the slide's size."""
    section: StoragePath | None = None
    """Its measured spots; None for a slide whose row has no `layout`."""
    section_mpp: float | None = None
    """Their um/px."""
    section_failure: str | None = None
    """Why the spots lack the slide's section."""


@dataclass(frozen=True)
class ImportSources:
    """All slides to import."""

    slides: tuple[Source, ...]
    encoder: str
    """The tool's own name of the encoder."""
    notes: tuple[str, ...]
    spots: Artifact | None

    @property
    def digest(self) -> str:
        """Digest of all files, and of what the slide table says of them."""
        rows = [[one.slide, one.content, one.image, *(_facts(one.row) if one.row else ())] for one in self.slides]
        return digest_of([self.encoder, rows])


def find_sources(config: ImportConfig, form: FeatureFormat) -> ImportSources:
    """Return the slides of a tool's folder; raises FormatError or ConfigError where they cannot be imported.

    With a slide table, its slides are imported, and others are noted.
    """
    folder = StoragePath.of(config.path)
    if not folder.exists():
        msg = f"path: {folder} does not exist; give the folder that {form.tool} has written"
        raise ConfigError(msg)
    found = form.find(folder, config.choice)
    encoder = config.encoder_name or found.encoder
    if encoder is None:
        msg = f"{folder} does not name the encoder of its vectors: set encoder_name=..., as in encoder_name=uni_v1"
        raise ConfigError(msg)
    rows = read_slide_table(config.slides, config.root, config.run.store) if config.slides else []
    joined, notes = _joined(found, rows, str(folder)) if rows else (_without_table(found), [])
    _check_scales(joined, form)
    spots = resolve(config.run.store, config.spots, "spots") if config.spots else None
    failed = [] if spots is None else spots.failures().to_pylist()
    failures = {str(one["slide"]): str(one["reason"]) for one in failed}
    with ThreadPoolExecutor(THREADS) as pool:
        contents = list(pool.map(lambda one: content_of(one[1]), joined))
        images = list(pool.map(lambda one: image_of(one[2]), joined))
    slides = [
        Source(slide, files, row, content, image, *_section(spots, failures, row))
        for (slide, files, row), content, image in zip(joined, contents, images, strict=True)
    ]
    return ImportSources(tuple(slides), encoder, (*found.notes, *notes, *_copies(slides)), spots)


def _copies(slides: Sequence[Source]) -> list[str]:
    """Return a warning for each slide, or file of vectors, that stands under two patients."""
    patients = {one.slide: "" if one.row is None else one.row.patient for one in slides}
    kinds = ({one.slide: one.image for one in slides}, {one.slide: one.content for one in slides})
    found = dict.fromkeys(copies for contents in kinds for copies in find_copies(contents, patients) if copies.is_leak)
    return [copies.sentence() for copies in found]


Joined = tuple[str, SlideFiles, SlideRow | None]


def _without_table(found: FoundFiles) -> list[Joined]:
    ids = slide_ids([f"{one.slide}.h5" for one in found.slides])
    return [(slide, files, None) for slide, files in zip(ids, found.slides, strict=True)]


def _joined(found: FoundFiles, rows: Sequence[SlideRow], folder: str) -> tuple[list[Joined], list[str]]:
    """Return the slides of the table with their files; files are found by the slide's id or its file's name."""
    by_name = {one.slide: one for one in found.slides}
    joined: list[Joined] = []
    absent = []
    for row in rows:
        file = row.path.name.rpartition(".")[0]
        names = (row.slide, file, stem_of(row.path.name))
        if row.slide != file and {row.slide, file} <= set(by_name):
            msg = (
                f"slides: {folder} has files named {row.slide!r}, the slide's id, and files named {file!r}, its file's "
                f"name ({row.path}): which are of this slide? Give it the id {file!r}, or import another folder"
            )
            raise ConfigError(msg)
        files = next((by_name[name] for name in names if name in by_name), None)
        if files is None:
            absent.append(row.slide)
        else:
            joined.append((row.slide, files, row))
    if not joined:
        msg = (
            f"slides: none of the {len(rows)} slides has files in {folder}; the table has {some(absent)}, the folder "
            f"{some(sorted(by_name))}: the slide's id, or its file's name, must be that of its files"
        )
        raise ConfigError(msg)
    used = {files.slide for _, files, _ in joined}
    if len(used) < len(joined):
        twice = [files.slide for _, files, _ in joined]
        msg = f"slides: several rows have the same files {some(sorted({one for one in used if twice.count(one) > 1}))}"
        raise ConfigError(msg)
    left = sorted(set(by_name) - used)
    notes = [f"{len(absent)} of {len(rows)} slides of the table have no files here: {some(absent)}"] if absent else []
    return joined, notes + ([f"{len(left)} slides are not in the table, and left out: {some(left)}"] if left else [])


def _check_scales(joined: Sequence[Joined], form: FeatureFormat) -> None:
    """Raise ConfigError for slides whose um/px nothing can give."""
    if form.carries_mpp:
        return
    missing = [slide for slide, _, row in joined if row is None or (row.mpp is None and not row.path.exists())]
    if missing:
        msg = (
            f"{form.tool.partition(' ')[0]} features carry no um/px: give a slide table with the slides, or with a "
            f"column mpp (slides=...); missing for {some(missing, 2)}"
        )
        raise ConfigError(msg)


def _section(
    spots: Artifact | None, failures: Mapping[str, str], row: SlideRow | None
) -> tuple[StoragePath | None, float | None, str | None]:
    """Return the measured section on a slide, its um/px, and why it is missing."""
    if spots is None or row is None or row.layout is None:
        return None, None, None
    known = spots.manifest.notes["sections"].get(row.section)
    path = spots.path / "sections" / f"{row.section}.h5ad"
    if known is None:
        return path, None, failures.get(row.slide, "their slide table had no such section")
    return path, float(known["mpp"]), None


def _facts(row: SlideRow) -> tuple[object, ...]:
    return row.patient, row.mpp, row.section, row.layout is not None


def content_of(files: SlideFiles) -> str:
    """Return the id of a slide's files; `unreadable` for a slide whose task fails later."""
    try:
        return digest_of({role: content_id(path) for role, path in files.files.items()})
    except StorageError:
        return UNREADABLE


def image_of(row: SlideRow | None) -> str:
    """Return the id of the slide that a row names; `absent` without one, `unreadable` for one whose task fails."""
    try:
        return ABSENT_CONTENT if row is None else content_id(row.path)
    except StorageError:
        return UNREADABLE
