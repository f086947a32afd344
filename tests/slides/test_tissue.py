from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, UInt8
from PIL import Image
from scipy import ndimage

from raystp.slides.open import open_slide
from raystp.slides.tissue import _small_parts, otsu, tissue_mask
from raystp.storage import Place

Rgb = UInt8[np.ndarray, "row col 3"]
Mask = Bool[np.ndarray, "row col"]

GLASS, PINK, PURPLE = (240, 238, 241), (225, 150, 190), (95, 60, 140)


def painted(
    *patches: tuple[tuple[int, int, int, int], tuple[int, int, int]], glass: tuple[int, int, int] = GLASS
) -> Rgb:
    """A thumbnail of noisy glass with rectangles (top, left, bottom, right) of colours."""
    picture = np.broadcast_to(np.array(glass, float), (200, 300, 3)).copy()
    for (top, left, bottom, right), colour in patches:
        picture[top:bottom, left:right] = colour
    noise = np.random.default_rng(0).normal(0, 2, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def rectangle(top: int, left: int, bottom: int, right: int) -> Mask:
    mask = np.zeros((200, 300), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def differing(found: Mask, wanted: Mask) -> int:
    """Pixels that differ, but for a rim of one pixel on either side of the outline."""
    rim = ndimage.binary_dilation(wanted) & ~ndimage.binary_erosion(wanted, border_value=1)
    return int(((found != wanted) & ~rim).sum())


def test_stained_tissue_is_found_and_glass_is_not() -> None:
    picture = painted(((50, 60, 150, 160), PINK), ((50, 160, 150, 260), PURPLE))
    assert differing(tissue_mask(picture), rectangle(50, 60, 150, 260)) == 0


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (200, 190, 205), (128, 128, 128)])
def test_a_slide_of_glass_has_no_tissue(glass: tuple[int, int, int]) -> None:
    assert not tissue_mask(painted(glass=glass)).any()


@pytest.mark.parametrize("stain", [PINK, PURPLE])
def test_a_slide_of_tissue_is_tissue_all_over(stain: tuple[int, int, int]) -> None:
    assert tissue_mask(painted(glass=stain)).all()


def test_a_slide_of_two_stains_is_tissue_all_over() -> None:
    assert tissue_mask(painted(((0, 0, 200, 150), PURPLE), glass=PINK)).all()


@pytest.mark.parametrize("ink", [(40, 140, 70), (140, 220, 150), (30, 80, 190), (20, 20, 22), (0, 0, 0), (10, 12, 30)])
def test_pens_and_black_borders_are_no_tissue(ink: tuple[int, int, int]) -> None:
    picture = painted(((50, 60, 150, 160), PINK), ((0, 0, 200, 20), ink), ((170, 30, 180, 290), ink))
    assert differing(tissue_mask(picture), rectangle(50, 60, 150, 160)) == 0


def test_ink_across_tissue_cuts_it() -> None:
    picture = painted(((50, 60, 150, 260), PINK), ((0, 150, 200, 160), (40, 140, 70)))
    mask = tissue_mask(picture)
    assert not mask[:, 150:160].any()
    assert mask[60:140, 165:250].all()


def test_specks_of_dust_go_and_pinholes_close() -> None:
    # 200 x 300 px: below 8 px is a speck.
    picture = painted(((50, 60, 150, 160), PINK), ((20, 20, 22, 22), PINK), ((100, 100, 103, 103), GLASS))
    mask = tissue_mask(picture)
    assert not mask[:40].any()
    assert mask[52:148, 62:158].all()
    lumen = tissue_mask(painted(((50, 60, 150, 160), PINK), ((90, 90, 110, 110), GLASS)))
    assert not lumen[92:108, 92:108].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_the_smallest_thumbnails_are_answered(shape: tuple[int, int]) -> None:
    assert tissue_mask(np.full((*shape, 3), PINK, np.uint8)).all()
    assert not tissue_mask(np.full((*shape, 3), 255, np.uint8)).any()


def test_otsu_splits_two_heaps_and_gives_zero_where_there_is_one() -> None:
    counts = np.zeros(256, np.int64)
    assert otsu(counts) == 0
    counts[[10, 12]] = 50
    counts[[80, 90]] = 20
    assert otsu(counts) == 12
    counts[:] = 0
    counts[70] = 9
    assert otsu(counts) == 0


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 30), columns=st.integers(1, 30), share=st.floats(0, 1), smallest=st.integers(0, 40),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_joined_runs_are_the_labelled_parts(*, rows: int, columns: int, share: float, smallest: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    labels, _ = ndimage.label(mask)
    small = np.bincount(labels.ravel()) < smallest
    small[0] = False
    np.testing.assert_array_equal(_small_parts(mask, float(smallest)), small[labels])


def test_measured_spots_of_a_real_section_lie_on_its_tissue_with_x_as_the_column() -> None:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "her2st"
    if not folder.is_dir():
        pytest.skip(f"the HER2ST sections are not at {folder}")
    rows = (folder / "ST-spotfiles" / "C2_selection.tsv").read_text().splitlines()
    names = rows[0].split("\t")
    spots = np.array(
        [[float(row.split("\t")[names.index(name)]) for name in ("pixel_x", "pixel_y")] for row in rows[1:]]
    )
    with open_slide("C2", Place.of(folder / "ST-imgs" / "C" / "C2" / "5714_HE_BT_C2.jpg"), given_mpp=0.689) as slide:
        mask = tissue_mask(slide.thumbnail(1024))
        column, row = (spots * mask.shape[1] / slide.width).astype(int).T
    assert 0.12 < mask.mean() < 0.2
    assert mask[row, column].mean() > 0.9
    assert mask[column, row].mean() < 0.8
    touched = ndimage.binary_dilation(mask, iterations=7)  # half a spot of 100 um
    assert touched[row, column].all()


def test_a_real_scan_is_cut_from_its_glass(wsi: Path) -> None:
    with open_slide("CMU", Place.of(wsi / "CMU-1-Small-Region.svs")) as slide:
        thumbnail = slide.thumbnail(1024)
    mask = tissue_mask(thumbnail)
    assert np.asarray(Image.fromarray(thumbnail).convert("L"))[~mask].mean() > 230
    assert 0.25 < mask.mean() < 0.45
