"""embed: tiles + slides + an encoder -> embeddings, committed unit by unit."""

import hashlib
import io
import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float32, Float64, UInt8
from pydantic import Field

from raystp import tables
from raystp.artifacts import Artifact, Draft, begin, find
from raystp.cluster.progress import Progress
from raystp.cluster.session import cluster_cpus, cluster_gpus, session
from raystp.cluster.tile_stream import Receipt, Unit, Width, stream
from raystp.config import Config, Run, StepConfig
from raystp.encoders.encoder import EncoderSpec, encode
from raystp.encoders.registry import build, identity
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.storage import Place
from raystp.units import TilePixels

STEP = "embed"


class EncoderConfig(Config):
    """Which encoder, and where its weights are."""

    name: str = "tiny"
    """A name of the registry, or `timm:<model>`."""

    weights: str | None = None
    """A local safetensors file (or URI) with the encoder's weights."""

    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """The digest that the weights file must have."""

    random: bool = False
    """Ask for untrained weights, by name: a control, never a default."""

    seed: int = 0
    """Seed of random weights."""

    def spec(self) -> EncoderSpec:
        """Return the plain value that the encoders' room takes."""
        return EncoderSpec(self.name, self.weights, self.sha256, self.random, self.seed)


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


class EmbedConfig(StepConfig[EmbedRun]):
    """Which tiles to embed, with which encoder."""

    where: ClassVar[frozenset[str]] = frozenset({"tiles"})

    tiles: str
    """The tiles, `tile/<name>`."""

    encoder: EncoderConfig = Field(default_factory=EncoderConfig)

    precision: Literal["float32", "float16"] = "float32"
    """Precision of the encoder's arithmetic and of the stored vectors."""

    unit_tiles: int = Field(default=2048, ge=1)
    """Tiles in a work unit: what is committed, and computed again, as a whole. It names the output's files."""

    run: EmbedRun = Field(default_factory=EmbedRun)


@dataclass(frozen=True)
class _Work:
    """What an actor needs to embed any unit: names, places and configs."""

    tiles: Place
    target: Place
    slides: dict[str, tuple[str, float]]
    pixels: int
    spec: EncoderSpec
    precision: Literal["float32", "float16"]

    def reader(self) -> "_Reader":
        return _Reader(self)

    def encoder(self) -> Callable[[UInt8[np.ndarray, "tile pixel pixel 3"]], Float32[np.ndarray, "tile dim"]]:
        encoder, device = build(self.spec), "cuda" if torch.cuda.is_available() else "cpu"
        return lambda tiles: encode(encoder, tiles, device=device, precision=self.precision, batch=None)

    def commit(self, unit: Unit, vectors: Float32[np.ndarray, "tile dim"]) -> None:
        places = (self.tiles / "tiles" / f"{unit.slide}.parquet").read_table().slice(unit.first, unit.rows)
        columns = [*places.columns, tables.vectors(vectors, self.precision)]
        table = pa.Table.from_arrays(
            [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns],
            schema=tables.embeddings(vectors.shape[1], precision=self.precision),
        )
        content = io.BytesIO()
        pq.write_table(table, content, compression="zstd")
        (self.target / "embeddings" / unit.slide / f"{unit.unit}.parquet").write_bytes(content.getvalue())
        # The commit record is what makes the unit exist; a file without one is computed again.
        record = {"rows": unit.rows, "dim": vectors.shape[1], "sha256": hashlib.sha256(content.getvalue()).hexdigest()}
        (self.target / "commits" / f"{unit.unit}.json").write_bytes(json.dumps(record).encode())

    def keep(self, unit: Unit, part: int, vectors: Float32[np.ndarray, "tile dim"]) -> None:
        content = io.BytesIO()
        np.save(content, vectors, allow_pickle=False)
        (self.target / "parts" / unit.unit / f"{part:06d}.npy").write_bytes(content.getvalue())

    def join(self, unit: Unit, parts: int) -> None:
        folder = self.target / "parts" / unit.unit
        files = [folder / f"{part:06d}.npy" for part in range(parts)]
        self.commit(unit, np.concatenate([np.load(io.BytesIO(f.read_bytes()), allow_pickle=False) for f in files]))
        folder.remove()


class _Reader:
    """Reads spans of a unit's tiles; keeps the slide in hand open, and closes it when another comes."""

    def __init__(self, work: _Work) -> None:
        self._work, self._lock = work, threading.Lock()
        self._name: str | None = None
        self._slide: Slide | None = None
        self._squares: Float64[np.ndarray, "tile 3"] = np.empty((0, 3))

    def __call__(self, unit: Unit, start: int, stop: int) -> UInt8[np.ndarray, "tile pixel pixel 3"]:
        slide, squares = self._open(unit.slide)
        return read_tiles(slide, squares[unit.first + start : unit.first + stop], TilePixels(self._work.pixels))

    def _open(self, name: str) -> tuple[Slide, Float64[np.ndarray, "tile 3"]]:
        with self._lock:
            if self._slide is None or self._name != name:
                if self._slide is not None:
                    self._slide.close()
                self._slide, self._name = None, name
                path, mpp = self._work.slides[name]
                self._slide = open_slide(name, Place(path), given_mpp=mpp)
                table = (self._work.tiles / "tiles" / f"{name}.parquet").read_table(["x", "y", "side"])
                self._squares = np.stack([table[c].to_numpy() for c in ("x", "y", "side")], axis=1)
            return self._slide, self._squares


CONFIG = EmbedConfig


def run(config: EmbedConfig) -> Artifact:
    """Embed every tile; what was committed before is not computed again, and a slide that fails is named."""
    tiles = find(config.run.store, config.tiles, "tile")
    spec = config.encoder.spec()
    digest = identity(spec)
    draft = begin(config, STEP, {"tiles": tiles, "encoder": digest})
    if isinstance(draft, Artifact):
        return draft
    slides = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    pixels = int(tiles.manifest.notes["pixels"])
    places = {s["slide"]: (s["path"], s["mpp"]) for s in slides}
    work = _Work(tiles.place, draft.place, places, pixels, spec, config.precision)
    units = _plan(slides, config.unit_tiles)
    errors = _embed(work, units, _committed(draft), config)
    return _finish(draft, slides, units, errors, _notes(config, tiles, digest))


def _plan(slides: list[dict[str, Any]], unit_tiles: int) -> list[Unit]:
    """Cut every slide into units of at most `unit_tiles` tiles, named by slide and number."""
    return [
        Unit(f"{slide['slide']}.{number:05d}", slide["slide"], first, min(unit_tiles, slide["tiles"] - first))
        for slide in slides
        for number, first in enumerate(range(0, slide["tiles"], unit_tiles))
    ]


def _committed(draft: Draft) -> set[str]:
    return {name.removesuffix(".json") for name in (draft.place / "commits").names()}


def _embed(work: _Work, units: list[Unit], done: set[str], config: EmbedConfig) -> dict[str, str]:
    """Run the units that are not committed; return the first failure of each slide that has one."""
    errors: dict[str, str] = {}
    todo = [unit for unit in units if unit.unit not in done]
    rows = {unit.unit: unit.rows for unit in units}
    with session(config.run.address), Progress(STEP, sum(rows.values()), "tile") as progress:
        progress.add(sum(unit.rows for unit in units if unit.unit in done))
        for receipt in stream(work, todo, _width(config.run)):
            if receipt.error:
                errors.setdefault(receipt.slide, receipt.error)
            progress.add(rows[receipt.unit], failed=_failed(receipt, rows))
    return errors


def _failed(receipt: Receipt, rows: dict[str, int]) -> int:
    return rows[receipt.unit] if receipt.error else 0


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
    )


def _notes(config: EmbedConfig, tiles: Artifact, digest: str) -> dict[str, Any]:
    return {
        "encoder": config.encoder.model_dump(mode="json"),
        "encoder_digest": digest,
        "precision": config.precision,
        "side": tiles.manifest.notes["side"],
        "pixels": tiles.manifest.notes["pixels"],
        "tiles": tiles.place.uri,
    }


def _finish(
    draft: Draft, slides: list[dict[str, Any]], units: list[Unit], errors: dict[str, str], notes: dict[str, Any]
) -> Artifact:
    files: dict[str, list[str]] = defaultdict(list)
    for unit in units:
        if unit.slide not in errors:
            files[unit.slide].append(unit.unit)
    patients = {s["slide"]: s["patient"] for s in slides if s["slide"] not in errors}
    kept = sum(unit.rows for unit in units if unit.slide not in errors)
    failures: list[dict[str, object]] = [{"slide": s, "stage": STEP, "reason": e} for s, e in sorted(errors.items())]
    notes |= {"units": dict(files), "patients": patients}
    (draft.place / "parts").remove()
    return draft.finish({"slides": len(patients), "tiles": kept}, failures, notes)
