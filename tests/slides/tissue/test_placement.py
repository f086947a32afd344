"""Spots in tissue lie on tissue: a picture that was flipped, turned, shifted or swapped puts them on bare glass."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from jaxtyping import Bool, Float64

from raystp.errors import SectionError
from raystp.slides.coordinates import Area
from raystp.slides.open import open_slide
from raystp.slides.tissue.area import tissue_image, whole_area
from raystp.slides.tissue.masks import TissueMask, slide_mask
from raystp.slides.tissue.placement import check_on_tissue, glass_share
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

Mask = Bool[np.ndarray, "row col"]
Centres = Float64[np.ndarray, "spot 2"]

SCALE = 10
"""Level-0 px per px of the drawn masks."""
DIAMETER = Level0Pixels(40.0)


def letter() -> Mask:
    """Tissue in the form of an F, in a corner of a slide of 1,000 x 1,400 px: no turn or flip puts it on itself."""
    mask = np.zeros((140, 100), np.bool_)
    mask[10:90, 10:25] = True
    mask[10:25, 10:70] = True
    mask[42:55, 10:50] = True
    return mask


def spots_on(mask: Mask) -> Centres:
    """Spots in all tissue of a mask, 50 px apart."""
    row, column = np.nonzero(mask[2::5, 2::5])
    return np.stack([column, row], axis=1) * 5.0 * SCALE + 25.0


def tissue_of(mask: Mask, area: Area | None = None) -> TissueMask:
    whole = Area(0, 0, mask.shape[1] * SCALE, mask.shape[0] * SCALE)
    none, regions = np.zeros_like(mask), shapely.MultiPolygon()
    return TissueMask(area or whole, mask, none, mask, regions, 0.0, 1e4, is_given=False, warnings=[])


def check(mask: Mask, centres: Centres, allow_glass: float = 0.25) -> list[str]:
    tissue = tissue_of(mask)
    return check_on_tissue(tissue, centres, DIAMETER, slide=tissue.area, allow_glass=allow_glass)


def test_spots_on_their_own_tissue_raise_nothing() -> None:
    assert check(letter(), spots_on(letter())) == []


@pytest.mark.parametrize(
    ("turned", "cause"),
    [
        (lambda picture: picture[:, ::-1], "if the picture is mirrored left to right it is 0%"),
        (lambda picture: picture[::-1], "if the picture is flipped top to bottom it is 0%"),
        (lambda picture: picture[::-1, ::-1], "if the picture is turned by 180 degrees it is 0%"),
        (lambda picture: picture.T, "with x and y swapped it is 0%"),
        (lambda picture: np.rot90(picture, -1), "if the picture is turned by 90 degrees clockwise it is 0%"),
        (np.rot90, "if the picture is turned by 90 degrees anticlockwise it is 0%"),
        (lambda picture: picture[::-1, ::-1].T, "with x and y swapped and the picture turned by 180 degrees it is 0%"),
    ],
)
def test_a_flipped_or_turned_picture_is_refused_and_named(turned: Callable[[Mask], Mask], cause: str) -> None:
    with pytest.raises(SectionError, match=cause):
        check(turned(letter()), spots_on(letter()))


@pytest.mark.parametrize(
    "places",
    [
        spots_on(letter()) + 400.0,
        spots_on(letter()) * 2.0,
        spots_on(letter()) * 0.25 + 250.0,
        spots_on(letter()[:, ::-1]),
    ],
)
def test_shifted_or_scaled_places_and_another_sections_are_refused(places: Centres) -> None:
    with pytest.raises(SectionError, match=r"% of the \d+ spots are on bare glass.*another section's"):
        check(letter(), places)


def test_a_few_spots_on_glass_get_a_warning_and_the_limit_can_be_changed() -> None:
    good = spots_on(letter())
    beside = good.copy()
    beside[: len(good) // 8] = 900.0, 1300.0
    (warning,) = check(letter(), beside)
    assert warning == "12% of the 90 spots are on bare glass"
    with pytest.raises(SectionError, match=r"allow_glass=0\.1 is allowed"):
        check(letter(), beside, allow_glass=0.1)
    assert check(letter()[:, ::-1], good, allow_glass=1.0)[0].endswith(
        "if the picture is mirrored left to right it is 0%"
    )


def test_a_section_that_fills_its_image_has_no_glass_to_tell_by() -> None:
    everywhere = np.ones((140, 100), np.bool_)
    assert check(everywhere, spots_on(letter())) == []


def test_an_image_without_tissue_is_named_as_such() -> None:
    nothing = np.zeros((140, 100), np.bool_)
    with pytest.raises(SectionError, match=r"no tissue is found on the slide.*allow_glass=0\.25 is allowed"):
        check(nothing, spots_on(letter()))
    (warning,) = check(nothing, spots_on(letter()), allow_glass=1.0)
    assert "no tissue is found on the slide" in warning


def test_a_spot_is_on_glass_only_if_no_part_of_its_disc_is_on_tissue() -> None:
    mask = np.zeros((10, 10), np.bool_)
    mask[:, 5:] = True
    places = np.array([[35.0, 50.0], [45.0, 50.0], [55.0, 50.0], [-20.0, 50.0]])
    area = Area(0, 0, 100, 100)
    assert glass_share(mask, area, places, Level0Pixels(1.0)) == 0.75
    assert glass_share(mask, area, places, Level0Pixels(12.0)) == 0.5
    assert glass_share(mask, area, places, Level0Pixels(32.0)) == 0.25


def test_places_that_start_at_the_slides_bounds_are_named() -> None:
    area = Area(3000, 2000, 1000, 1400)
    tissue = tissue_of(letter(), area)
    slide = Area(0, 0, 8000, 6000)
    in_place = spots_on(letter()) + area.origin
    assert check_on_tissue(tissue, in_place, DIAMETER, slide=slide, allow_glass=0.25) == []
    with pytest.raises(SectionError, match="if the positions start at the slide's bounds it is 0%"):
        check_on_tissue(tissue, spots_on(letter()), DIAMETER, slide=slide, allow_glass=0.25)


# ---- real sections


@dataclass(frozen=True)
class RealSection:
    """A real section's tissue, and the places and the diameter of its spots."""

    tissue: TissueMask
    centres: Centres
    diameter: Level0Pixels

    def doubt(self, centres: Centres) -> str:
        """Return what is said about these places: the warning, the error, or nothing."""
        try:
            slide = self.tissue.area
            return "".join(check_on_tissue(self.tissue, centres, self.diameter, slide=slide, allow_glass=0.25))
        except SectionError as error:
            return f"refused: {error}"


def _mask(image: Path, mpp: float) -> TissueMask:
    with open_slide("S1", StoragePath.of(image), given_mpp=mpp) as slide:
        area = whole_area(slide)
        return slide_mask(slide, area, tissue_image(slide, area), None)


def _her2st(data: Path, name: str) -> RealSection:
    (image,) = (data / "her2st" / "ST-imgs" / name[0] / name).glob("*.jpg")
    table = pd.read_csv(data / "her2st" / "ST-spotfiles" / f"{name}_selection.tsv", sep="\t")
    centres = table.loc[table["selected"] == 1, ["pixel_x", "pixel_y"]].to_numpy(np.float64)
    return RealSection(_mask(image, 0.687), centres, Level0Pixels(146.0))


def _mob(data: Path) -> RealSection:
    (counts,) = (data / "mob_rep11" / "counts").glob("*.tsv.gz")
    names = pd.read_csv(counts, sep="\t", usecols=[0]).iloc[:, 0]
    array = np.array([[float(number) for number in name.split("x")] for name in names])
    return RealSection(_mask(data / "mob_rep11" / "images" / "11.jpg", 2.76), (array - 1) * 72.56, Level0Pixels(36.0))


def _vis5a(data: Path) -> RealSection:
    folder = data / "visium" / "Vis5A_2dpi" / "spatial"
    factors = json.loads((folder / "scalefactors_json.json").read_text())
    scale = factors["tissue_lowres_scalef"]  # only the small image is at hand
    table = pd.read_csv(folder / "tissue_positions_list.csv", header=None)
    centres = table.loc[table[1] == 1, [5, 4]].to_numpy(np.float64) * scale
    diameter = Level0Pixels(factors["spot_diameter_fullres"] * scale)
    return RealSection(_mask(folder / "tissue_lowres_image.png", 9.99), centres, diameter)


@pytest.fixture(scope="module")
def sections() -> dict[str, RealSection]:
    return {}


@pytest.fixture(params=["B4", "C2", "C3", "C4", "mob", "Vis5A"])
def real(request: pytest.FixtureRequest, real_data: Path, sections: dict[str, RealSection]) -> RealSection:
    name = request.param
    if name not in sections:
        read = {"mob": _mob, "Vis5A": _vis5a}
        sections[name] = read[name](real_data) if name in read else _her2st(real_data, name)
    return sections[name]


def test_real_sections_raise_nothing(real: RealSection) -> None:
    assert real.doubt(real.centres) == ""


def turned(section: RealSection, picture: Callable[[Mask], Mask]) -> RealSection:
    """Return a section whose picture was turned or mirrored after its positions were measured."""
    area, mask = section.tissue.area, np.ascontiguousarray(picture(section.tissue.detected))
    is_upright = mask.shape == section.tissue.detected.shape
    size = (area.width, area.height) if is_upright else (area.height, area.width)
    return replace(section, tissue=replace(section.tissue, area=Area(0, 0, *size), mask=mask, pen=mask, detected=mask))


@pytest.mark.parametrize(
    ("picture", "hint"),
    [
        (lambda picture: picture[:, ::-1], "if the picture is mirrored left to right it is"),
        (lambda picture: picture[::-1], "if the picture is flipped top to bottom it is"),
        (lambda picture: picture[::-1, ::-1], "if the picture is turned by 180 degrees it is"),
        (lambda picture: picture.T, "with x and y swapped it is"),
        (lambda picture: np.rot90(picture, -1), "if the picture is turned by 90 degrees clockwise it is"),
        (np.rot90, "if the picture is turned by 90 degrees anticlockwise it is"),
    ],
)
def test_each_real_section_on_a_turned_picture_is_named(
    real: RealSection, picture: Callable[[Mask], Mask], hint: str
) -> None:
    wrong = turned(real, picture)
    doubt = wrong.doubt(wrong.centres)
    assert "spots are on bare glass" in doubt
    assert hint in doubt


def test_each_real_section_with_x_and_y_swapped_is_named(real: RealSection) -> None:
    assert "with x and y swapped it is" in real.doubt(np.ascontiguousarray(real.centres[:, ::-1]))


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_each_real_section_at_half_or_double_scale_is_refused(real: RealSection, scale: float) -> None:
    assert real.doubt(real.centres * scale).startswith("refused: ")
