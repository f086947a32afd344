"""The unit of the array: 1k and 2k arrays of legacy ST, Visium, and sections without an array."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float64

from raystp.errors import SectionError
from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import Notes, warnings_of
from raystp.storage import StoragePath
from tests.expression.toy_layouts import as_h5ad, checkerboard, hexagonal, square, toy

Array = Float64[np.ndarray, "spot 2"]
KEEP = SectionOptions(min_counts=0.0)


def _turned(xy: Array, degrees: float) -> Array:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(xy @ turn + 5000.0)


def _legacy(folder: Path, array: Array, xy: Array, **given: Any) -> tuple[dict[str, float], Notes]:
    """Read a section of legacy ST; return its lengths and notes."""
    names = [f"{x:.0f}x{y:.0f}" for x, y in array.tolist()]
    (folder / "counts.tsv").write_text("\tA\tB\n" + "".join(f"{name}\t3\t4\n" for name in names))
    rows = zip(array.tolist(), xy.tolist(), strict=True)
    lines = [f"{x:.0f}\t{y:.0f}\t{pixel_x}\t{pixel_y}\n" for (x, y), (pixel_x, pixel_y) in rows]
    (folder / "places.tsv").write_text("x\ty\tpixel_x\tpixel_y\n" + "".join(lines))
    counts, places = StoragePath.of(folder / "counts.tsv"), StoragePath.of(folder / "places.tsv")
    section, notes = read(replace(SectionSource("S", "S", "P", "legacy_st", counts, places, options=KEEP), **given))
    return section.uns["raystp"], notes


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize(("array", "step", "pitch"), [(square(12, 12), 200.0, 200.0), (checkerboard(), 100.0, 141.42)])
def test_the_um_of_a_step_follow_from_the_parity(
    tmp_path: Path, *, array: Array, step: float, pitch: float, share: float, degrees: float
) -> None:
    rng = np.random.default_rng(3)
    array = array[rng.random(len(array)) < share]
    xy = _turned(array * step / 0.7, degrees) + rng.normal(scale=0.05 * step / 0.7, size=array.shape)
    lengths, notes = _legacy(tmp_path, array, xy)
    assert lengths["mpp"] == pytest.approx(0.7, rel=0.01)
    assert lengths["pitch_um"] == pytest.approx(pitch, abs=0.01)
    assert notes["technology"] == f"legacy ST, {'2k' if step == 100 else '1k'} array"
    assert warnings_of(notes) == []


def test_a_checkerboard_with_a_few_misread_coordinates_is_a_2k_array(tmp_path: Path) -> None:
    array = checkerboard()
    xy = array * 200.0
    array[5] += [1, 0]
    lengths, _ = _legacy(tmp_path, array, xy)
    assert lengths["mpp"] == pytest.approx(0.5, rel=0.01)


def test_a_few_spots_of_one_parity_are_a_1k_array(tmp_path: Path) -> None:
    array = np.array([(0.0, 0.0), (2.0, 0.0), (1.0, 1.0), (3.0, 3.0)])
    assert _legacy(tmp_path, array, array * 400.0)[0]["mpp"] == pytest.approx(0.5)


@pytest.mark.parametrize("given", [{"mpp": 0.5}, {"pitch_um": 141.42}])
def test_what_is_given_wins_against_a_wrong_parity(tmp_path: Path, given: dict[str, float]) -> None:
    array = square(12, 12)  # a 2k array whose file counts every second row as one
    xy = array * 141.42 / 0.5
    lengths, notes = _legacy(tmp_path, array, xy, **given)
    assert lengths["mpp"] == pytest.approx(0.5, rel=0.001)
    assert lengths["pitch_um"] == pytest.approx(141.42, rel=0.001)
    assert len(warnings_of(notes)) == 1
    assert "200 um apart" in warnings_of(notes)[0]


@pytest.mark.parametrize(("across", "down"), [(21.6, 24.05), (24.05, 21.6), (85.0, 100.0)])
def test_a_stretched_image_is_read_with_a_warning_that_has_both_steps(
    tmp_path: Path, across: float, down: float
) -> None:
    array = square(15, 15)
    lengths, notes = _legacy(tmp_path, array, array * [across, down])
    assert lengths["mpp"] == pytest.approx(200 / (across * down) ** 0.5)
    (warning,) = warnings_of(notes)
    assert f"{max(across, down):.4g} px along one axis and {min(across, down):.4g} px along the other" in warning


def test_mixed_up_columns_are_refused(tmp_path: Path) -> None:
    array = square(15, 15)
    with pytest.raises(SectionError, match=r"do not follow their array coordinates: a step is 100.0 px along one axis"):
        _legacy(tmp_path, array, array * [30.0, 100.0])


def _h5ad(folder: Path, scale: float, mpp: float | None, **changes: object) -> Notes:
    adata = as_h5ad(replace(toy("scverse"), **changes))  # type: ignore[arg-type]  # fields of Toy
    adata.obsm["spatial"] = adata.obsm["spatial"] * scale
    del adata.obs["array_row"], adata.obs["array_col"]
    adata.write_h5ad(folder / "x.h5ad")
    return read(SectionSource("S", "S", "P", "scverse", StoragePath.of(folder / "x.h5ad"), mpp=mpp))[1]


def test_without_an_array_the_pitch_is_named_and_compared_with_known_ones(tmp_path: Path) -> None:
    assert warnings_of(_h5ad(tmp_path, 1.0, 0.5)) == []
    notes = _h5ad(tmp_path, 0.6, 0.5, factors={})
    assert notes["pitch_um"] == 60.0
    (warning,) = warnings_of(notes)
    assert "spots are 60 um apart on a hexagonal lattice at 0.5 um/px, as in no known technology (Visium 1" in warning
    assert "at 0.8333 um/px it would be Visium's 100 um" in warning


def _without_array(folder: Path, apart: float, mpp: float, *, kind: str, **given: float) -> tuple[float, list[str]]:
    """Return the pitch and the warnings of spots `apart` um from each other at the true .4167 um/px, read at `mpp`."""
    array, step = (hexagonal(), (0.5, 0.75**0.5)) if kind == "hexagonal" else (square(), (1.0, 1.0))
    adata = as_h5ad(replace(toy("scverse"), xy=array * np.asarray(step) * apart / 0.4167, factors={}))
    del adata.obs["array_row"], adata.obs["array_col"]
    adata.write_h5ad(folder / "x.h5ad")
    source = SectionSource("S", "S", "P", "scverse", StoragePath.of(folder / "x.h5ad"), mpp=mpp)
    notes = read(replace(source, **given))[1]  # type: ignore[arg-type]  # numbers of SectionSource only
    pitch = notes["pitch_um"]
    assert isinstance(pitch, float)
    assert notes["nearest_um"] == pitch
    return pitch, warnings_of(notes)


@pytest.mark.parametrize(("kind", "pitch"), [("hexagonal", 100), ("square", 100), ("square", 128), ("square", 150)])
def test_a_wrong_mpp_is_named_with_the_pitch_it_makes_and_the_right_one_is_not(
    tmp_path: Path, kind: str, pitch: float
) -> None:
    assert _without_array(tmp_path, pitch, 0.4167, kind=kind) == (pitch, [])
    seen, (warning,) = _without_array(tmp_path, pitch, 0.2, kind=kind)
    assert seen == pytest.approx(pitch * 0.2 / 0.4167, abs=0.01)
    assert f"spots are {seen:.4g} um apart on a {kind} lattice at 0.2 um/px" in warning
    assert ("Visium 100)" in warning) == (kind == "hexagonal")
    assert ("legacy ST 200 or 150 or 141.4, pooled Xenium 100, pooled Visium HD 128" in warning) == (kind == "square")


def test_the_lattice_of_visium_at_half_its_scale_is_not_taken_for_legacy_st(tmp_path: Path) -> None:
    pitch, (warning,) = _without_array(tmp_path, 100, 2 * 0.4167, kind="hexagonal")
    assert pitch == 200
    assert "known technology (Visium 100): at 0.4167 um/px it would be Visium's 100 um;" in warning
    assert _without_array(tmp_path, 100, 2 * 0.4167, kind="square") == (200, [])  # of places alone nobody can tell


def test_a_grid_of_ones_own_is_stated_in_pitch_um(tmp_path: Path) -> None:
    assert _without_array(tmp_path, 50, 0.4167, kind="square", pitch_um=50.0) == (50, [])
    _, (warning,) = _without_array(tmp_path, 50, 0.2, kind="square", pitch_um=50.0)
    assert "spots are 24 um apart at 0.2 um/px; those by pitch_um are 50 um apart, which is so at 0.4167" in warning


def test_spots_larger_than_their_pitch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SectionError, match=r"spots of 65.0 um across .* cannot be 20.0 um apart: .* full-resolution"):
        _h5ad(tmp_path, 0.2, 0.5)


def test_a_visium_h5ad_needs_no_um_per_pixel(tmp_path: Path) -> None:
    as_h5ad(toy("scverse")).write_h5ad(tmp_path / "x.h5ad")
    section, notes = read(SectionSource("S", "S", "P", "scverse", StoragePath.of(tmp_path / "x.h5ad")))
    assert section.uns["raystp"]["mpp"] == pytest.approx(0.5)
    assert (notes["mpp_from"], notes["technology"]) == ("pitch", "Visium")


def test_a_section_of_one_spot_is_read_where_um_per_pixel_is_known(tmp_path: Path) -> None:
    as_h5ad(toy("scverse"))[[5]].write_h5ad(tmp_path / "x.h5ad")
    source = SectionSource("S", "S", "P", "scverse", StoragePath.of(tmp_path / "x.h5ad"), mpp=0.5)
    section, notes = read(source)
    assert section.n_obs == 1
    assert "no two spots, so its pitch is unknown; 100 um is assumed" in warnings_of(notes)[0]
    with pytest.raises(SectionError, match=r"um/px is unknown: .* too few"):
        read(replace(source, mpp=None))


def test_the_bins_of_visium_hd_in_an_h5ad_may_be_mirrored(tmp_path: Path) -> None:
    adata = as_h5ad(replace(toy("scverse"), factors={"bin_size_um": 8.0, "microns_per_pixel": 0.5}))
    array = square()
    adata.obs["array_row"], adata.obs["array_col"] = array[:, 1].astype(int), array[:, 0].astype(int)
    adata.obsm["spatial"] = array * [-16.0, 16.0] + [2000.0, 0.0]
    adata.obs_names = [f"s_008um_{int(y):05d}_{int(x):05d}-1" for x, y in array.tolist()]
    adata.write_h5ad(tmp_path / "x.h5ad")
    section, notes = read(SectionSource("S", "S", "P", "scverse", StoragePath.of(tmp_path / "x.h5ad")))
    assert (section.uns["raystp"]["mpp"], section.uns["raystp"]["pitch_um"]) == (0.5, 8.0)
    assert (notes["technology"], notes["mpp_from"]) == ("Visium HD, 8 um bins", "scalefactors")
