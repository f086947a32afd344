"""A simulated artifact of `tile`: a slides table and the tiles of each slide, as the step writes them to a store."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.storage import StoragePath

SLIDES, TILES = 28_664, 295_300_000
"""Of the largest published cohort of predicted maps."""
SPREAD = 0.6
"""Standard deviation of the logarithm of a slide's tiles."""
SIDE, TILE_PX = 224.0, 224
THREADS = 8


def tile_counts(slides: int, seed: int) -> list[int]:
    """Return the tiles of each slide: log-normal, with the published mean; equal for the first slides of any number."""
    drawn = np.random.default_rng(seed).lognormal(0.0, SPREAD, slides)
    mean = float(np.exp(SPREAD**2 / 2))
    return [max(1, round(one * TILES / SLIDES / mean)) for one in drawn.tolist()]


def make_tiles(store: StoragePath, slides: int, seed: int, *, with_tables: bool = True) -> Artifact:
    """Write the artifact `tile/simulated`; the driver of `embed` reads no table of tiles."""
    counts = tile_counts(slides, seed)
    writer = ArtifactWriter(store / "tile" / "simulated-000000000000", "tile", "simulated", "0" * 12, {}, {})
    names = [f"slide-{number:05d}" for number in range(slides)]

    def write(name: str, count: int) -> None:
        (writer.path / "tiles" / f"{name}.parquet").write_table(_tiles(name, count))

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(write, names if with_tables else (), counts):
            pass
    rows = [
        {
            "slide": name,
            "path": f"/slides/{name}.svs",
            "patient": f"P{number // 3:05d}",
            "content": name,
            "mpp": 0.5,
            "mpp_from": "slide",
            "width": 100_000,
            "height": 80_000,
            "native": True,
            "tissue": 0.3,
            "tiles": count,
        }
        for number, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    (writer.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    return writer.finish({"slides": slides, "tiles": sum(counts)}, [], {"pixels": TILE_PX, "side": SIDE / 2})


def _tiles(name: str, count: int) -> pa.Table:
    """Return a slide's tiles, in rows of a square."""
    number = np.arange(count)
    width = int(np.ceil(np.sqrt(count)))
    columns = {
        "slide": pa.repeat(name, count),
        "tile": number,
        "x": SIDE * (number % width),
        "y": SIDE * (number // width),
        "side": np.full(count, SIDE),
        "spot": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=tables.TILES)


def signature(unit: str) -> tuple[int, int]:
    """Return two numbers below 2^16 that tell a unit's vectors from those of another."""
    digest = hashlib.sha256(unit.encode()).digest()
    return int.from_bytes(digest[:2], "big"), int.from_bytes(digest[2:4], "big")
