"""Read the tissue of a slide in an object store: range reads compared with a download first.

The store is moto's server in its own process, behind a proxy that delays each request by 30 ms and counts the bytes,
without a bandwidth limit and with 100 MB/s. The tiles are read as `embed` reads them, 64 at a time in the order of
their table, and a work unit at a time. Moto reads the whole object from a file for each range (0.24 s for 100 MB); here
it keeps the object in memory, and the store's own time is printed beside the wall clock.
"""

import argparse
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import boto3
import numpy as np
from bench_s3_slide import make_slide, needed, squares
from jaxtyping import Float64

from raystp.slides.open import Slide, open_slide, prefetch_tiles, read_tiles
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels

HERE = Path(__file__).parent
SIDE = TilePixels(224)
BATCH, UNIT = 64, 2048
GOAL = 1.15
FAST, LINE = 0.0, 100e6
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
START_S = 60.0
MOTO = """
import sys
from moto.s3.models import FakeKey
from moto.server import main
read, kept = FakeKey.value.fget, {}
def value(key):
    found = kept.get(id(key))
    if found is None or found[0] != key.etag:
        kept[id(key)] = found = (key.etag, read(key))
    return found[1]
FakeKey.value = property(value, FakeKey.value.fset)
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""

Squares = Float64[np.ndarray, "tile 3"]


@dataclass(frozen=True)
class Row:
    """Figures of one method of reading."""

    method: str
    line_mb_s: float
    """0 for no limit."""
    open_s: float
    seconds: float
    requests: int
    body_bytes: int
    ratio: float
    """Bytes fetched for each byte of the stored tiles that are needed."""
    store_s: float
    """The store's own time, summed over parallel requests."""


@dataclass(frozen=True)
class Scene:
    """The input of all methods."""

    path: StoragePath
    squares: Squares
    needed_bytes: int
    port: int
    """The proxy's."""
    latency_s: float
    folder: Path

    def reset(self, bytes_per_s: float) -> dict[str, float]:
        """Set the bandwidth; return the counts since the last call."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as proxy:
            proxy.request("GET", f"/-/{self.latency_s}/{bytes_per_s}")
            found: dict[str, float] = json.loads(proxy.getresponse().read())
        return found


def main() -> None:
    """Make the slide, start the store, and print the figures of each method."""
    options = _options()
    os.environ.update(KEYS)
    with tempfile.TemporaryDirectory(dir=options.folder) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        slide = folder / "bench.svs"
        make_slide(slide, options.side)
        tiles = squares(options.side)
        count, useful = needed(slide, tiles)
        path, port = _served(slide, stack)
        scene = Scene(path, tiles, useful, port, options.latency, folder)
        size = slide.stat().st_size / 1e6
        _print(f"{options.side} x {options.side} px, {size:.0f} MB; {len(tiles)} tiles of {SIDE} px,")
        share = len(tiles) / (options.side // SIDE) ** 2
        _print(f"{share:.0%} of the area; {count} stored tiles are needed, {useful / 1e6:.1f} MB")
        rows = _measure(scene, options.turns)
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--side", type=int, default=32_256, help="side of the slide, in pixels")
    parser.add_argument("--latency", type=float, default=0.03, help="delay of each request, in seconds")
    parser.add_argument("--turns", type=int, default=3, help="runs of each method, in turn; the median is printed")
    parser.add_argument("--folder", help="folder for the slide; default: the folder of temporary files")
    return parser.parse_args()


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _served(slide: Path, stack: contextlib.ExitStack) -> tuple[StoragePath, int]:
    """Start the store and the proxy, upload the slide; return its path through the proxy, and the proxy's port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", MOTO, str(port)]
    stack.enter_context(_running(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
    _wait(port)
    store = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    store.create_bucket(Bucket="bench")
    store.put_object(Bucket="bench", Key=slide.name, Body=slide.read_bytes())
    command = [sys.executable, str(HERE / "bench_s3_proxy.py"), str(port)]
    proxy = stack.enter_context(_running(command, stdout=subprocess.PIPE))
    assert proxy.stdout is not None
    own = int(proxy.stdout.readline())
    query = f"scheme=http&endpoint_override=127.0.0.1:{own}&region=us-east-1"
    return StoragePath.of(f"s3://bench/{slide.name}?{query}"), own


@contextlib.contextmanager
def _running(command: list[str], **options: int) -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen(command, **options)  # type: ignore[call-overload]  # pipes or nothing
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    msg = f"moto's server did not start within {START_S:.0f} s"
    raise RuntimeError(msg)


@contextlib.contextmanager
def _ranged(scene: Scene) -> Iterator[Slide]:
    with open_slide("bench", scene.path) as slide:
        yield slide


@contextlib.contextmanager
def _downloaded(scene: Scene) -> Iterator[Slide]:
    """Download the slide into an empty node cache."""
    with tempfile.TemporaryDirectory(dir=scene.folder) as folder:
        cache = NodeCache(Path(folder), 1 << 40)
        with cache.fetch(scene.path) as path, open_slide("bench", StoragePath.of(path)) as slide:
            yield slide


AS_EMBED = "ranges, 64 of an expected unit"
Opening = Callable[[Scene], contextlib.AbstractContextManager[Slide]]
METHODS: dict[str, tuple[Opening, int]] = {
    AS_EMBED: (_ranged, BATCH),
    "ranges, 64 tiles at a time": (_ranged, BATCH),
    "ranges, a unit at a time": (_ranged, UNIT),
    "download, then 64 at a time": (_downloaded, BATCH),
    "download, then a unit at a time": (_downloaded, UNIT),
}


def _measure(scene: Scene, turns: int) -> list[Row]:
    rows = []
    for line in (FAST, LINE):
        words = f"{line / 1e6:.0f} MB/s" if line else "no limit"
        _print(f"\nline: {words}, {scene.latency_s * 1e3:.0f} ms a request")
        _print(
            f"  {'':<34}{'opened s':>9}{'all s':>8}{'spread':>14}{'requests':>10}{'MB':>8}{'ratio':>8}{'store s':>9}"
        )
        found: dict[str, list[Row]] = {method: [] for method in METHODS}
        for _ in range(turns):
            for method in METHODS:
                found[method].append(_run(method, scene, line))
        for ran in found.values():
            ran.sort(key=lambda row: row.seconds)
            rows.append(ran[len(ran) // 2])
            _print_row(rows[-1], ran[0].seconds, ran[-1].seconds)
    return rows


def _run(method: str, scene: Scene, line: float) -> Row:
    opening, step = METHODS[method]
    scene.reset(line)
    array = np.empty((step, SIDE, SIDE, 3), np.uint8)
    began = time.monotonic()
    with opening(scene) as slide:
        opened = time.monotonic()
        for first in range(0, len(scene.squares), step):
            span = scene.squares[first : first + step]
            if method == AS_EMBED and first % UNIT == 0:
                prefetch_tiles(slide, scene.squares[first : first + UNIT], SIDE)
            read_tiles(slide, span, SIDE, into=array[: len(span)])
        ended = time.monotonic()
    counts = scene.reset(line)
    return Row(
        method,
        line / 1e6,
        opened - began,
        ended - began,
        int(counts["requests"]),
        int(counts["body_bytes"]),
        counts["body_bytes"] / scene.needed_bytes,
        counts["store_s"],
    )


def _print_row(row: Row, least: float, most: float) -> None:
    missed = ", MISSED" if row.method.startswith("ranges") and row.ratio > GOAL else ""
    spread = f"{least:.2f}-{most:.2f}"
    _print(
        f"  {row.method:<34}{row.open_s:>9.2f}{row.seconds:>8.2f}{spread:>14}{row.requests:>10}"
        f"{row.body_bytes / 1e6:>8.1f}{row.ratio:>8.3f}{row.store_s:>9.2f}{missed}"
    )


if __name__ == "__main__":
    main()
