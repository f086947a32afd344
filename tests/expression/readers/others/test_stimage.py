"""Layout `stimage`: y comes before x, um/px is the radius in um over r, and the pitch is compared with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raystp.errors import SectionError
from raystp.expression.readers.registry import FILES_BESIDE, read
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import warnings_of
from raystp.slides.open import open_slide
from raystp.storage import StoragePath
from tests.expression.readers.others.foreign import lattice, stimage_section

GENES = [f"GENE{number}" for number in range(12)]
MPP = 0.8


def _section(
    root: Path, tech: str, radius_um: float, pitch_um: float, *, radius_px: float | None = None
) -> SectionSource:
    _, xy = lattice(8, 10, pitch_um / MPP, hexagonal=tech in ("Visium", "somewhere"))
    path = stimage_section(root / tech, "GSE1_a", xy, GENES, radius=radius_px or radius_um / MPP)
    return SectionSource("GSE1_a", "GSE1_a", "GSE1", "stimage", StoragePath.of(path))


@pytest.mark.parametrize(("tech", "radius_um", "pitch_um"), [("Visium", 27.5, 100), ("ST", 50, 200), ("ST", 50, 150)])
def test_um_per_px_follows_from_the_radius_and_agrees_with_the_pitch(
    tmp_path: Path, tech: str, radius_um: float, pitch_um: float
) -> None:
    section, notes = read(_section(tmp_path, tech, radius_um, pitch_um))
    assert section.uns["raystp"]["mpp"] == pytest.approx(MPP)
    assert notes["mpp_from"] == f"radius r of {tech}, {radius_um:g} um"
    assert (notes["pitch_um"], warnings_of(notes)) == (pitch_um, [])
    assert section.uns["raystp"]["spot_diameter_um"] == pytest.approx(2 * radius_um)
    assert section.uns["raystp"]["patient"] == "GSE1"
    _, xy = lattice(8, 10, pitch_um / MPP, hexagonal=tech == "Visium")
    assert section.obsm["spatial"].tolist() == pytest.approx(xy)  # x is the column, although y comes first in the file
    assert section.var_names.tolist() == GENES
    assert section.X.toarray().tolist() == np.random.default_rng(0).poisson(3.0, (80, 12)).tolist()


def test_a_radius_that_the_pitch_contradicts_gets_a_warning_with_both(tmp_path: Path) -> None:
    _, notes = read(_section(tmp_path, "Visium", 27.5, 100, radius_px=27.5 / 0.5))
    (warning,) = warnings_of(notes)
    assert "spots are 62.5 um apart at 0.5 um/px; those of Visium are 100 um apart, which is so at 0.8 um/px" in warning
    _, notes = read(replace(_section(tmp_path, "Visium", 27.5, 100), mpp=0.4))
    stated, pitch = warnings_of(notes)
    assert "mpp 0.4 (given) is used; the file has 0.8 um/px (radius r of Visium, 27.5 um)" in stated
    assert "spots are 50 um apart" in pitch


def test_a_diameter_in_place_of_the_radius_is_no_section_of_another_technology(tmp_path: Path) -> None:
    section, notes = read(_section(tmp_path, "ST", 50, 200, radius_px=100 / MPP))  # 100 um apart, as pooled Xenium is
    assert section.uns["raystp"]["mpp"] == pytest.approx(MPP / 2)
    (warning,) = warnings_of(notes)
    assert warning.startswith(
        "spots are 100 um apart at 0.4 um/px; expected by their files is legacy ST 200 or 150 or 141.4 um"
    )
    assert "pitch_like" not in notes


def test_in_another_folder_the_lattice_tells_the_technology(tmp_path: Path) -> None:
    section, notes = read(_section(tmp_path, "somewhere", 27.5, 100))
    assert section.uns["raystp"]["mpp"] == pytest.approx(MPP)
    (warning,) = warnings_of(notes)
    assert warning == "its folder is not named Visium or ST or VisiumHD: by the lattice of its spots it is Visium"


def test_a_bin_of_visium_hd_has_no_radius_and_needs_mpp(tmp_path: Path) -> None:
    source = _section(tmp_path, "VisiumHD", 8, 16)
    with pytest.raises(SectionError, match="um/px is unknown: the files have none"):
        read(source)
    _, notes = read(replace(source, mpp=MPP))
    assert (notes["pitch_um"], notes["pitch_like"]) == (16.0, "bins of Visium HD")


def test_places_are_found_by_the_name_of_the_counts_or_given(tmp_path: Path) -> None:
    source = _section(tmp_path, "Visium", 27.5, 100)
    assert [path.name for path in FILES_BESIDE["stimage"](source)] == ["GSE1_a_coord.csv"]
    moved = source.counts.local_path.rename(tmp_path / "counts.csv")
    with pytest.raises(SectionError, match=r"counts.csv does not end in _count.csv, .* in the column `positions`"):
        read(replace(source, counts=StoragePath.of(moved)))
    given = StoragePath.of(tmp_path / "Visium" / "coord" / "GSE1_a_coord.csv")
    section, _ = read(replace(source, counts=StoragePath.of(moved), positions=given))
    assert section.n_obs == 80


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("coord", ",yaxis,xaxis\na,1,2\n", "has no column 'r'"),
        ("coord", ",yaxis,xaxis,r\na,1,2,0\n", "has the radius r 0; expected px above 0"),
        ("coord", ",yaxis,xaxis,r\na,1,2,wide\n", "values that are not numbers: r is 'wide'"),
        ("coord", "yaxis,xaxis,r\n1,2,3\n", "does not name its spots"),
        ("gene_exp", "", "its first line has no gene names"),
        ("gene_exp", ",A,B\n", "it has no rows below its header"),
        ("gene_exp", ",A,B\na,1\n", "is not a comma-separated table of counts: CSV parse error"),
        ("gene_exp", ",A,B\na,1,many\n", "is not a comma-separated table of counts: "),
        ("gene_exp", ",A,B\nGSE1_a_0,1,\nGSE1_a_1,1,1\n", "1 counts that are not finite numbers: GSE1_a_0/B = nan"),
        ("gene_exp", ",A,A\nGSE1_a_0,1,2\nGSE1_a_1,1,1\n", "lists 1 genes more than once"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, file: str, text: str, message: str) -> None:
    source = _section(tmp_path, "Visium", 27.5, 100)
    name = "GSE1_a_coord.csv" if file == "coord" else "GSE1_a_count.csv"
    (tmp_path / "Visium" / file / name).write_text(text)
    with pytest.raises(SectionError, match=rf"^section 'GSE1_a' .*{message}"):
        read(replace(source, options=replace(source.options, max_lost=1.0)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_an_image_named_png_is_read_by_its_content(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (600, 500), (200, 60, 120)).save(tmp_path / "GSE1_a.png", format=kind)
    with open_slide("GSE1_a", StoragePath.of(tmp_path / "GSE1_a.png"), given_mpp=MPP) as slide:
        assert (slide.width, slide.height, float(slide.mpp)) == (600, 500, MPP)
