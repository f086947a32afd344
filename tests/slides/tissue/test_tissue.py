from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Bool, UInt8
from PIL import Image
from scipy import ndimage

from raystp.slides.open import open_slide
from raystp.slides.synthetic.slide import draw_slide, draw_stain, tissue_map
from raystp.slides.tissue.detect import DetectedTissue, detect_tissue, otsu
from raystp.storage import StoragePath
from raystp.units import MicronsPerPixel
from tests.conftest import SHARED
from tests.slides.tissue.artefacts import ARTEFACTS

Rgb = UInt8[np.ndarray, "row col 3"]
Mask = Bool[np.ndarray, "row col"]
ThumbnailOf = Callable[[str], Rgb]

GLASS, PINK, PURPLE, RED = (240, 238, 241), (225, 150, 190), (95, 60, 140), (200, 30, 50)


def painted(
    *patches: tuple[tuple[int, int, int, int], tuple[int, int, int]], glass: tuple[int, int, int] = GLASS
) -> Rgb:
    """A thumbnail of noisy glass with rectangles (top, left, bottom, right) of colours."""
    image = np.broadcast_to(np.array(glass, float), (200, 300, 3)).copy()
    for (top, left, bottom, right), colour in patches:
        image[top:bottom, left:right] = colour
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def tissue_mask(image: Rgb, um_per_px: float = 16.0) -> Mask:
    return detect_tissue(image, um_per_px).mask


def rectangle(top: int, left: int, bottom: int, right: int) -> Mask:
    mask = np.zeros((200, 300), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def differing(found: Mask, expected: Mask) -> int:
    """Pixels that differ, but for a rim of one pixel on either side of the outline."""
    square = np.ones((3, 3), np.bool_)
    rim = ndimage.binary_dilation(expected, square) & ~ndimage.binary_erosion(expected, square, border_value=1)
    return int(((found != expected) & ~rim).sum())


def test_stained_tissue_is_found_and_glass_is_not() -> None:
    image = painted(((50, 60, 150, 160), PINK), ((50, 160, 150, 260), PURPLE))
    assert differing(tissue_mask(image), rectangle(50, 60, 150, 260)) == 0


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (200, 190, 205), (128, 128, 128)])
def test_a_slide_of_glass_has_no_tissue(glass: tuple[int, int, int]) -> None:
    assert not tissue_mask(painted(glass=glass)).any()


@pytest.mark.parametrize("stain", [PINK, PURPLE])
def test_a_slide_of_tissue_is_tissue_everywhere(stain: tuple[int, int, int]) -> None:
    assert tissue_mask(painted(glass=stain)).all()


def test_a_slide_of_two_stains_is_tissue_everywhere() -> None:
    assert tissue_mask(painted(((0, 0, 200, 150), PURPLE), glass=PINK)).all()


@pytest.mark.parametrize(
    "pen",
    [
        (40, 140, 70),
        (140, 220, 150),
        (30, 80, 190),
        (20, 20, 22),
        (0, 0, 0),
        (10, 12, 30),
        (40, 50, 150),
        RED,
        (150, 20, 35),
    ],
)
def test_pens_and_black_borders_are_not_tissue(pen: tuple[int, int, int]) -> None:
    image = painted(((50, 60, 150, 160), PINK), ((0, 0, 200, 20), pen), ((170, 30, 180, 290), pen))
    assert differing(tissue_mask(image), rectangle(50, 60, 150, 160)) == 0


def test_a_pen_mark_across_tissue_cuts_it() -> None:
    image = painted(((50, 60, 150, 260), PINK), ((0, 150, 200, 160), (40, 140, 70)))
    mask = tissue_mask(image)
    assert not mask[:, 150:160].any()
    assert mask[60:140, 165:250].all()


def test_specks_are_removed_and_pinholes_are_filled() -> None:
    # Twice 200 x 300 px: below 30 px is a speck, of which 2 x 2 px and the rim of their contrast have 25.
    image = painted(((50, 60, 150, 160), PINK), ((20, 20, 21, 21), PINK), ((100, 100, 103, 103), GLASS))
    mask = tissue_mask(image.repeat(2, axis=0).repeat(2, axis=1))
    assert not mask[:80].any()
    assert mask[104:296, 124:316].all()
    lumen = tissue_mask(painted(((50, 60, 150, 160), PINK), ((90, 90, 110, 110), GLASS)))
    assert not lumen[92:108, 92:108].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_the_smallest_thumbnails_work(shape: tuple[int, int]) -> None:
    assert tissue_mask(np.full((*shape, 3), PINK, np.uint8)).all()
    assert not tissue_mask(np.full((*shape, 3), 255, np.uint8)).any()


def test_otsu_splits_two_groups_and_gives_zero_for_a_single_level() -> None:
    counts = np.zeros(256, np.int64)
    assert otsu(counts) == 0
    counts[[10, 12]] = 50
    counts[[80, 90]] = 20
    assert otsu(counts) == 12
    counts[:] = 0
    counts[70] = 9
    assert otsu(counts) == 0


def test_a_stained_halo_is_not_tissue_and_neither_is_grey_texture() -> None:
    image = painted(((50, 60, 150, 160), PINK)).astype(float)
    away = ndimage.distance_transform_edt(~rectangle(50, 60, 150, 160))[..., None]
    image = image - np.array((1.0, 24.0, 10.0)) * np.exp(-away / 40.0) * (away > 0)
    image[20:40, 200:280] -= 60.0 * (np.indices((20, 80)).sum(axis=0) % 4 < 2)[..., None]
    mask = tissue_mask(image.astype(np.uint8))
    assert not mask[away[..., 0] > 3].any()
    assert mask[50:150, 60:160].all()


def test_faint_texture_is_tissue_and_the_same_tint_without_texture_is_not() -> None:
    flat, net = painted(((50, 60, 150, 160), (236, 228, 234))), painted()
    lines = (np.indices((100, 100)) % 6 == 0).any(axis=0)
    net[50:150, 60:160][lines] = (225, 190, 210)
    assert not tissue_mask(flat).any()
    assert differing(tissue_mask(net), rectangle(50, 60, 150, 160)) < 20


def test_the_tint_of_the_glass_does_not_matter() -> None:
    plain = painted(((50, 60, 150, 160), PINK), ((80, 180, 120, 220), (236, 215, 228)))
    tinted = np.rint(plain * np.array((0.92, 0.87, 0.93))).astype(np.uint8)
    assert differing(tissue_mask(tinted), tissue_mask(plain)) < 20


def test_pen_marks_are_returned_separately() -> None:
    found = detect_tissue(painted(((50, 60, 150, 160), PINK), ((0, 200, 200, 210), RED)), 16.0)
    assert found.pen[10:190, 200:210].all()
    assert not found.pen[:, :195].any()
    assert not (found.pen & found.mask).any()


@pytest.mark.parametrize(("um_per_px", "closes"), [(4.0, True), (20.0, False)])
def test_gaps_of_a_fat_cells_width_are_closed_at_any_scale(um_per_px: float, *, closes: bool) -> None:
    image = painted(((50, 60, 150, 160), PINK), ((90, 90, 110, 110), GLASS))  # 20 px: 80 um, 400 um
    assert tissue_mask(image, um_per_px)[92:108, 92:108].all() == closes


# ---- a gallery: a drawn section, 4 mm wide at 4 um/px, with artefacts; its ground truth is the map


FAT = 4
DRAWN_UM = 4.0


def section(pale: float = 1.0, only: int | None = None) -> tuple[Rgb, UInt8[np.ndarray, "row col"]]:
    """A section at thumbnail scale, and the tissue type of each of its pixels."""
    rng, mpp = np.random.default_rng(1), MicronsPerPixel(DRAWN_UM / 2)
    types = tissue_map(rng, width=2048, height=2048, mpp=mpp, cell=16)
    types = types if only is None else np.where(types > 0, only, 0).astype(np.uint8)
    stain = draw_stain(rng)
    dyes = {
        name: (red * pale, green * pale, blue * pale)
        for name, (red, green, blue) in (("haematoxylin", stain.haematoxylin), ("eosin", stain.eosin))
    }
    image = draw_slide(rng, types, cell=16, mpp=mpp, stain=replace(stain, **dyes), pen=False)
    return np.asarray(Image.fromarray(image).reduce(2)), types.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture(scope="module")
def drawn() -> tuple[Rgb, UInt8[np.ndarray, "row col"]]:
    return section()


def overlap(found: DetectedTissue, truth: Mask) -> float:
    return float((found.mask & truth).sum() / (found.mask | truth).sum())


@pytest.mark.parametrize("name", [None, *ARTEFACTS])
def test_artefacts_leave_the_tissue_unchanged(
    drawn: tuple[Rgb, UInt8[np.ndarray, "row col"]], name: str | None
) -> None:
    image, types = drawn
    truth = types > 0
    if name is not None:
        image, truth = ARTEFACTS[name](np.random.default_rng(2), image, truth)
    found = detect_tissue(image, DRAWN_UM)
    assert overlap(found, truth) > 0.96
    assert found.mask[truth & (types == FAT)].mean() > 0.94
    hidden = (types > 0) & ~truth
    assert found.mask[hidden].sum() <= 0.005 * hidden.sum()
    assert found.pen[hidden].sum() >= 0.995 * hidden.sum()
    assert abs(found.pen.mean() - {"black border": 0.16}.get(str(name), 0.065 if "pen" in str(name) else 0.0)) < 0.01


@pytest.mark.parametrize(
    ("pale", "only", "least"), [(0.5, None, 0.97), (0.3, None, 0.95), (1.0, FAT, 0.96), (0.5, FAT, 0.96)]
)
def test_pale_sections_and_sections_of_fat_are_found(pale: float, only: int | None, least: float) -> None:
    image, types = section(pale, only)
    assert overlap(detect_tissue(image, DRAWN_UM), types > 0) > least


# ---- real sections


@pytest.fixture
def thumbnail_of() -> ThumbnailOf:
    """Return the thumbnail of a flat image of the public data; its um/px does not matter here."""
    data = SHARED / "data"

    def read(name: str) -> Rgb:
        if not (data / name).exists():
            pytest.skip(f"there is no {data / name}")
        with open_slide("A1", StoragePath.of(data / name), given_mpp=0.7) as slide:
            return slide.thumbnail(1024)

    return read


def test_measured_spots_of_a_real_section_are_on_its_tissue_with_x_as_the_column() -> None:
    folder = SHARED / "data" / "her2st"
    if not folder.is_dir():
        pytest.skip(f"the HER2ST sections are not at {folder}")
    rows = (folder / "ST-spotfiles" / "C2_selection.tsv").read_text().splitlines()
    names = rows[0].split("\t")
    spots = np.array(
        [[float(row.split("\t")[names.index(name)]) for name in ("pixel_x", "pixel_y")] for row in rows[1:]]
    )
    with open_slide(
        "C2", StoragePath.of(folder / "ST-imgs" / "C" / "C2" / "5714_HE_BT_C2.jpg"), given_mpp=0.689
    ) as slide:
        mask = tissue_mask(slide.thumbnail(1024), 6.7)
        column, row = (spots * mask.shape[1] / slide.width).astype(int).T
    assert 0.15 < mask.mean() < 0.19
    assert mask[row, column].mean() > 0.98
    assert mask[column, row].mean() < 0.85
    touched = ndimage.binary_dilation(mask, iterations=7)  # half a spot of 100 um
    assert touched[row, column].all()


def test_the_fat_of_a_real_breast_and_the_pale_rim_of_a_real_bulb_are_tissue(thumbnail_of: ThumbnailOf) -> None:
    # Corners of the section by eye, in px of the thumbnail: (row, column) from, and to.
    for name, (top, left, bottom, right), share in (
        ("her2st/ST-imgs/B/B4/BT10737_D2_HE.jpg", (600, 560, 780, 700), (0.26, 0.29)),
        ("mob_rep11/images/11.jpg", (350, 200, 560, 260), (0.22, 0.26)),
    ):
        mask = tissue_mask(thumbnail_of(name), 6.7)
        assert mask[top:bottom, left:right].mean() > 0.93, name
        assert share[0] < mask.mean() < share[1], name


def test_orange_muscle_is_not_a_red_pen_mark(thumbnail_of: ThumbnailOf) -> None:
    found = detect_tissue(thumbnail_of("visium/Vis5A_2dpi/spatial/tissue_lowres_image.png"), 18.0)
    assert not found.pen.any()
    assert 0.115 < found.mask.mean() < 0.135  # the section, and hardly any of the printed frame


def test_a_real_scan_is_cut_from_its_glass(wsi: Path) -> None:
    with open_slide("CMU", StoragePath.of(wsi / "CMU-1-Small-Region.svs")) as slide:
        thumbnail = slide.thumbnail(1024)
    mask = tissue_mask(thumbnail, 1.45)
    assert np.asarray(Image.fromarray(thumbnail).convert("L"))[~mask].mean() > 240
    assert 0.35 < mask.mean() < 0.45
    assert detect_tissue(thumbnail, 1.45).pen.mean() < 0.005
