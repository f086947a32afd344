"""One embedding of the tiles by raystp on Ray, by the same units in a plain loop, or by a DataLoader; a process each.

    python bench_embed_runs.py raystp|plain|loader JOB.json

Out come the vectors, in the order of the places, and a note of when how many tiles were done: a unit is done when its
commit record is there, a batch of the DataLoader when it is through the network.
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
from bench_embed_peers import Job, Preprocess, Timed
from torch.utils.data import DataLoader, Dataset

from raystp import tables
from raystp.artifacts import resolve
from raystp.cluster.session import session
from raystp.cluster.streams.tile_actors import EncodeUnit
from raystp.cluster.streams.units import StreamResources, WorkUnit
from raystp.encoders.families import _torchvision
from raystp.encoders.registry import describe
from raystp.steps.embed import step as embed
from raystp.steps.embed.work import EmbedWork, EncoderOutput
from raystp.steps.encoder_source import EncoderConfig, source_of
from raystp.storage import StoragePath

Found = tuple[Any, dict[str, Any]]
"""Vectors, and the note."""


def raystp(job: Job) -> Found:
    """Run `raystp embed` on a Ray that is up already."""
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
    vectors, note = _committed(artifact.path, began)
    return vectors, {**note, "ray_s": began - started}


def plain(job: Job) -> Found:
    """Run the same units through the same reader, encoder and commit, one after the other, with no Ray."""
    target = StoragePath(job["store"]) / "plain"
    tiles = resolve(job["store"], job["tiles"], "tile")
    slides = tiles.table("slides.parquet", tables.SLIDES).to_pylist()
    source = source_of(EncoderConfig(**job["encoder"]), job["store"])
    work = EmbedWork(
        tiles=tiles.path,
        outputs=(EncoderOutput(target, source, describe(source.spec).dim),),
        slides={slide["slide"]: (slide["path"], slide["mpp"], slide["content"]) for slide in slides},
        pixels=int(tiles.manifest.notes["pixels"]),
        precision="float32",
    )
    units = embed.plan_units(slides, job["unit_tiles"])
    width = StreamResources(encoders=1, batch_tiles=job["batch"], threads=1)
    context = multiprocessing.get_context("spawn")
    following = context.Value("i", 0)
    began = time.time()
    arguments = (work, width, units, following)
    processes = [context.Process(target=_units_in_turn, args=arguments) for _ in range(job["actors"])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return _committed(target, began)


def _units_in_turn(work: EmbedWork, width: StreamResources, units: list[WorkUnit], following: Any) -> None:
    """Take a unit that nobody has taken, until there is none."""
    run = EncodeUnit(work, width)
    while True:
        with following.get_lock():
            number = following.value
            following.value += 1
        if number >= len(units):
            return
        (error,) = run({name: np.array([value]) for name, value in asdict(units[number]).items()})["error"]
        if error:
            raise RuntimeError(error)


def _committed(place: StoragePath, began: float) -> Found:
    """Return a folder's vectors in the order of their units, and when each unit was committed."""
    records = sorted((place / "commits").local_path.glob("*.json"))
    rows = [json.loads(record.read_bytes())["rows"] for record in records]
    marks = sorted((record.stat().st_mtime, count) for record, count in zip(records, rows, strict=True))
    files = sorted((place / "embeddings").local_path.glob("*/*.parquet"))
    vectors = np.concatenate([tables.matrix(StoragePath(str(file)).read_table(["vector"])["vector"]) for file in files])
    return vectors, {"began": began, "marks": marks}


class Regions(Dataset[torch.Tensor]):
    """Tiles as everybody reads them: one `read_region` a tile."""

    def __init__(self, job: Job) -> None:
        self._path, self._side, self._prepare = job["slide"], job["side"], Preprocess(job)
        self._places = np.load(job["places"])
        self._slide: Any = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, tile: int) -> torch.Tensor:
        """Return a tile as the network takes it."""
        import openslide  # noqa: PLC0415 -- opened once a worker, as OpenSlide's handles want it

        if self._slide is None:
            self._slide = openslide.OpenSlide(self._path)
        x, y = self._places[tile].tolist()
        return self._prepare(self._slide.read_region((x, y), 0, (self._side, self._side)).convert("RGB"))


def loader(job: Job) -> Found:
    """Run the loop that is written most: Dataset, DataLoader, network."""
    _torchvision.make_importable()
    if job["torch_threads"]:
        torch.set_num_threads(job["torch_threads"])
    network = Timed(job)
    began = time.time()
    with torch.inference_mode():
        batches = DataLoader(Regions(job), batch_size=job["batch"], num_workers=job["workers"])
        vectors = [network(pixels).numpy() for pixels in batches]
    return np.concatenate(vectors), {"began": began, "marks": network.marks}


RUNS: dict[str, Callable[[Job], Found]] = {"raystp": raystp, "plain": plain, "loader": loader}


def main() -> None:
    """Do one run of one job."""
    job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    vectors, note = RUNS[sys.argv[1]](job)
    out = Path(job["out"])
    np.save(out.with_suffix(".npy"), vectors)
    out.with_suffix(".json").write_text(json.dumps(note), encoding="utf-8")


if __name__ == "__main__":
    main()
