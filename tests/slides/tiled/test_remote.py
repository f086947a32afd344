"""Slides on an object store, read by ranges: the same tiles as from a file, and few more bytes than they need."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from moto.server import ThreadedMotoServer
from PIL import Image

from raystp.errors import StorageError
from raystp.slides.open import open_slide, prefetch_tiles, read_tiles
from raystp.slides.read_cost import read_cost
from raystp.slides.readers.headers import checked_tiff
from raystp.slides.readers.openslide_reader import open_handle, slide_mpp
from raystp.slides.tiled.byte_source import LocalSource, coalesce
from raystp.slides.tiled.levels import find_pyramid
from raystp.slides.tiled.remote_source import HeaderFile
from raystp.slides.tiled.slide import TiledSlide
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels
from tests.slides.tiled.tiled_files import KINDS, sample_image, write

WIDTH, HEIGHT = 1600, 1200


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Start an object store on this machine; give a URI with a slot for the object's name."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        query = f"?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1&allow_bucket_creation=true"
        fs, name = pafs.FileSystem.from_uri(f"s3://slides{query}")
        fs.create_dir(name)
        yield f"s3://slides/{{}}{query}"
    moto.stop()


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("remote") / "a.svs", sample_image(WIDTH, HEIGHT), "aperio_rgb", side=80)


def grid(side: float) -> Float64[np.ndarray, "tile 3"]:
    x, y = np.meshgrid(np.arange(0.0, WIDTH, side), np.arange(0.0, HEIGHT, side))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, side)], axis=1)


@pytest.mark.parametrize(("pixels", "length"), [(80, 80.0), (64, 75.5), (64, 256.0)])
def test_an_object_reads_as_the_file_does(bucket: str, slide_file: Path, pixels: int, length: float) -> None:
    path = StoragePath.of(bucket.format("same.svs"))
    path.write_bytes(slide_file.read_bytes())
    boxes = np.random.default_rng(0).permutation(grid(length))
    with open_slide("A1", path) as remote, open_slide("A1", StoragePath.of(slide_file)) as local:
        assert (remote.reader, remote.mpp, remote.mpp_from) == ("tiled", local.mpp, local.mpp_from)
        tiles = read_tiles(remote, boxes, TilePixels(pixels), threads=2)
        np.testing.assert_array_equal(tiles, read_tiles(local, boxes, TilePixels(pixels)))
        np.testing.assert_array_equal(remote.thumbnail(100), local.thumbnail(100))


def test_what_an_object_takes_is_known_from_opening_it(bucket: str, slide_file: Path) -> None:
    path = StoragePath.of(bucket.format("cost.svs"))
    path.write_bytes(slide_file.read_bytes())
    boxes, pixels = grid(80.0)[:60], TilePixels(80)
    cost = read_cost("A1", path, boxes, pixels, mpp=0.5, file_bytes=path.size())
    with open_slide("A1", path) as slide:
        assert isinstance(slide, TiledSlide)
        opening = slide.fetched()
        assert opening == (cost.opening_bytes, cost.opening_requests)
        prefetch_tiles(slide, boxes, pixels)
        read_tiles(slide, boxes, pixels)
        assert slide.fetched() == (opening[0] + cost.bytes, opening[1] + cost.requests)


def test_processes_of_a_node_share_one_copy_of_an_object_that_is_not_a_tiled_tiff(bucket: str, tmp_path: Path) -> None:
    path, content = StoragePath.of(bucket.format("flat.png")), io.BytesIO()
    pixels = sample_image(120, 90)
    Image.fromarray(pixels).save(content, "png")
    path.write_bytes(content.getvalue())
    cache = NodeCache(tmp_path / "cache", 10_000_000)
    whole = np.array([[0.0, 0.0, 90.0]])
    for _ in range(2):
        with (
            open_slide("A1", path, given_mpp=0.5, cache=cache) as one,
            open_slide("A1", path, given_mpp=0.5, cache=cache) as other,
        ):
            assert one.reader == "flat"
            for slide in (one, other):
                np.testing.assert_array_equal(read_tiles(slide, whole, TilePixels(90))[0], pixels[:, :90])
        (copy,) = (tmp_path / "cache" / "files").iterdir()
        assert copy.read_bytes() == content.getvalue()


@pytest.mark.parametrize(("pixels", "length"), [(80, 80.0), (64, 75.5)])
def test_prefetching_changes_no_pixel_of_prefetched_and_other_tiles(
    bucket: str, slide_file: Path, pixels: int, length: float
) -> None:
    path = StoragePath.of(bucket.format("prefetched.svs"))
    path.write_bytes(slide_file.read_bytes())
    boxes = grid(length)
    with open_slide("A1", path) as remote, open_slide("A1", StoragePath.of(slide_file)) as local:
        truth = read_tiles(local, boxes, TilePixels(pixels))
        for first in (0, 100):  # the second unit is prefetched while the first is still being fetched
            prefetch_tiles(remote, boxes[first : first + 100], TilePixels(pixels))
            prefetch_tiles(local, boxes[first : first + 100], TilePixels(pixels))
            for start in range(first, first + 100, 30):
                span = slice(start, start + 30)
                np.testing.assert_array_equal(read_tiles(remote, boxes[span], TilePixels(pixels)), truth[span])


def test_an_object_that_is_replaced_after_a_prefetch_is_an_error(bucket: str, slide_file: Path) -> None:
    path = StoragePath.of(bucket.format("prefetched2.svs"))
    path.write_bytes(slide_file.read_bytes())
    with open_slide("A1", path) as slide:
        path.write_bytes(slide_file.read_bytes() + b" ")
        prefetch_tiles(slide, grid(80.0), TilePixels(80))
        with pytest.raises(StorageError, match=r"prefetched2\.svs.*replaced"):
            read_tiles(slide, grid(80.0)[:20], TilePixels(80))


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(bucket: str, slide_file: Path) -> None:
    path = StoragePath.of(bucket.format("changing.svs"))
    path.write_bytes(slide_file.read_bytes())
    with open_slide("A1", path) as slide:
        path.write_bytes(slide_file.read_bytes() + b" ")
        with pytest.raises(StorageError, match=r"changing\.svs.*replaced"):
            read_tiles(slide, grid(80.0)[:20], TilePixels(80))


@dataclass
class Counted:
    """A source that counts what is fetched from it."""

    inner: LocalSource
    is_remote: bool = True
    fetched: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def version(self) -> str:
        return self.inner.version

    def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
        self.fetched += [span.count for span in coalesce(offsets, counts)]
        return self.inner.fetch(offsets, counts)

    def close(self) -> None:
        self.inner.close()


byte_ranges = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 300)), max_size=30)


@given(byte_ranges, st.integers(0, 400), st.integers(1, 2000))
def test_every_range_is_whole_in_one_span(ranges: list[tuple[int, int]], gap: int, longest: int) -> None:
    offsets, counts = [offset for offset, _ in ranges], [count for _, count in ranges]
    found = coalesce(offsets, counts, max_gap=gap, max_span=longest)
    assert sorted(number for span in found for number in span.ranges) == list(range(len(ranges)))
    for span in found:
        assert span.count <= max(longest, *(counts[number] for number in span.ranges))
        for number in span.ranges:
            assert span.offset <= offsets[number] <= offsets[number] + counts[number] <= span.offset + span.count


def test_neighbours_are_fetched_together_and_others_are_not() -> None:
    (both, remote) = coalesce([0, 350, 9000], [300, 300, 50], max_gap=64)
    assert (both.offset, both.count, remote.offset, remote.count) == (0, 650, 9000, 50)
    assert [span.count for span in coalesce([0, 100, 200], [100, 100, 100], max_span=250)] == [200, 100]


@settings(deadline=None)  # the same
@given(byte_ranges)
def test_at_most_an_eighth_more_is_fetched_than_requested(ranges: list[tuple[int, int]]) -> None:
    offsets, counts = [offset for offset, _ in ranges], [count for _, count in ranges]
    assert sum(span.count for span in coalesce(offsets, counts)) <= 1.125 * sum(counts)


@settings(deadline=None)  # no test of this machine's speed
@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 2), st.integers(-40, 320), st.integers(-1, 90))))
def test_a_header_file_behaves_like_a_file(content: bytes, reads: list[tuple[int, int, int]]) -> None:
    class Memory:
        size, version, is_remote = len(content), "1", True

        def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
            return [memoryview(content)[o : o + n] for o, n in zip(offsets, counts, strict=True)]

        def close(self) -> None:
            pass

    ours, theirs = HeaderFile(Memory(), block_bytes=16), io.BytesIO(content)
    for whence, offset, size in reads:
        position = max(0, offset + (0, theirs.tell(), len(content))[whence])
        assert ours.seek(offset, whence) == theirs.seek(position) == ours.tell()
        assert ours.read(size) == theirs.read(size)


def test_a_header_is_fetched_in_few_blocks(slide_file: Path) -> None:
    source = Counted(LocalSource("A1", slide_file))
    with checked_tiff("A1", HeaderFile(source)) as pages:
        found = find_pyramid(pages)
    assert found is not None
    assert len(source.fetched) <= 4  # the first and the last block, and two with the directories of other levels
    source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_um_per_px_and_levels_are_openslides(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.tiff", sample_image(333, 207), kind, side=64)
    handle = open_handle("A1", path)
    assert handle is not None
    with handle, checked_tiff("A1", path) as pages:
        found = find_pyramid(pages)
        assert found is not None
        assert found.mpp == pytest.approx(slide_mpp("A1", handle), rel=1e-9)
        assert found.vendor == handle.properties["openslide.vendor"]
        assert [(level.width, level.height) for level in found.levels] == list(handle.level_dimensions)
        assert [level.downsample for level in found.levels] == pytest.approx(handle.level_downsamples, rel=1e-12)


@pytest.mark.parametrize("file", ["CMU-1-Small-Region.svs", "small.svs", "boxes.tiff", "unreadable.svs"])
def test_um_per_px_of_real_files_is_openslides(wsi: Path, file: str) -> None:
    handle = open_handle("A1", wsi / file)
    assert handle is not None
    with handle, checked_tiff("A1", wsi / file) as pages:
        found = find_pyramid(pages)
        assert found is not None
        assert found.mpp == pytest.approx(slide_mpp("A1", handle), rel=1e-6)
