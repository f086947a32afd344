"""Laws of the synthetic slides: the image shows the map, and OpenSlide reads the image."""

import itertools
from pathlib import Path

import numpy as np
import openslide
import pytest
from jaxtyping import Bool, Float64, UInt8
from scipy.ndimage import binary_opening, label

from raystp.errors import SlideError
from raystp.slides.synthetic.slide import TISSUES, Stain, damage, draw_slide, draw_stain, tissue_map, write_slide
from raystp.slides.synthetic.tissues import EOSIN, HAEMATOXYLIN
from raystp.units import MicronsPerPixel

MPP = MicronsPerPixel(0.5)
CELL = 16
STAIN = Stain(haematoxylin=HAEMATOXYLIN, eosin=EOSIN, glass=(243.0, 243.0, 244.0))


def sheet(kind: int, cells: int = 64) -> UInt8[np.ndarray, "row col 3"]:
    """Draw a slide of one type all over."""
    whole = np.full((cells, cells), kind, np.uint8)
    return draw_slide(np.random.default_rng(3), whole, cell=CELL, mpp=MPP, stain=STAIN, pen=False)


def mixed(seed: int, cells: int = 64, *, pen: bool = True) -> UInt8[np.ndarray, "row col 3"]:
    """Draw a slide of many types."""
    rng = np.random.default_rng(seed)
    kinds = tissue_map(rng, width=cells * CELL, height=cells * CELL, mpp=MPP, cell=CELL)
    return draw_slide(rng, kinds, cell=CELL, mpp=MPP, stain=STAIN, pen=pen)


@pytest.fixture(scope="module")
def sheets() -> dict[str, UInt8[np.ndarray, "row col 3"]]:
    return {tissue.name: sheet(kind) for kind, tissue in enumerate(TISSUES, start=1)}


def haematoxylin(image: UInt8[np.ndarray, "row col 3"]) -> Float64[np.ndarray, "row col"]:
    """Return how much haematoxylin each pixel holds, by unmixing the stain."""
    density = -np.log(np.maximum(image, 1.0) / np.array(STAIN.glass))
    dyes = np.array([STAIN.haematoxylin, STAIN.eosin])
    return np.asarray((density @ np.linalg.pinv(dyes))[..., 0])


def nuclei_per_mm2(image: UInt8[np.ndarray, "row col 3"]) -> float:
    """Count dark islands, fine grain removed."""
    _, count = label(binary_opening(haematoxylin(image) > 0.5, iterations=2))
    return float(count / (image.shape[0] * image.shape[1] * (MPP / 1000.0) ** 2))


def read(path: Path, level: int = 0) -> UInt8[np.ndarray, "row col 3"]:
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))


def test_openslide_sees_an_aperio_pyramid_of_the_right_size_and_resolution(tmp_path: Path) -> None:
    image = np.full((600, 1100, 3), 200, np.uint8)
    write_slide(tmp_path / "a.svs", image, mpp=MPP)
    with openslide.OpenSlide(str(tmp_path / "a.svs")) as slide:
        assert slide.level_dimensions == ((1100, 600), (275, 150), (68, 37))
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == float(slide.properties["openslide.mpp-y"]) == MPP
        assert slide.properties["openslide.objective-power"] == "20"


def test_colours_survive_the_file_at_every_level(tmp_path: Path) -> None:
    image = mixed(1)
    write_slide(tmp_path / "a.svs", image, mpp=MPP)
    whole = read(tmp_path / "a.svs").astype(float)
    assert np.abs(whole - image).mean() < 4.0
    for level in range(3):
        assert np.abs(read(tmp_path / "a.svs", level).mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 1.0


def test_pure_red_green_and_blue_come_back_as_they_were(tmp_path: Path) -> None:
    image = np.repeat(np.eye(3, dtype=np.uint8) * 255, 256, axis=0)[:, None, :].repeat(512, axis=1)
    write_slide(tmp_path / "a.svs", image, mpp=MPP)
    back = read(tmp_path / "a.svs").astype(int)
    assert np.abs(back[128::256, 256] - np.eye(3) * 255).max() <= 3


def test_the_same_seed_gives_the_same_slide_and_another_seed_another(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_slide(tmp_path / name, mixed(seed, cells=32), mpp=MPP)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_tissues_differ_in_colour(sheets: dict[str, UInt8[np.ndarray, "row col 3"]]) -> None:
    colours = {name: image.mean(axis=(0, 1)) for name, image in sheets.items()}
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > 8.0, (one, other)


def test_tissues_differ_in_the_density_of_nuclei(sheets: dict[str, UInt8[np.ndarray, "row col 3"]]) -> None:
    found = {name: nuclei_per_mm2(image) for name, image in sheets.items()}
    assert found["immune"] > 1.5 * found["tumour"]
    assert found["tumour"] > 1.5 * found["stroma"]
    assert found["gland"] > 1.5 * found["stroma"]
    assert found["stroma"] > 1.5 * found["fat"] > 0.0


def test_nuclei_have_the_density_of_their_tissue_where_they_can_be_counted(
    sheets: dict[str, UInt8[np.ndarray, "row col 3"]],
) -> None:
    for tissue in TISSUES:
        if tissue.name in {"stroma", "immune"}:  # elsewhere pale or touching nuclei merge or break up
            assert nuclei_per_mm2(sheets[tissue.name]) == pytest.approx(tissue.nuclei_per_mm2, rel=0.3)


def test_tumour_nuclei_are_larger_than_immune_ones(sheets: dict[str, UInt8[np.ndarray, "row col 3"]]) -> None:
    def area(name: str) -> float:
        islands, _ = label(binary_opening(haematoxylin(sheets[name]) > 0.5, iterations=2))
        return float(np.median(np.bincount(islands.ravel())[1:]))

    assert area("tumour") > 1.8 * area("immune")


def test_the_image_shows_the_map(sheets: dict[str, UInt8[np.ndarray, "row col 3"]]) -> None:
    halves = np.repeat(np.array([[1, 2]], np.uint8), 32, axis=1).repeat(64, axis=0)
    image = draw_slide(np.random.default_rng(0), halves, cell=CELL, mpp=MPP, stain=STAIN, pen=False)
    for name, part in (("tumour", image[:, :480]), ("stroma", image[:, 544:])):
        assert np.abs(part.mean(axis=(0, 1)) - sheets[name].mean(axis=(0, 1))).max() < 8.0


def test_empty_glass_has_the_lamps_colour() -> None:
    assert np.abs(sheet(0, cells=16).mean(axis=(0, 1)) - STAIN.glass).max() < 1.0


def test_a_map_has_glass_in_its_corners_and_every_tissue_in_wide_regions() -> None:
    kinds = tissue_map(np.random.default_rng(0), width=4096, height=4096, mpp=MPP, cell=CELL)
    assert kinds.shape == (256, 256)
    assert not kinds[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert 0.6 < (kinds > 0).mean() < 0.9
    shares = np.bincount(kinds.ravel(), minlength=len(TISSUES) + 1)[1:] / (kinds > 0).sum()
    assert len(shares) == len(TISSUES)
    assert shares.min() > 0.03
    spot = 7  # cells, 56 um
    assert (kinds[:, spot:] == kinds[:, :-spot])[kinds[:, spot:] > 0].mean() > 0.75


def test_a_pen_mark_is_in_one_corner_and_changes_nothing_else() -> None:
    with_pen, without = mixed(2).astype(int), mixed(2, pen=False).astype(int)
    changed: Bool[np.ndarray, "row col"] = np.abs(with_pen - without).max(axis=2) > 0
    rows, cols = np.nonzero(changed)
    side = 0.25 * len(changed)
    assert 0.002 < changed.mean() < 0.03
    assert np.ptp(rows) < side
    assert np.ptp(cols) < side
    assert (without - with_pen)[changed].max() > 120
    assert (without >= with_pen).all()


def test_stains_vary_between_patients_and_stay_blue_and_pink() -> None:
    stains = [draw_stain(np.random.default_rng(seed)) for seed in range(50)]
    blue = np.array([stain.haematoxylin for stain in stains])
    pink = np.array([stain.eosin for stain in stains])
    assert (blue[:, 2] < blue[:, :2].min(axis=1)).all()  # haematoxylin lets blue pass
    assert (pink[:, 1] > pink[:, [0, 2]].max(axis=1)).all()  # eosin takes green away
    assert 0.05 < (blue.std(axis=0) / blue.mean(axis=0)).max() < 0.25


def test_a_damaged_slide_opens_and_has_its_thumbnail_and_fails_in_the_tissue(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    kinds = tissue_map(rng, width=2048, height=2048, mpp=MPP, cell=CELL)
    image = draw_slide(rng, kinds, cell=CELL, mpp=MPP, stain=STAIN, pen=False)
    for name in ("whole", "one", "two"):
        write_slide(tmp_path / name, image, mpp=MPP)
    damage(tmp_path / "one")
    damage(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() != (tmp_path / "whole").read_bytes()
    with openslide.OpenSlide(str(tmp_path / "whole")) as whole, openslide.OpenSlide(str(tmp_path / "one")) as broken:
        assert broken.get_thumbnail((128, 128)).tobytes() == whole.get_thumbnail((128, 128)).tobytes()
        with pytest.raises(openslide.OpenSlideError):
            broken.read_region((1024, 1024), 0, (64, 64))


def test_invalid_input_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no slide")
    with pytest.raises(SlideError, match=r"notes\.txt cannot be damaged"):
        damage(tmp_path / "notes.txt")
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(SlideError, match=r"352\.8 um/px is implausible"):
        write_slide(tmp_path / "a.svs", image, mpp=MicronsPerPixel(352.8))
    with pytest.raises(SlideError, match="too small for three levels"):
        write_slide(tmp_path / "a.svs", image[:8], mpp=MPP)
    with pytest.raises(SlideError, match="not a whole number of cells"):
        tissue_map(np.random.default_rng(0), width=100, height=64, mpp=MPP, cell=CELL)
    with pytest.raises(SlideError, match="has type 9"):
        sheet(9, cells=8)
