"""embed: tiles + slides + encoders -> embeddings, committed unit by unit; pixels are read once for all encoders."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, note_of, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import cluster_cpus, cluster_gpus, session
from raystp.cluster.streams.tiles import stream
from raystp.cluster.streams.units import StreamResources, UnitReceipt, WorkUnit
from raystp.encoders.encoder import InferenceOptions, stored_precision
from raystp.encoders.registry import features_dim, tile_warning, tokens_of
from raystp.errors import ArtifactError
from raystp.steps.embed.config import EmbedConfig, EmbedRun
from raystp.steps.embed.failed_tiles import read_failed_tiles, slide_error, units_with_failed_tiles
from raystp.steps.embed.outputs import EncoderOutput
from raystp.steps.embed.reader import SlideTiles
from raystp.steps.embed.work import EmbedWork
from raystp.steps.encoder_source import EncoderSource, check_tile_px, source_of
from raystp.units import Microns, TilePixels

logger = logging.getLogger("raystp")

STEP = "embed"
CONFIG = EmbedConfig


class SlideEntry(TypedDict):
    """A row of the table `slides.parquet` of tiles: the columns that embedding reads."""

    slide: str
    path: str
    mpp: float
    content: str
    patient: str
    tiles: int


def run(config: EmbedConfig) -> Artifact:
    """Embed every tile, except what is committed already; a slide that fails is a row of the failures table.

    With several encoders, return the artifact of the main one.
    """
    tiles = resolve(config.run.store, config.tiles, "tile")
    configs = config.each()
    sources = [source_of(one.encoder, config.run.store) for one in configs]
    for source in sources:
        _check_tiles(source, tiles)
    opened = [
        create_or_open(one, STEP, {"tiles": tiles, "encoder": source.identity})
        for one, source in zip(configs, sources, strict=True)
    ]
    unfinished = [
        _EncoderArtifact(one, source, writer)
        for one, source, writer in zip(configs, sources, opened, strict=True)
        if isinstance(writer, ArtifactWriter)
    ]
    finished = _embed(config, tiles, unfinished) if unfinished else []
    main = opened[0]
    return main if isinstance(main, Artifact) else finished[0]


@dataclass(frozen=True)
class _EncoderArtifact:
    """The unfinished artifact of one encoder."""

    config: EmbedConfig
    source: EncoderSource
    writer: ArtifactWriter


@dataclass
class _StreamOutcome:
    """Errors and statistics of a finished stream."""

    errors: dict[str, str] = field(default_factory=dict)
    """Slide -> its first error."""
    tiles: int = 0
    waited_s: float = 0.0
    encoded_s: float = 0.0
    seconds: float = 0.0
    operators: list[str] = field(default_factory=list)

    def set_operators(self, statistics: str) -> None:
        """Keep Ray Data's statistics of its operators, a line each."""
        self.operators = [line.rstrip() for line in statistics.splitlines() if line.strip()]

    def add(self, receipt: UnitReceipt) -> None:
        if receipt.error:
            self.errors.setdefault(receipt.slide, receipt.error)
        self.tiles += receipt.rows
        self.waited_s += receipt.waited_s
        self.encoded_s += receipt.encoded_s

    @property
    def waiting(self) -> float:
        """Share of their time that the encoders waited for pixels."""
        return self.waited_s / max(self.waited_s + self.encoded_s, 1e-9)

    def statistics(self) -> dict[str, object]:
        """Return the manifest's statistics: of this run only, without units that were committed before."""
        return {
            "tiles": self.tiles,
            "seconds": round(self.seconds, 3),
            "tiles_per_s": round(self.tiles / max(self.seconds, 1e-9), 3),
            "encoders_waited": round(self.waiting, 4) if self.encoded_s else None,  # unknown with separate readers
            "operators": self.operators,
        }


def _embed(config: EmbedConfig, tiles: Artifact, unfinished: Sequence[_EncoderArtifact]) -> list[Artifact]:
    """Read the pixels once for all the encoders, and finish each one's artifact."""
    slides = slides_of(tiles)
    run = config.run
    work = EmbedWork(
        tiles=tiles.path,
        outputs=tuple(_output(one, len(_scales(tiles))) for one in unfinished),
        slides={one["slide"]: SlideTiles(one["path"], one["mpp"], one["content"]) for one in slides},
        tile_px=_tile_px(tiles),
        precision=config.precision,
        scales=len(_scales(tiles)),
        pass_tiles=run.pass_tiles,
        options=InferenceOptions(run.channels_last, run.compiler),
        cache=run.node_cache(),
        again=_units_again(unfinished) if run.retry_failed else frozenset(),
    )
    units = plan_units({one["slide"]: one["tiles"] for one in slides}, config.unit_tiles)
    outcome = _stream(work, units, run)
    return [_finish(one, tiles, slides, units=units, outcome=outcome) for one in unfinished]


def _output(unfinished: _EncoderArtifact, scales: int) -> EncoderOutput:
    config, source = unfinished.config, unfinished.source
    dim = scales * features_dim(source.spec, config.features)
    tokens = tokens_of(source.spec, config.tokens) if config.tokens else None
    return EncoderOutput(unfinished.writer.path, source, dim, config.features, tokens)


def slides_of(tiles: Artifact) -> list[SlideEntry]:
    """Return the slides table of tiles; raises ArtifactError if no slide has a tile."""
    slides: list[SlideEntry] = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    if not any(one["tiles"] for one in slides):
        msg = (
            f"none of the {len(slides)} slides of {tiles.path} has a tile, so there is nothing to embed: see its "
            "failures table and thumbnails, then run `raystp tile` with other settings"
        )
        raise ArtifactError(msg)
    return slides


def _units_again(unfinished: Sequence[_EncoderArtifact]) -> frozenset[str]:
    """Return the units with failed tiles, for `run.retry_failed`."""
    return frozenset().union(*(units_with_failed_tiles(one.writer.path) for one in unfinished))


def _tile_px(tiles: Artifact) -> TilePixels:
    return TilePixels(int(tiles.manifest.notes["pixels"]))


def _scales(tiles: Artifact) -> list[float]:
    """Return the sides of the tiles around each place, in um."""
    notes = tiles.manifest.notes
    return [float(side) for side in notes.get("scales", [notes["side"]])]


def _check_tiles(source: EncoderSource, tiles: Artifact) -> None:
    """Raise ConfigError, before any pixel is read, for tiles of another size than the encoder's."""
    check_tile_px(source.spec, tiles)
    found = _tile_px(tiles)
    for side in _scales(tiles):
        if warning := tile_warning(source.spec, Microns(side), found):
            logger.warning(f"  {warning}")


def plan_units(tiles: Mapping[str, int], unit_tiles: int) -> list[WorkUnit]:
    """Divide slides (slide -> number of tiles) into units of at most `unit_tiles`, named by slide and number."""
    return [
        WorkUnit(f"{slide}.{number:05d}", slide, first, min(unit_tiles, count - first))
        for slide, count in tiles.items()
        for number, first in enumerate(range(0, count, unit_tiles))
    ]


def _stream(work: EmbedWork, units: list[WorkUnit], run: EmbedRun) -> _StreamOutcome:
    """Embed the units that are not committed; return the outcome."""
    if run.retry_failed:
        work.forget_attempts()
    done = work.committed()
    rows = {unit.unit: unit.rows for unit in units}
    left = {unit.slide: 0 for unit in units}
    for unit in units:
        left[unit.slide] += unit.unit not in done
    outcome, complete = _StreamOutcome(), sum(not count for count in left.values())
    remaining = [unit for unit in units if unit.unit not in done]
    with session(run.address), Progress(STEP, sum(rows.values()), "tile") as progress:
        progress.add_earlier(sum(unit.rows for unit in units if unit.unit in done))
        resources = _resources(run)
        work = replace(work, on_gpu=resources.gpus_per_encoder > 0)
        for receipt in stream(work, remaining, resources, outcome.set_operators):
            outcome.add(receipt)
            left[receipt.slide] -= 1
            complete += not left[receipt.slide]
            waited = f", encoders waited {outcome.waiting:.0%} of their time" if outcome.encoded_s else ""
            progress.note = f"{complete} of {len(left)} slides{waited}"
            progress.add(rows[receipt.unit], failed=rows[receipt.unit] if receipt.error else 0)
    outcome.seconds = progress.seconds
    work.remove_stale_attempts()
    return outcome


def _resources(run: EmbedRun) -> StreamResources:
    gpus = cluster_gpus()
    encoders = run.encoders or gpus or max(1, cluster_cpus() // 2)
    most = encoders if isinstance(encoders, int) else encoders[1]
    return StreamResources(
        encoders=encoders,
        batch_tiles=run.batch_tiles,
        threads=run.threads,
        readers=run.readers,
        cpus_per_encoder=run.cpus_per_encoder,
        gpus_per_encoder=min(1.0, gpus / most) if run.gpus_per_encoder is None else run.gpus_per_encoder,
        deadline_s=run.deadline_s,
    )


def _finish(
    unfinished: _EncoderArtifact,
    tiles: Artifact,
    slides: Sequence[SlideEntry],
    *,
    units: list[WorkUnit],
    outcome: _StreamOutcome,
) -> Artifact:
    """Finish an artifact with the slides that have no error; a slide with any error is left out as a whole.

    A slide without a tile is such an error, and one with too many tiles that cannot be read. Fewer of these are rows
    of the failures table, and the slide is kept.
    """
    writer, config = unfinished.writer, unfinished.config
    lost = read_failed_tiles(writer.path, units)
    errors = {one["slide"]: outcome.errors.get(one["slide"]) or _error_of(one, lost, tiles) for one in slides}
    patients = {slide["slide"]: slide["patient"] for slide in slides if not errors[slide["slide"]]}
    kept = [unit for unit in units if unit.slide in patients]
    files: dict[str, list[str]] = {slide: [] for slide in patients}
    for unit in kept:
        files[unit.slide].append(unit.unit)
    reasons = {slide: [error] if error else lost.get(slide, []) for slide, error in errors.items()}
    failures: list[dict[str, object]] = [
        {"slide": slide, "stage": STEP, "reason": one} for slide in sorted(reasons) for one in reasons[slide]
    ]
    (writer.path / "parts").remove()
    readers = tiles.manifest.notes.get("readers", {})
    failed = {slide: len(lost[slide]) for slide in patients if slide in lost}
    notes = {
        "encoder": config.encoder.model_dump(mode="json"),
        "encoder_identity": unfinished.source.identity,
        "precision": stored_precision(config.precision),
        **config.features.record,
        **({"tokens": config.tokens} if config.tokens else {}),
        "side": tiles.manifest.notes["side"],
        "pixels": tiles.manifest.notes["pixels"],
        **({"scales": _scales(tiles)} if len(_scales(tiles)) > 1 else {}),
        "tiles": note_of(tiles, writer.path.parent.parent),
        "units": files,
        "patients": patients,
        "readers": {slide: readers[slide] for slide in patients if slide in readers},
        **({"failed_tiles": failed} if failed else {}),
    }
    rows = {"slides": len(patients), "tiles": sum(unit.rows for unit in kept) - sum(failed.values())}
    return writer.finish(rows, failures, notes, outcome.statistics())


def _error_of(slide: SlideEntry, lost: Mapping[str, list[str]], tiles: Artifact) -> str:
    """Return why a slide whose units are all committed fails as a whole; "" if it does not."""
    if not slide["tiles"]:
        return f"it has no tile in {tiles.path}"
    return slide_error(lost.get(slide["slide"], []), slide["tiles"]) if slide["slide"] in lost else ""
