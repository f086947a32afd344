import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide
from raystp.storage import StoragePath
from raystp.storage.local_file import LocalFile
from raystp.storage.objects import StoredObject
from raystp.storage.retry import RETRY_POLICY, RetryPolicy
from raystp.units import Level0Pixels, TilePixels

Rgb = UInt8[np.ndarray, "row col 3"]
Pyramid = Callable[..., Path]


def corner(slide: Slide, side: int) -> Rgb:
    return slide.read(Level0Pixels(0.0), Level0Pixels(0.0), Level0Pixels(float(side)), TilePixels(side))


def test_the_tables_mpp_comes_before_the_slides_and_that_before_the_spots(
    pyramid: Pyramid, tmp_path: Path, numbers: Rgb
) -> None:
    path = StoragePath.of(pyramid(tmp_path / "a.tiff", numbers))
    with open_slide("A1", path, given_mpp=0.7, derived_mpp=0.6) as slide:
        assert (slide.mpp, slide.mpp_from) == (0.7, "table")
    with open_slide("A1", path, derived_mpp=0.6) as slide:
        assert slide.mpp == pytest.approx(0.5, rel=1e-6)
        assert slide.mpp_from == "slide"


def test_an_images_dpi_is_never_its_mpp(tmp_path: Path, numbers: Rgb) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(numbers).save(path, dpi=(25_400, 25_400))  # as if 1 um/px
    with open_slide("A1", StoragePath.of(path), derived_mpp=0.6) as slide:
        assert (slide.mpp, slide.mpp_from) == (0.6, "spots")
    with pytest.raises(SlideError, match=r"'A1' .*a\.png.*no um/px.*column `mpp` of the slide table"):
        open_slide("A1", StoragePath.of(path))


@pytest.mark.parametrize("mpp", [0.0, -0.5, float("nan"), float("inf"), 0.01, 352.8])
def test_an_implausible_mpp_is_refused_from_any_source(tmp_path: Path, numbers: Rgb, mpp: float) -> None:
    Image.fromarray(numbers).save(tmp_path / "a.png")
    path = StoragePath.of(tmp_path / "a.png")
    with pytest.raises(SlideError, match=f"slide table gives {mpp:g} um/px"):
        open_slide("A1", path, given_mpp=mpp)
    with pytest.raises(SlideError, match=f"spots' pitch gives {mpp:g} um/px"):
        open_slide("A1", path, derived_mpp=mpp)


def test_pixels_that_are_not_square_are_refused_unless_one_mpp_is_given(
    pyramid: Pyramid, tmp_path: Path, numbers: Rgb
) -> None:
    oblong = StoragePath.of(pyramid(tmp_path / "oblong.tiff", numbers, (0.5, 0.51)))
    with pytest.raises(SlideError, match=r"0\.5 um/px along x and 0\.51 along y"):
        open_slide("A1", oblong, derived_mpp=0.5)
    with open_slide("A1", oblong, given_mpp=0.5) as slide:
        assert slide.mpp == 0.5
    with open_slide("A1", StoragePath.of(pyramid(tmp_path / "square.tiff", numbers, (0.5, 0.503)))) as slide:
        assert slide.mpp == pytest.approx(0.5015, rel=1e-5)


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("CMU-1-Small-Region.svs", (2220, 2967)),
        ("small.svs", (16, 16)),
        ("boxes_0.dcm", (16, 16)),
        ("boxes_1.dcm", (16, 16)),
    ],
)
def test_real_formats_open_with_their_own_mpp(wsi: Path, file: str, size: tuple[int, int]) -> None:
    with open_slide("A1", StoragePath.of(wsi / file)) as slide:
        assert isinstance(slide, Slide)
        assert (slide.width, slide.height, slide.mpp, slide.mpp_from) == (*size, 0.499, "slide")
        assert corner(slide, 16).std() > 0
        assert max(slide.thumbnail(256).shape) == min(256, max(size))


def test_a_dpi_tag_that_claims_352_um_per_px_is_refused_and_can_be_replaced(wsi: Path) -> None:
    path = StoragePath.of(wsi / "boxes.tiff")
    with pytest.raises(SlideError, match=r"boxes\.tiff.*gives 352\.778 um/px.*column `mpp`"):
        open_slide("A1", path)
    with open_slide("A1", path, given_mpp=0.5) as slide, Image.open(wsi / "boxes.png") as png:
        assert (slide.width, slide.height) == (300, 250)
        image = np.asarray(png.convert("RGB"))
        np.testing.assert_array_equal(corner(slide, 250), image[:, :250])


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("broken.svs", "unknown to OpenSlide"),
        ("COPYING.LESSER", "unknown to OpenSlide"),
        ("unopenable.tiff", "is a TIFF compressed as 52479.*vips tiffsave"),
        ("absent.svs", "No such file"),
        (".", "is a folder of DICOM files; name one file of it, such as boxes_0.dcm"),
    ],
)
def test_a_file_that_is_not_a_slide_fails_with_one_message_and_its_name(wsi: Path, file: str, reason: str) -> None:
    with pytest.raises(SlideError, match=reason) as caught:
        open_slide("A1", StoragePath.of(wsi / file), given_mpp=0.5)
    assert "slide 'A1'" in str(caught.value)
    assert str(wsi / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slide_that_opens_but_cannot_be_read_fails_at_every_read(wsi: Path) -> None:
    with open_slide("A1", StoragePath.of(wsi / "unreadable.svs")) as slide:
        for _ in range(2):
            with pytest.raises(SlideError, match=r"unreadable\.svs\) cannot be read at x 0, y 0.*Bogus marker length"):
                corner(slide, 16)


@dataclass(frozen=True)
class RemotePath(StoragePath):
    """A stand-in for an object store: its local copies are files in a folder."""

    source: Path = Path()
    folder: Path = Path()

    def stored_object(self, policy: RetryPolicy = RETRY_POLICY) -> StoredObject:
        return LocalFile(self.source, policy)

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(shutil.copy(self.source, folder))


def test_a_remote_tiled_tiff_needs_no_local_copy(pyramid: Pyramid, tmp_path: Path, numbers: Rgb) -> None:
    (tmp_path / "copies").mkdir()
    path = RemotePath("s3://bucket/a.tiff", pyramid(tmp_path / "a.tiff", numbers), tmp_path / "copies")
    with open_slide("A1", path) as slide:
        assert (slide.reader, slide.mpp_from) == ("tiled", "slide")
        assert slide.mpp == pytest.approx(0.5, rel=1e-6)
        np.testing.assert_array_equal(corner(slide, 64), numbers[:64, :64])
        assert list((tmp_path / "copies").iterdir()) == []


def test_a_remote_slide_keeps_its_local_copy_until_it_is_closed(tmp_path: Path, numbers: Rgb) -> None:
    (tmp_path / "copies").mkdir()
    Image.fromarray(numbers).save(tmp_path / "a.png")
    path = RemotePath("s3://bucket/a.png", tmp_path / "a.png", tmp_path / "copies")
    slide = open_slide("A1", path, given_mpp=0.5)
    assert (slide.reader, len(list((tmp_path / "copies").iterdir()))) == ("flat", 1)
    np.testing.assert_array_equal(corner(slide, 64), numbers[:64, :64])
    slide.close()
    slide.close()
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_remote_slide_that_fails_to_open_leaves_no_copy_behind(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "a.svs").write_text("not a slide")
    with pytest.raises(SlideError, match=r"s3://bucket/a\.svs"):
        open_slide("A1", RemotePath("s3://bucket/a.svs", tmp_path / "a.svs", tmp_path / "copies"))
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_remote_slide_of_many_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="several files"):
        open_slide("A1", RemotePath("s3://bucket/level0.DCM", tmp_path / "a.dcm", tmp_path))
