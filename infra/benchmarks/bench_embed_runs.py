"""Embed tiles with raystp on Ray, with the same units in a plain loop, or with a DataLoader; each in its own process.

    python bench_embed_runs.py raystp|by_ray_data|plain|loader|batches|loader_batches|parts JOB.json

`raystp` runs units as on one machine; `by_ray_data` by the actors of Ray Data, as on a cluster.

`batches` and `loader_batches` read and normalise the same batches without a network, with raystp's reader and with the
DataLoader; their vectors are a few pixels of each tile. `parts` measures the parts of a tile's time.

Write the vectors, in the order of the tiles, and the times at which tiles were finished. A unit is finished when its
commit record exists, a batch of the DataLoader when it has passed the network.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from bench_embed_parts import measure_parts
from bench_embed_peers import Job, Preprocess, TimedNetwork
from torch.utils.data import DataLoader, Dataset

from raystp import tables
from raystp.artifacts import resolve
from raystp.cluster.session import session
from raystp.cluster.streams import tiles as tile_stream
from raystp.cluster.streams.tile_actors import EncodeUnit
from raystp.cluster.streams.units import Encoded, Pixels, StreamResources, WorkUnit
from raystp.encoders.batches import DEFAULT_BATCH
from raystp.encoders.families import _torchvision
from raystp.encoders.normalise import PixelNormaliser
from raystp.encoders.registry import describe
from raystp.steps.embed import step as embed
from raystp.steps.embed.outputs import EncoderOutput
from raystp.steps.embed.reader import SlideTiles
from raystp.steps.embed.work import EmbedWork
from raystp.steps.encoder_source import source_of
from raystp.steps.input_config import EncoderConfig
from raystp.storage import StoragePath
from raystp.units import TilePixels

Result = tuple[Any, dict[str, Any]]
"""Vectors, and times."""

SAMPLED, SAMPLED_DIM = 56, 48
"""Without a network, every 56th row and column of a tile of 224 px is stored: 4 x 4 pixels of 3 colours."""


def raystp(job: Job) -> Result:
    """Run `raystp embed` on a running Ray."""
    config = embed.CONFIG.of(
        {
            "tiles": job["tiles"],
            "encoder": job["encoder"],
            "unit_tiles": job["unit_tiles"],
            "run": {"store": job["store"], "encoders": job["actors"], "batch_tiles": job["batch"]},
        }
    )
    started = time.time()
    with session():
        began = time.time()
        artifact = embed.run(config)
    vectors, times = _committed(artifact.path, began)
    return vectors, {**times, "ray_s": began - started}


def by_ray_data(job: Job) -> Result:
    """Run `raystp embed` by actors of Ray Data."""
    with patch.object(tile_stream, "suits_tasks", return_value=False):
        return raystp(job)


def plain(job: Job) -> Result:
    """Run the same units with the same reader, encoder and commit, one after the other, without Ray."""
    return _plain(job, EmbedWork)


def batches(job: Job) -> Result:
    """Read and normalise the same units, and store some pixels of each tile; as `plain`, without a network."""
    return _plain(job, SampleWork)


@dataclass(frozen=True)
class SampleWork(EmbedWork):
    """The work on a unit without a network."""

    def make_encoder(self) -> Callable[[Pixels], Encoded]:
        """Build a function that normalises tiles, and returns some pixels of each."""
        encoder = self.outputs[0].source.build()
        options: dict[str, Any] = {"side": encoder.tile_px, "device": torch.device("cpu")}
        normalise = PixelNormaliser(encoder.mean, encoder.std, capacity=DEFAULT_BATCH, **options)

        def encode(tiles: Pixels) -> Encoded:
            parts = [normalise(tiles[at : at + DEFAULT_BATCH]) for at in range(0, len(tiles), DEFAULT_BATCH)]
            return (np.concatenate([_sampled(part) for part in parts]),)

        return encode


def _sampled(pixels: torch.Tensor) -> np.ndarray:
    """Return 48 numbers of each normalised tile."""
    return pixels[:, :, ::SAMPLED, ::SAMPLED].flatten(1).numpy().copy()


def parts(job: Job) -> Result:
    """Measure the parts of a tile's time."""
    work, units = _work(job, EmbedWork)
    return np.empty((0, 0), np.float32), {
        "began": 0.0,
        "progress": [],
        "parts": measure_parts(work, units, job["batch"]),
    }


def _work(job: Job, kind: type[EmbedWork]) -> tuple[EmbedWork, list[WorkUnit]]:
    target = StoragePath(job["store"]) / "plain"
    tiles = resolve(job["store"], job["tiles"], "tile")
    slides = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    source = source_of(EncoderConfig(**job["encoder"]), job["store"])
    dim = describe(source.spec).dim if kind is EmbedWork else SAMPLED_DIM
    work = kind(
        tiles=tiles.path,
        outputs=(EncoderOutput(target, source, dim),),
        slides={slide["slide"]: SlideTiles(slide["path"], slide["mpp"], slide["content"]) for slide in slides},
        tile_px=TilePixels(int(tiles.manifest.notes["pixels"])),
        precision="float32",
    )
    return work, embed.plan_units({slide["slide"]: slide["tiles"] for slide in slides}, job["unit_tiles"])


def _plain(job: Job, kind: type[EmbedWork]) -> Result:
    work, units = _work(job, kind)
    resources = StreamResources(encoders=1, batch_tiles=job["batch"], threads=1)
    context = multiprocessing.get_context("spawn")
    next_unit = context.Value("i", 0)
    began = time.time()
    arguments = (work, resources, units, next_unit)
    processes = [context.Process(target=_units_in_turn, args=arguments) for _ in range(job["actors"])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        msg = f"processes of the plain loop ended with {[process.exitcode for process in processes]}"
        raise RuntimeError(msg)
    return _committed(work.outputs[0].path, began)


def _units_in_turn(work: EmbedWork, resources: StreamResources, units: list[WorkUnit], next_unit: Any) -> None:
    """Take the next free unit until none is left."""
    run = EncodeUnit(work, resources)
    while True:
        with next_unit.get_lock():
            number = next_unit.value
            next_unit.value += 1
        if number >= len(units):
            return
        (error,) = run({name: np.array([value]) for name, value in asdict(units[number]).items()})["error"]
        if error:
            raise RuntimeError(error)


def _committed(folder: StoragePath, began: float) -> Result:
    """Return a folder's vectors in the order of the units, and the times of the commits."""
    records = sorted((folder / "commits").local_path.glob("*.json"))
    rows = [json.loads(record.read_bytes())["rows"] for record in records]
    progress = sorted((record.stat().st_mtime, count) for record, count in zip(records, rows, strict=True))
    files = sorted((folder / "embeddings").local_path.glob("*/*.parquet"))
    vectors = np.concatenate([tables.matrix(StoragePath(str(file)).read_table(["vector"])["vector"]) for file in files])
    return vectors, {"began": began, "progress": progress}


class Regions(Dataset[torch.Tensor]):
    """Tiles read in the usual manner: one `read_region` per tile."""

    def __init__(self, job: Job) -> None:
        self._path, self._side, self._prepare = job["slide"], job["side"], Preprocess(job)
        self._corners = np.load(job["corners"])
        self._slide: Any = None

    def __len__(self) -> int:
        return len(self._corners)

    def __getitem__(self, tile: int) -> torch.Tensor:
        """Return a tile as the network's input."""
        import openslide  # noqa: PLC0415 -- opened once per worker

        if self._slide is None:
            self._slide = openslide.OpenSlide(self._path)
        x, y = self._corners[tile].tolist()
        return self._prepare(self._slide.read_region((x, y), 0, (self._side, self._side)).convert("RGB"))


def loader(job: Job) -> Result:
    """Run the usual loop: Dataset, DataLoader, network."""
    return _loader(job, TimedNetwork(job))


class Samples(TimedNetwork):
    """In the place of a network: some pixels of each tile."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return 48 numbers of each tile."""
        self.progress.append((time.time(), len(pixels)))
        return torch.from_numpy(_sampled(pixels))


def loader_batches(job: Job) -> Result:
    """Run the usual loop without a network."""
    return _loader(job, Samples(job))


def _loader(job: Job, network: TimedNetwork) -> Result:
    _torchvision.make_importable()
    if job["torch_threads"]:
        torch.set_num_threads(job["torch_threads"])
    began = time.time()
    with torch.inference_mode():
        read = DataLoader(Regions(job), batch_size=job["batch"], num_workers=job["workers"])
        vectors = [network(pixels).numpy() for pixels in read]
    return np.concatenate(vectors), {"began": began, "progress": network.progress}


RUNS: dict[str, Callable[[Job], Result]] = {
    one.__name__: one for one in (raystp, by_ray_data, plain, loader, batches, loader_batches, parts)
}


def main() -> None:
    """Do one run of one job."""
    job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    vectors, times = RUNS[sys.argv[1]](job)
    out = Path(job["out"])
    np.save(out.with_suffix(".npy"), vectors)
    out.with_suffix(".json").write_text(json.dumps(times), encoding="utf-8")


if __name__ == "__main__":
    main()
