"""Embed tiles with raystp on Ray, with the same units in a plain loop, or with a DataLoader; each in its own process.

    python bench_embed_runs.py raystp|plain|loader JOB.json

Write the vectors, in the order of the tiles, and the times at which tiles were finished. A unit is finished when its
commit record exists, a batch of the DataLoader when it has passed the network.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_embed_peers import Job, Preprocess, TimedNetwork
from torch.utils.data import DataLoader, Dataset

from raystp import tables
from raystp.artifacts import resolve
from raystp.cluster.session import session
from raystp.cluster.streams.tile_actors import EncodeUnit
from raystp.cluster.streams.units import StreamResources, WorkUnit
from raystp.encoders.families import _torchvision
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


def plain(job: Job) -> Result:
    """Run the same units with the same reader, encoder and commit, one after the other, without Ray."""
    target = StoragePath(job["store"]) / "plain"
    tiles = resolve(job["store"], job["tiles"], "tile")
    slides = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    source = source_of(EncoderConfig(**job["encoder"]), job["store"])
    work = EmbedWork(
        tiles=tiles.path,
        outputs=(EncoderOutput(target, source, describe(source.spec).dim),),
        slides={slide["slide"]: SlideTiles(slide["path"], slide["mpp"], slide["content"]) for slide in slides},
        tile_px=TilePixels(int(tiles.manifest.notes["pixels"])),
        precision="float32",
    )
    units = embed.plan_units({slide["slide"]: slide["tiles"] for slide in slides}, job["unit_tiles"])
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
    return _committed(target, began)


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
    _torchvision.make_importable()
    if job["torch_threads"]:
        torch.set_num_threads(job["torch_threads"])
    network = TimedNetwork(job)
    began = time.time()
    with torch.inference_mode():
        batches = DataLoader(Regions(job), batch_size=job["batch"], num_workers=job["workers"])
        vectors = [network(pixels).numpy() for pixels in batches]
    return np.concatenate(vectors), {"began": began, "progress": network.progress}


RUNS: dict[str, Callable[[Job], Result]] = {"raystp": raystp, "plain": plain, "loader": loader}


def main() -> None:
    """Do one run of one job."""
    job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    vectors, times = RUNS[sys.argv[1]](job)
    out = Path(job["out"])
    np.save(out.with_suffix(".npy"), vectors)
    out.with_suffix(".json").write_text(json.dumps(times), encoding="utf-8")


if __name__ == "__main__":
    main()
