"""Slides on an object store, read by ranges: the same tiles as from a file, and no more bytes than they lie in."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float64
from moto.server import ThreadedMotoServer
from PIL import Image

from raystp.errors import StorageError
from raystp.slides.open import expect_tiles, open_slide, read_tiles
from raystp.slides.readers.headers import checked_tiff
from raystp.slides.readers.openslide_reader import open_handle, own_mpp
from raystp.slides.tiled.levels import pyramid
from raystp.slides.tiled.remote import BlockFile
from raystp.slides.tiled.sources import LocalSource, spans
from raystp.storage import StoragePath
from raystp.storage.node_cache import NodeCache
from raystp.units import TilePixels
from tests.slides.tiled.tiled_files import KINDS, picture, write

WIDTH, HEIGHT = 1600, 1200


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An object store on this machine, spoken to over HTTP; a URI's two ends around the object's name."""
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
    return write(tmp_path_factory.mktemp("remote") / "a.svs", picture(WIDTH, HEIGHT), "aperio_rgb", side=80)


def grid(side: float) -> Float64[np.ndarray, "tile 3"]:
    x, y = np.meshgrid(np.arange(0.0, WIDTH, side), np.arange(0.0, HEIGHT, side))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, side)], axis=1)


@pytest.mark.parametrize(("pixels", "length"), [(80, 80.0), (64, 75.5), (64, 256.0)])
def test_an_object_reads_as_the_file_does(bucket: str, slide_file: Path, pixels: int, length: float) -> None:
    place = StoragePath.of(bucket.format("same.svs"))
    place.write_bytes(slide_file.read_bytes())
    squares = np.random.default_rng(0).permutation(grid(length))
    with open_slide("A1", place) as far, open_slide("A1", StoragePath.of(slide_file)) as here:
        assert (far.reader, far.mpp, far.mpp_from) == ("tiled", here.mpp, here.mpp_from)
        tiles = read_tiles(far, squares, TilePixels(pixels), threads=2)
        np.testing.assert_array_equal(tiles, read_tiles(here, squares, TilePixels(pixels)))
        np.testing.assert_array_equal(far.thumbnail(100), here.thumbnail(100))


def test_processes_of_a_node_share_one_copy_of_an_object_that_is_no_tiled_tiff(bucket: str, tmp_path: Path) -> None:
    place, content = StoragePath.of(bucket.format("flat.png")), io.BytesIO()
    pixels = picture(120, 90)
    Image.fromarray(pixels).save(content, "png")
    place.write_bytes(content.getvalue())
    cache = NodeCache(tmp_path / "cache", 10_000_000)
    whole = np.array([[0.0, 0.0, 90.0]])
    for _ in range(2):
        with (
            open_slide("A1", place, given_mpp=0.5, cache=cache) as one,
            open_slide("A1", place, given_mpp=0.5, cache=cache) as other,
        ):
            assert one.reader == "flat"
            for slide in (one, other):
                np.testing.assert_array_equal(read_tiles(slide, whole, TilePixels(90))[0], pixels[:, :90])
        (copy,) = (tmp_path / "cache" / "files").iterdir()
        assert copy.read_bytes() == content.getvalue()


@pytest.mark.parametrize(("pixels", "length"), [(80, 80.0), (64, 75.5)])
def test_expecting_tiles_changes_neither_a_pixel_nor_what_is_not_expected(
    bucket: str, slide_file: Path, pixels: int, length: float
) -> None:
    place = StoragePath.of(bucket.format("expected.svs"))
    place.write_bytes(slide_file.read_bytes())
    squares = grid(length)
    with open_slide("A1", place) as far, open_slide("A1", StoragePath.of(slide_file)) as here:
        truth = read_tiles(here, squares, TilePixels(pixels))
        for first in (0, 100):  # the second unit is expected while the first is still on its way
            expect_tiles(far, squares[first : first + 100], TilePixels(pixels))
            expect_tiles(here, squares[first : first + 100], TilePixels(pixels))
            for start in range(first, first + 100, 30):
                span = slice(start, start + 30)
                np.testing.assert_array_equal(read_tiles(far, squares[span], TilePixels(pixels)), truth[span])


def test_an_object_that_is_replaced_after_it_was_expected_is_an_error(bucket: str, slide_file: Path) -> None:
    place = StoragePath.of(bucket.format("expected2.svs"))
    place.write_bytes(slide_file.read_bytes())
    with open_slide("A1", place) as slide:
        place.write_bytes(slide_file.read_bytes() + b" ")
        expect_tiles(slide, grid(80.0), TilePixels(80))
        with pytest.raises(StorageError, match=r"expected2\.svs.*replaced"):
            read_tiles(slide, grid(80.0)[:20], TilePixels(80))


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(bucket: str, slide_file: Path) -> None:
    place = StoragePath.of(bucket.format("changing.svs"))
    place.write_bytes(slide_file.read_bytes())
    with open_slide("A1", place) as slide:
        place.write_bytes(slide_file.read_bytes() + b" ")
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
        self.fetched += [span.count for span in spans(offsets, counts)]
        return self.inner.fetch(offsets, counts)

    def close(self) -> None:
        self.inner.close()


stretches = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 300)), max_size=30)


@given(stretches, st.integers(0, 400), st.integers(1, 2000))
def test_every_stretch_lies_whole_in_one_span(parts: list[tuple[int, int]], gap: int, longest: int) -> None:
    offsets, counts = [offset for offset, _ in parts], [count for _, count in parts]
    found = spans(offsets, counts, gap=gap, longest=longest)
    assert sorted(number for span in found for number in span.stretches) == list(range(len(parts)))
    for span in found:
        assert span.count <= max(longest, *(counts[number] for number in span.stretches))
        for number in span.stretches:
            assert span.offset <= offsets[number] <= offsets[number] + counts[number] <= span.offset + span.count


def test_neighbours_are_fetched_together_and_others_are_not() -> None:
    (both, far) = spans([0, 350, 9000], [300, 300, 50], gap=64)
    assert (both.offset, both.count, far.offset, far.count) == (0, 650, 9000, 50)
    assert [span.count for span in spans([0, 100, 200], [100, 100, 100], longest=250)] == [200, 100]


@given(stretches)
def test_no_more_is_fetched_than_an_eighth_above_what_is_wanted(parts: list[tuple[int, int]]) -> None:
    offsets, counts = [offset for offset, _ in parts], [count for _, count in parts]
    assert sum(span.count for span in spans(offsets, counts)) <= 1.125 * sum(counts)


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 2), st.integers(-40, 320), st.integers(-1, 90))))
def test_a_block_file_is_a_file(content: bytes, reads: list[tuple[int, int, int]]) -> None:
    class Memory:
        size, version, is_remote = len(content), "1", True

        def fetch(self, offsets: Sequence[int], counts: Sequence[int]) -> list[memoryview]:
            return [memoryview(content)[o : o + n] for o, n in zip(offsets, counts, strict=True)]

        def close(self) -> None:
            pass

    ours, theirs = BlockFile(Memory(), block=16), io.BytesIO(content)
    for whence, offset, size in reads:
        place = max(0, offset + (0, theirs.tell(), len(content))[whence])
        assert ours.seek(offset, whence) == theirs.seek(place) == ours.tell()
        assert ours.read(size) == theirs.read(size)


def test_a_header_is_fetched_in_few_blocks(slide_file: Path) -> None:
    source = Counted(LocalSource("A1", slide_file))
    with checked_tiff("A1", BlockFile(source)) as pages:
        seen = pyramid(pages)
    assert seen is not None
    assert len(source.fetched) <= 4  # the first and the last block, and two in which other levels' directories lie
    source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_um_per_px_and_levels_are_openslides(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.tiff", picture(333, 207), kind, side=64)
    handle = open_handle("A1", path)
    assert handle is not None
    with handle, checked_tiff("A1", path) as pages:
        seen = pyramid(pages)
        assert seen is not None
        assert seen.mpp == pytest.approx(own_mpp("A1", handle), rel=1e-9)
        assert seen.vendor == handle.properties["openslide.vendor"]
        assert [(level.width, level.height) for level in seen.levels] == list(handle.level_dimensions)
        assert [level.downsample for level in seen.levels] == pytest.approx(handle.level_downsamples, rel=1e-12)


@pytest.mark.parametrize("file", ["CMU-1-Small-Region.svs", "small.svs", "boxes.tiff", "unreadable.svs"])
def test_um_per_px_of_real_files_is_openslides(wsi: Path, file: str) -> None:
    handle = open_handle("A1", wsi / file)
    assert handle is not None
    with handle, checked_tiff("A1", wsi / file) as pages:
        seen = pyramid(pages)
        assert seen is not None
        assert seen.mpp == pytest.approx(own_mpp("A1", handle), rel=1e-6)
