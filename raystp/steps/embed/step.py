"""embed: tiles + slides + encoders -> embeddings, committed unit by unit; the pixels are read once for all encoders."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import cluster_cpus, cluster_gpus, session
from raystp.cluster.streams.tiles import stream
from raystp.cluster.streams.units import StreamResources, UnitReceipt, WorkUnit
from raystp.encoders.encoder import InferenceOptions
from raystp.encoders.registry import describe, tile_warning
from raystp.errors import ConfigError
from raystp.steps.embed.config import EmbedConfig, EmbedRun
from raystp.steps.embed.work import EmbedWork, EncoderOutput, stored
from raystp.steps.encoder_source import EncoderSource, source_of
from raystp.units import Microns, TilePixels

logger = logging.getLogger("raystp")

STEP = "embed"
CONFIG = EmbedConfig


def run(config: EmbedConfig) -> Artifact:
    """Embed every tile; what was committed before is not computed again, and a slide that fails is named.

    Of several encoders, the first one's artifact is returned.
    """
    tiles = resolve(config.run.store, config.tiles, "tile")
    alone = config.each()
    sources = [source_of(one.encoder, config.run.store) for one in alone]
    for source in sources:
        _check_side(source, tiles)
    begun = [
        create_or_open(one, STEP, {"tiles": tiles, "encoder": source.identity})
        for one, source in zip(alone, sources, strict=True)
    ]
    made = [
        _EncoderArtifact(one, source, draft)
        for one, source, draft in zip(alone, sources, begun, strict=True)
        if isinstance(draft, ArtifactWriter)
    ]
    finished = _embed(config, tiles, made) if made else []
    first = begun[0]
    return first if isinstance(first, Artifact) else finished[0]


@dataclass(frozen=True)
class _EncoderArtifact:
    """One encoder's artifact in the making."""

    config: EmbedConfig
    source: EncoderSource
    draft: ArtifactWriter


@dataclass
class _StreamOutcome:
    """What is known when the stream has ended."""

    errors: dict[str, str] = field(default_factory=dict)
    """Slide -> the first failure of it."""
    tiles: int = 0
    waited_s: float = 0.0
    encoded_s: float = 0.0
    seconds: float = 0.0
    operators: list[str] = field(default_factory=list)

    def hear(self, statistics: str) -> None:
        """Keep what Ray Data says of its operators."""
        self.operators = [line.rstrip() for line in statistics.splitlines() if line.strip()]

    def take(self, receipt: UnitReceipt) -> None:
        if receipt.error:
            self.errors.setdefault(receipt.slide, receipt.error)
        self.tiles += receipt.rows
        self.waited_s += receipt.waited_s
        self.encoded_s += receipt.encoded_s

    @property
    def waiting(self) -> float:
        """Share of their time that the encoders waited for pixels."""
        return self.waited_s / max(self.waited_s + self.encoded_s, 1e-9)

    def statistics(self) -> dict[str, Any]:
        """Return how the run went, for the manifest: this run alone, without what was committed before it."""
        return {
            "tiles": self.tiles,
            "seconds": round(self.seconds, 3),
            "tiles_per_s": round(self.tiles / max(self.seconds, 1e-9), 3),
            "encoders_waited": round(self.waiting, 4) if self.encoded_s else None,  # not known with readers apart
            "operators": self.operators,
        }


def _embed(config: EmbedConfig, tiles: Artifact, made: Sequence[_EncoderArtifact]) -> list[Artifact]:
    """Read the pixels once for all the encoders, and finish each one's artifact."""
    slides = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    run = config.run
    work = EmbedWork(
        tiles=tiles.path,
        outputs=tuple(EncoderOutput(one.draft.path, one.source, describe(one.source.spec).dim) for one in made),
        slides={one["slide"]: (one["path"], one["mpp"], one["content"]) for one in slides},
        pixels=int(tiles.manifest.notes["pixels"]),
        precision=config.precision,
        passes=run.pass_tiles,
        ways=InferenceOptions(run.channels_last, run.compiler),
        cache=run.node_cache(),
    )
    units = plan_units(slides, config.unit_tiles)
    outcome = _stream(work, units, run)
    return [_finish(one, tiles, slides, units=units, outcome=outcome) for one in made]


def _check_side(source: EncoderSource, tiles: Artifact) -> None:
    """Raise ConfigError, before any pixel is read, where the tiles are not of the encoder's side."""
    wanted, seen = describe(source.spec).tile_px, int(tiles.manifest.notes["pixels"])
    if wanted != seen:
        msg = (
            f"encoder '{source.spec.name}' takes tiles of {wanted} px, {tiles.path} has {seen} px: "
            f"run `raystp tile` with tile_px={wanted}; `tile_um` may stay"
        )
        raise ConfigError(msg)
    side = Microns(float(tiles.manifest.notes["side"]))
    if words := tile_warning(source.spec, side, TilePixels(seen)):
        logger.info(f"  {words}")


def plan_units(slides: list[dict[str, Any]], unit_tiles: int) -> list[WorkUnit]:
    """Cut every slide into units of at most `unit_tiles` tiles, named by slide and number."""
    return [
        WorkUnit(f"{slide['slide']}.{number:05d}", slide["slide"], first, min(unit_tiles, slide["tiles"] - first))
        for slide in slides
        for number, first in enumerate(range(0, slide["tiles"], unit_tiles))
    ]


def _stream(work: EmbedWork, units: list[WorkUnit], run: EmbedRun) -> _StreamOutcome:
    """Run the units that are not committed; return what became of them."""
    if run.retry_failed:
        work.forget()
    done = work.committed()
    rows = {unit.unit: unit.rows for unit in units}
    left = {unit.slide: 0 for unit in units}
    for unit in units:
        left[unit.slide] += unit.unit not in done
    outcome, whole = _StreamOutcome(), sum(not count for count in left.values())
    with session(run.address), Progress(STEP, sum(rows.values()), "tile") as progress:
        progress.add(sum(unit.rows for unit in units if unit.unit in done))
        for receipt in stream(work, [unit for unit in units if unit.unit not in done], _width(run), outcome.hear):
            outcome.take(receipt)
            left[receipt.slide] -= 1
            whole += not left[receipt.slide]
            waited = f", encoders waited {outcome.waiting:.0%} of their time" if outcome.encoded_s else ""
            progress.note = f"{whole} of {len(left)} slides{waited}"
            progress.add(rows[receipt.unit], failed=rows[receipt.unit] if receipt.error else 0)
    outcome.seconds = progress.seconds
    work.sweep()
    return outcome


def _width(run: EmbedRun) -> StreamResources:
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
    made: _EncoderArtifact,
    tiles: Artifact,
    slides: list[dict[str, Any]],
    *,
    units: list[WorkUnit],
    outcome: _StreamOutcome,
) -> Artifact:
    """Close an artifact over the slides that are whole; a slide with any failure is left out as a whole."""
    errors, draft, config = outcome.errors, made.draft, made.config
    patients = {slide["slide"]: slide["patient"] for slide in slides if slide["slide"] not in errors}
    kept = [unit for unit in units if unit.slide in patients]
    files: dict[str, list[str]] = {slide: [] for slide in patients}
    for unit in kept:
        files[unit.slide].append(unit.unit)
    failures: list[dict[str, object]] = [{"slide": s, "stage": STEP, "reason": e} for s, e in sorted(errors.items())]
    (draft.path / "parts").remove()
    readers = tiles.manifest.notes.get("readers", {})
    notes = {
        "encoder": config.encoder.model_dump(mode="json"),
        "encoder_identity": made.source.identity,
        "precision": stored(config.precision),
        "side": tiles.manifest.notes["side"],
        "pixels": tiles.manifest.notes["pixels"],
        "tiles": tiles.path.uri,
        "units": files,
        "patients": patients,
        "readers": {slide: readers[slide] for slide in patients if slide in readers},
    }
    rows = {"slides": len(patients), "tiles": sum(unit.rows for unit in kept)}
    return draft.finish(rows, failures, notes, outcome.statistics())
