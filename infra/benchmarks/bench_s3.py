"""Reading the tissue of a slide in an object store: ranged reads against download-then-read.

The store is moto's server, a process of its own, behind a proxy that lets each request wait 30 ms and counts what goes
over the wire, over a line without a limit and over one of 100 MB/s. The tiles are read as `embed` reads them, 64 at a
time in the order of their table, and a work unit at a time. Moto reads an object anew from its own file for each
range (0.24 s at 100 MB): here it keeps what it has read, and its own time is printed beside the wall clock.
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
    """What one way of reading did."""

    way: str
    line_mb_s: float
    """0: no limit."""
    open_s: float
    seconds: float
    requests: int
    body_bytes: int
    ratio: float
    """Bytes fetched per byte of the stored tiles that are needed."""
    store_s: float
    """The store's own time, summed over requests that it answers side by side."""


@dataclass(frozen=True)
class Scene:
    """What all ways read."""

    place: StoragePath
    squares: Squares
    needed_bytes: int
    port: int
    """The proxy's."""
    latency_s: float
    folder: Path

    def ask(self, bytes_per_s: float) -> dict[str, float]:
        """Set the line, and return what went over it since."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as proxy:
            proxy.request("GET", f"/-/{self.latency_s}/{bytes_per_s}")
            found: dict[str, float] = json.loads(proxy.getresponse().read())
        return found


def main() -> None:
    """Make the slide, start the store, and print what each way takes."""
    options = _options()
    os.environ.update(KEYS)
    with tempfile.TemporaryDirectory(dir=options.folder) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        slide = folder / "bench.svs"
        make_slide(slide, options.side)
        places = squares(options.side)
        count, useful = needed(slide, places)
        place, port = _served(slide, stack)
        scene = Scene(place, places, useful, port, options.latency, folder)
        size = slide.stat().st_size / 1e6
        _say(f"{options.side} x {options.side} px, {size:.0f} MB; {len(places)} tiles of {SIDE} px,")
        share = len(places) / (options.side // SIDE) ** 2
        _say(f"{share:.0%} of the area; {count} stored tiles are needed, {useful / 1e6:.1f} MB")
        rows = _measure(scene, options.turns)
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--side", type=int, default=32_256, help="of the slide, in pixels")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds that each request waits")
    parser.add_argument("--turns", type=int, default=3, help="how often the ways take turns; the median is printed")
    parser.add_argument("--folder", help="where the slide is drawn; by default the folder of temporary files")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _served(slide: Path, stack: contextlib.ExitStack) -> tuple[StoragePath, int]:
    """Start the store and the proxy, put the slide there; return its place behind the proxy, and the proxy's port."""
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
    msg = f"moto's server did not come up within {START_S:.0f} s"
    raise RuntimeError(msg)


@contextlib.contextmanager
def _ranged(scene: Scene) -> Iterator[Slide]:
    with open_slide("bench", scene.place) as slide:
        yield slide


@contextlib.contextmanager
def _downloaded(scene: Scene) -> Iterator[Slide]:
    """Fetch the slide as a node's cache does, anew each time."""
    with tempfile.TemporaryDirectory(dir=scene.folder) as folder:
        cache = NodeCache(Path(folder), 1 << 40)
        with cache.fetch(scene.place) as path, open_slide("bench", StoragePath.of(path)) as slide:
            yield slide


AS_EMBED = "ranges, 64 of an expected unit"
Opening = Callable[[Scene], contextlib.AbstractContextManager[Slide]]
WAYS: dict[str, tuple[Opening, int]] = {
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
        _say(f"\nline: {words}, {scene.latency_s * 1e3:.0f} ms a request")
        _say(f"  {'':<34}{'opened s':>9}{'all s':>8}{'spread':>14}{'requests':>10}{'MB':>8}{'ratio':>8}{'store s':>9}")
        found: dict[str, list[Row]] = {way: [] for way in WAYS}
        for _ in range(turns):
            for way in WAYS:
                found[way].append(_run(way, scene, line))
        for ran in found.values():
            ran.sort(key=lambda row: row.seconds)
            rows.append(ran[len(ran) // 2])
            _say_row(rows[-1], ran[0].seconds, ran[-1].seconds)
    return rows


def _run(way: str, scene: Scene, line: float) -> Row:
    opening, step = WAYS[way]
    scene.ask(line)
    array = np.empty((step, SIDE, SIDE, 3), np.uint8)
    began = time.monotonic()
    with opening(scene) as slide:
        opened = time.monotonic()
        for first in range(0, len(scene.squares), step):
            span = scene.squares[first : first + step]
            if way == AS_EMBED and first % UNIT == 0:
                prefetch_tiles(slide, scene.squares[first : first + UNIT], SIDE)
            read_tiles(slide, span, SIDE, into=array[: len(span)])
        ended = time.monotonic()
    told = scene.ask(line)
    return Row(
        way,
        line / 1e6,
        opened - began,
        ended - began,
        int(told["requests"]),
        int(told["body_bytes"]),
        told["body_bytes"] / scene.needed_bytes,
        told["store_s"],
    )


def _say_row(row: Row, least: float, most: float) -> None:
    missed = ", MISSED" if row.way.startswith("ranges") and row.ratio > GOAL else ""
    spread = f"{least:.2f}-{most:.2f}"
    _say(
        f"  {row.way:<34}{row.open_s:>9.2f}{row.seconds:>8.2f}{spread:>14}{row.requests:>10}"
        f"{row.body_bytes / 1e6:>8.1f}{row.ratio:>8.3f}{row.store_s:>9.2f}{missed}"
    )


if __name__ == "__main__":
    main()
