"""embed: tiles + slides + an encoder -> embeddings, committed unit by unit."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from raystp import tables
from raystp.artifacts import Artifact, Draft, begin, find
from raystp.cluster.progress import Progress, say
from raystp.cluster.session import cluster_cpus, cluster_gpus, session
from raystp.cluster.tile_stream import stream
from raystp.cluster.tile_units import Unit, Width
from raystp.config import Run, StepConfig, Where
from raystp.encoders.encoder import Ways
from raystp.encoders.registry import describe, warning
from raystp.errors import ConfigError
from raystp.steps.embed_work import EmbedWork, stored
from raystp.steps.encoder_source import EncoderConfig, EncoderSource, source_of
from raystp.units import Microns, TilePixels

STEP = "embed"


class EmbedRun(Run):
    """How wide to embed; nothing here changes a row."""

    encoders: int | None = Field(default=None, ge=1)
    """Encoder actors; by default one per GPU, or one per two logical CPUs where there is none."""

    readers: int = Field(default=0, ge=0)
    """CPU readers apart from the encoders, one hop away; 0 reads in threads inside the encoder's actor."""

    threads: int = Field(default=1, ge=1)
    """Reader threads ahead of each encoder."""

    batch_tiles: int = Field(default=64, ge=1)
    """Tiles that are read and encoded together."""

    cpus_per_encoder: float = Field(default=1.0, gt=0)
    """Logical CPUs that each encoder's actor holds."""

    pass_tiles: Annotated[int, Field(ge=1)] | Literal["fit"] | None = None
    """Tiles in one pass through the network: a number, `fit` for what the device holds (found by doubling), or by
    default a small number that suits a CPU."""

    channels_last: bool = False
    """Lay convolutions out as the pixels lie: faster on a GPU, for convolutional networks."""

    compiler: str | None = None
    """torch.compile's backend, say `inductor`: a minute once, then faster passes on a GPU."""

    deadline_s: float = Field(default=600.0, gt=0)
    """Seconds within which a batch of tiles must be read. A process in which a decoder hangs longer is ended; after
    three the slide is left out."""


class EmbedConfig(StepConfig[EmbedRun]):
    """Which tiles to embed, with which encoder."""

    where: ClassVar[frozenset[str]] = frozenset({"tiles"})

    tiles: Annotated[str, Where("tile")]
    """The tiles, `tile/<name>`."""

    encoder: EncoderConfig = Field(default_factory=EncoderConfig)

    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of the encoder's arithmetic, and of the stored vectors: bfloat16's are stored as float16."""

    unit_tiles: int = Field(default=2048, ge=1)
    """Tiles in a work unit: what is committed, and computed again, as a whole. It names the output's files."""

    run: EmbedRun = Field(default_factory=EmbedRun)

    def what(self) -> dict[str, Any]:
        """Return what is computed; the weights' digest stands among the inputs, not their path here."""
        return {**super().what(), "encoder": self.encoder.what()}


CONFIG = EmbedConfig


def run(config: EmbedConfig) -> Artifact:
    """Embed every tile; what was committed before is not computed again, and a slide that fails is named."""
    tiles = find(config.run.store, config.tiles, "tile")
    source = source_of(config.encoder, config.run.store)
    _check_side(source, tiles)
    draft = begin(config, STEP, {"tiles": tiles, "encoder": source.identity})
    if isinstance(draft, Artifact):
        return draft
    slides = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    work = EmbedWork(
        tiles=tiles.place,
        target=draft.place,
        slides={slide["slide"]: (slide["path"], slide["mpp"]) for slide in slides},
        pixels=int(tiles.manifest.notes["pixels"]),
        encoder_source=source,
        precision=config.precision,
        passes=config.run.pass_tiles,
        ways=Ways(config.run.channels_last, config.run.compiler),
    )
    units = plan_units(slides, config.unit_tiles)
    errors = _embed(work, units, draft, config.run)
    notes = {
        "encoder": config.encoder.model_dump(mode="json"),
        "encoder_identity": source.identity,
        "precision": stored(config.precision),
        "side": tiles.manifest.notes["side"],
        "pixels": tiles.manifest.notes["pixels"],
        "tiles": tiles.place.uri,
    }
    return _finish(draft, slides, units, errors=errors, notes=notes)


def _check_side(source: EncoderSource, tiles: Artifact) -> None:
    """Raise ConfigError, before any pixel is read, where the tiles are not of the encoder's side."""
    wanted, seen = describe(source.spec).pixels, int(tiles.manifest.notes["pixels"])
    if wanted != seen:
        msg = (
            f"encoder '{source.spec.name}' takes tiles of {wanted} px, {tiles.place} has {seen} px: "
            f"run `raystp tile` with pixels={wanted}; its `side` in um may stay"
        )
        raise ConfigError(msg)
    side = Microns(float(tiles.manifest.notes["side"]))
    if words := warning(source.spec, side, TilePixels(seen)):
        say(f"  {words}")


def plan_units(slides: list[dict[str, Any]], unit_tiles: int) -> list[Unit]:
    """Cut every slide into units of at most `unit_tiles` tiles, named by slide and number."""
    return [
        Unit(f"{slide['slide']}.{number:05d}", slide["slide"], first, min(unit_tiles, slide["tiles"] - first))
        for slide in slides
        for number, first in enumerate(range(0, slide["tiles"], unit_tiles))
    ]


def _embed(work: EmbedWork, units: list[Unit], draft: Draft, run: EmbedRun) -> dict[str, str]:
    """Run the units that are not committed; return the first failure of each slide that has one."""
    if run.retry_failed:
        (draft.place / "attempts").remove()
    done = {name.removesuffix(".json") for name in (draft.place / "commits").names()}
    rows = {unit.unit: unit.rows for unit in units}
    errors: dict[str, str] = {}
    with session(run.address), Progress(STEP, sum(rows.values()), "tile") as progress:
        progress.add(sum(unit.rows for unit in units if unit.unit in done))
        for receipt in stream(work, [unit for unit in units if unit.unit not in done], _width(run)):
            if receipt.error:
                errors.setdefault(receipt.slide, receipt.error)
            progress.add(rows[receipt.unit], failed=rows[receipt.unit] if receipt.error else 0)
    return errors


def _width(run: EmbedRun) -> Width:
    gpus = cluster_gpus()
    encoders = run.encoders or gpus or max(1, cluster_cpus() // 2)
    return Width(
        encoders=encoders,
        batch_tiles=run.batch_tiles,
        threads=run.threads,
        readers=run.readers,
        cpus_per_encoder=run.cpus_per_encoder,
        gpus_per_encoder=min(1.0, gpus / encoders),
        deadline_s=run.deadline_s,
    )


def _finish(
    draft: Draft, slides: list[dict[str, Any]], units: list[Unit], *, errors: dict[str, str], notes: dict[str, Any]
) -> Artifact:
    """Close the artifact over the slides that are whole; a slide with any failure is left out as a whole."""
    patients = {slide["slide"]: slide["patient"] for slide in slides if slide["slide"] not in errors}
    kept = [unit for unit in units if unit.slide in patients]
    files: dict[str, list[str]] = {slide: [] for slide in patients}
    for unit in kept:
        files[unit.slide].append(unit.unit)
    failures: list[dict[str, object]] = [{"slide": s, "stage": STEP, "reason": e} for s, e in sorted(errors.items())]
    (draft.place / "parts").remove()
    rows = {"slides": len(patients), "tiles": sum(unit.rows for unit in kept)}
    return draft.finish(rows, failures, notes | {"units": files, "patients": patients})
