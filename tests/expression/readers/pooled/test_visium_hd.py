"""Visium HD: bins are pooled as a dense loop over them does, and each wrong file has its sentence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from raystp.errors import SectionError
from raystp.expression.readers.pooled import matrix
from raystp.expression.readers.registry import read
from raystp.expression.section_checks.raw import warnings_of
from tests.expression.readers.pooled.hd_files import (
    GENES,
    IDS,
    MPP,
    Bins,
    holes,
    source_of,
    write_bins,
    write_matrix,
    write_positions,
)

Loop = dict[tuple[int, int], tuple[list[float], list[int]]]


def dense_loop(bins: Bins, factor: int) -> Loop:
    """Return the centre and counts of each square, bin by bin."""
    members: dict[tuple[int, int], list[int]] = {}
    for number, (row, column) in enumerate(bins.array.tolist()):
        if bins.listed[number]:
            members.setdefault((row // factor, column // factor), []).append(number)
    found: Loop = {}
    for square, numbers in members.items():
        inside = [number for number in numbers if bins.inside[number]]
        if 2 * len(inside) < factor**2:
            continue
        centre = np.mean([bins.xy[number] for number in numbers], axis=0).tolist()
        found[square] = centre, np.sum([bins.counts[number] for number in inside], axis=0).tolist()
    return found


@pytest.mark.parametrize("factor", [1, 5, 7, 14])
def test_pooled_squares_are_those_of_a_dense_loop(tmp_path: Path, factor: int) -> None:
    bins = holes()
    write_bins(tmp_path, bins)
    section, notes = read(source_of(tmp_path, pool_um=8.0 * factor))
    expected = {square: one for square, one in dense_loop(bins, factor).items() if sum(one[1][:4])}
    places = list(zip(section.obs["array_row"].tolist(), section.obs["array_col"].tolist(), strict=True))
    assert places == sorted(expected)
    assert section.obsm["spatial"] == pytest.approx(np.array([expected[square][0] for square in places]), abs=1e-6)
    assert section.X.toarray().tolist() == [expected[square][1][:4] for square in places]
    assert section.obs_names[0] == f"008um_{places[0][0]:05d}_{places[0][1]:05d}"
    assert section.var_names.tolist() == GENES[:4]
    assert section.var["gene_ids"].tolist() == IDS[:4]
    assert notes["dropped_features"] == 1
    label = section.uns["raystp"]
    assert (label["mpp"], label["pitch_um"], label["spot_diameter_um"]) == (MPP, 8.0 * factor, 8.0 * factor)
    assert notes["mpp_by_pitch"] == pytest.approx(MPP, rel=1e-9)
    assert warnings_of(notes) == []


def test_the_default_square_is_112_um(tmp_path: Path) -> None:
    bins = Bins()
    write_bins(tmp_path, bins)
    section, notes = read(source_of(tmp_path))
    # 40 bins of 8 um: two squares of 14 bins, and 12 of the next 14, which is 86 % of its side.
    assert section.n_obs == 9
    assert (notes["bin_um"], notes["pool_um"], notes["spot_shape"]) == (8.0, 112.0, "square")
    assert section.X.sum() == bins.counts[:, :4].sum()


def test_a_raw_and_a_filtered_matrix_give_the_same_squares(tmp_path: Path) -> None:
    folder = write_bins(tmp_path, holes())
    filtered, _ = read(source_of(folder / "filtered_feature_bc_matrix.h5", pool_um=40.0))
    raw, notes = read(source_of(folder / "raw_feature_bc_matrix.h5", pool_um=40.0))
    assert raw.X.toarray().tolist() == filtered.X.toarray().tolist()
    assert notes["dropped_bins_off_tissue"] == int((holes().listed & ~holes().inside).sum())


@pytest.mark.parametrize("given", ["", "outs", "outs/binned_outputs", "outs/binned_outputs/square_008um"])
def test_the_bins_are_found_from_every_folder(tmp_path: Path, given: str) -> None:
    write_bins(tmp_path / "outs", Bins())
    write_bins(tmp_path / "outs", Bins(bin_um=16))
    section, notes = read(source_of(tmp_path / given, pool_um=112.0))
    assert (section.n_obs, notes["bin_um"]) == (9, 8.0)
    if not given.endswith("008um"):
        section, notes = read(source_of(tmp_path / given, bin_um=16.0))
        assert (section.n_obs, notes["bin_um"], notes["pool_um"]) == (36, 16.0, 112.0)


def test_the_size_of_slabs_does_not_change_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bins(tmp_path, holes())
    whole, _ = read(source_of(tmp_path, pool_um=40.0))
    monkeypatch.setattr(matrix, "BARCODES", 301)
    monkeypatch.setattr(matrix, "VALUES", 97)
    monkeypatch.setattr("raystp.expression.readers.pooled.sums.PENDING", 200)
    parts, _ = read(source_of(tmp_path, pool_um=40.0))
    assert parts.X.toarray().tolist() == whole.X.toarray().tolist()


def test_a_mirrored_array_is_read_with_a_warning_as_the_instrument_mirrors(tmp_path: Path) -> None:
    bins = Bins()
    folder = write_bins(tmp_path, bins)
    order = np.random.default_rng(2).permutation(np.flatnonzero(bins.listed))
    write_positions(folder / "spatial/tissue_positions.parquet", bins, pxl_row_in_fullres=9000.0 - bins.xy[order, 1])
    _, notes = read(source_of(tmp_path))
    assert any("array is mirrored" in warning for warning in warnings_of(notes))


# ---- Wrong files


def _positions(folder: Path, **changed: object) -> None:
    write_positions(folder / "spatial" / "tissue_positions.parquet", Bins(), **changed)


def _matrix(folder: Path, **changed: object) -> None:
    write_matrix(folder / "filtered_feature_bc_matrix.h5", Bins(), np.arange(1600), **changed)


def _remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _no_group(folder: Path) -> None:
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        file["other"] = 1


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no positions": (
        lambda folder: _remove(folder, "spatial/tissue_positions.parquet"),
        r"no spatial/tissue_positions.parquet beside filtered_feature_bc_matrix.h5 .* there are .*'spatial'",
    ),
    "a column is absent": (
        lambda folder: _positions(folder, in_tissue=None),
        "has no column 'in_tissue'; it has 'barc",
    ),
    "words as flags": (
        lambda folder: _positions(folder, in_tissue=np.full(1600, 2)),
        r"has in_tissue \[2\]; expected 1 or 0",
    ),
    "no place": (
        lambda folder: _positions(folder, pxl_row_in_fullres=np.full(1600, np.nan)),
        "1600 bins whose position is not finite",
    ),
    "below 0": (lambda folder: _positions(folder, array_row=np.full(1600, -1)), "array_row -1; array coordinates"),
    "huge array": (
        lambda folder: _positions(folder, array_row=np.full(1600, 10**9)),
        "an array of 1000000001 x 40 bins, .* at most 200000000 bins",
    ),
    "mixed up": (
        lambda folder: _positions(folder, array_row=np.zeros(1600, np.int64)),
        "is at array_row 0, array_col .* rows are mixed up",
    ),
    "twice": (
        lambda folder: _positions(
            folder,
            barcode=[Bins().names[0]] * 1600,
            array_row=np.zeros(1600, np.int64),
            array_col=np.zeros(1600, np.int64),
        ),
        "lists bins more than once: 1599",
    ),
    "cells": (
        lambda folder: _matrix(folder, barcodes=np.array([f"cellid_{n:09d}-1".encode() for n in range(1600)])),
        "'cellid_000000000-1' .a segmented cell. among 1600 of 1600 barcodes that are no bins",
    ),
    "spots": (
        lambda folder: _matrix(folder, barcodes=np.array([f"ACGT{n:09d}-1".encode() for n in range(1600)])),
        "'ACGT000000000-1' among 1600 of 1600 barcodes that are no bins of Visium HD",
    ),
    "two libraries": (
        lambda folder: _matrix(
            folder, barcodes=np.array([f"{name[:-1]}{1 + n % 2}".encode() for n, name in enumerate(Bins().names)])
        ),
        "barcodes that end in -1, -2: it is an aggregate",
    ),
    "another section": (
        lambda folder: write_matrix(
            folder / "filtered_feature_bc_matrix.h5",
            Bins(),
            np.arange(1600),
            barcodes=np.array([f"s_008um_{n:05d}_00900-1".encode() for n in range(1600)]),
        ),
        "1600 of 1600 bins with counts have no position in tissue, such as 's_008um_00000_00900-1'",
    ),
    "lengths": (lambda folder: _matrix(folder, shape=np.array([5, 9])), "its shape is 5 x 9, but it has 1600 barcodes"),
    "beyond": (
        lambda folder: _matrix(folder, indices=np.full(np.count_nonzero(Bins().counts), 77)),
        "indices go from 77 to 77, and it has 5 features",
    ),
    "fractions": (
        lambda folder: _matrix(folder, data=np.full(np.count_nonzero(Bins().counts), 0.5)),
        "are not raw counts, which are whole and not negative: the first is 0.5",
    ),
    "backwards": (
        lambda folder: _matrix(
            folder, indptr=np.array([0, *[9] * 1599, np.count_nonzero(Bins().counts)])[np.r_[1, 0, 2:1601]]
        ),
        "indptr does not increase",
    ),
    "no matrix": (_no_group, "is not a feature-barcode matrix of 10x"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_file_has_its_sentence(tmp_path: Path, fault: str) -> None:
    change, sentence = FAULTS[fault]
    change(write_bins(tmp_path, Bins()))
    with pytest.raises(SectionError, match=rf"^section 'S1' .*({sentence})"):
        read(source_of(tmp_path))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pool_um": 20.0}, "pool_um is 20, no multiple of its bins of 8 um: set pool_um to 16 or 24"),
        ({"pool_um": 4.0}, "pool_um is 4, no multiple of its bins of 8 um: set pool_um to 8, or another bin_um"),
        ({"bin_um": 16.0}, "no square_016um in .*; there are 'square_008um': set bin_um"),
    ],
)
def test_a_square_that_does_not_fit_has_its_sentence(tmp_path: Path, options: dict[str, float], sentence: str) -> None:
    write_bins(tmp_path, Bins())
    with pytest.raises(SectionError, match=sentence):
        read(source_of(tmp_path, **options))


def test_another_bin_size_than_that_of_the_folder_has_its_sentence(tmp_path: Path) -> None:
    folder = write_bins(tmp_path, Bins())
    with pytest.raises(SectionError, match=r"has bins of 8 um by its scale factors .* or its folder, and bin_um is 16"):
        read(source_of(folder, bin_um=16.0))


@pytest.mark.parametrize("given", ["segmented_outputs", "segmented_outputs/filtered_feature_cell_matrix.h5"])
def test_segmented_cells_are_not_read_as_spots(tmp_path: Path, given: str) -> None:
    folder = tmp_path / "segmented_outputs"
    folder.mkdir()
    write_matrix(folder / "filtered_feature_cell_matrix.h5", Bins(), np.arange(10))
    with pytest.raises(SectionError, match="segmented cells of Visium HD, which are not read as spots: give outs"):
        read(source_of(tmp_path / given))


def test_without_scale_factors_the_bin_is_that_of_the_folder_and_um_per_px_that_of_the_bins(tmp_path: Path) -> None:
    folder = write_bins(tmp_path, Bins(bin_um=16))
    (folder / "spatial" / "scalefactors_json.json").unlink()
    section, notes = read(source_of(folder))
    assert (notes["bin_um"], notes["mpp_from"]) == (16.0, "pitch")
    assert section.uns["raystp"]["mpp"] == pytest.approx(MPP)


def test_places_on_the_hires_picture_are_scaled_with_their_um_per_px(tmp_path: Path) -> None:
    write_bins(tmp_path, holes())
    full, _ = read(source_of(tmp_path))
    hires, notes = read(replace(source_of(tmp_path), image="hires"))
    assert hires.obsm["spatial"] == pytest.approx(full.obsm["spatial"] * 0.1)
    assert hires.uns["raystp"]["mpp"] == pytest.approx(MPP / 0.1)
    assert notes["mpp_by_pitch"] == pytest.approx(MPP / 0.1)


def test_a_section_without_tissue_has_its_sentence(tmp_path: Path) -> None:
    write_bins(tmp_path, replace(Bins(), inside=np.zeros(1600, bool)))
    with pytest.raises(SectionError, match="half of its bins in tissue; of 1600 bins 0 are in tissue: set a smaller"):
        read(source_of(tmp_path))


def test_a_wrong_um_per_px_is_an_error_that_names_both(tmp_path: Path) -> None:
    write_bins(tmp_path, Bins())
    with pytest.raises(SectionError, match=r"mpp 0.5 was given, but the spots' pitch gives 0.25 um/px"):
        read(replace(source_of(tmp_path), mpp=0.5))
