"""Layout `hest`: the file beside it gives um/px, control probes are no genes, and pooled rows are no lattice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from raystp.errors import SectionError
from raystp.expression.readers.registry import FILES_BESIDE, read
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import warnings_of
from raystp.storage import StoragePath
from tests.expression.readers.others.foreign import hest_section, lattice

GENES = [f"GENE{number}" for number in range(12)]
MPP = 0.4167
ABOUT = {"pixel_size_um_estimated": MPP, "pixel_size_um_embedded": 0.9, "spot_diameter": 55.0, "inter_spot_dist": 100.0}


def _visium(root: Path, about: Any = ABOUT, genes: list[str] = GENES) -> SectionSource:
    path = root / "st" / "TENX1.h5ad"
    hest_section(path, lattice(10, 10, 100 / MPP, hexagonal=True), genes, about=about, diameter_px=55 / MPP)
    return SectionSource("TENX1", "TENX1", "A study/P1", "hest", StoragePath.of(path))


def _pooled(root: Path, genes: list[str], about: Any = ABOUT) -> SectionSource:
    """Write a pooled section in which the third row of squares was empty, and rows were numbered after it was dropped.

    Its squares are 128 um apart.
    """
    array, xy = lattice(10, 10, 128 / MPP, hexagonal=False)
    there = array[:, 1] != 2
    array, xy = array[there], xy[there]
    array[:, 1] = np.unique(array[:, 1], return_inverse=True)[1]
    path = root / "st" / "TENX2.h5ad"
    hest_section(path, (array, xy), genes, about=about, diameter_px=55 / MPP)
    adata = ad.read_h5ad(path)
    adata.obs_names = [f"{int(row):03d}x{int(column):03d}" for column, row in array.tolist()]
    adata.write_h5ad(path)
    return SectionSource("TENX2", "TENX2", "A study/P1", "hest", StoragePath.of(path))


def test_um_per_px_patient_and_diameter_are_those_of_the_files_and_the_table(tmp_path: Path) -> None:
    section, notes = read(_visium(tmp_path))
    about = section.uns["raystp"]
    assert (about["mpp"], notes["mpp_from"]) == (MPP, "metadata/TENX1.json")
    assert about["patient"] == "A study/P1"
    assert (notes["technology"], notes["pitch_um"], about["spot_diameter_um"]) == ("Visium", 100.0, 55.0)
    assert notes["scalefactors_spot_diameter_um"] == pytest.approx(55.0)
    assert warnings_of(notes) == []
    assert section.X.sum() == section.X.toarray().sum() > 0


def test_a_given_um_per_px_wins_with_a_warning_that_names_both(tmp_path: Path) -> None:
    source = _pooled(tmp_path, GENES)
    _, notes = read(replace(source, mpp=0.2))
    stated, pitch = warnings_of(notes)
    assert stated == "mpp 0.2 (given) is used; the file has 0.4167 um/px (metadata/TENX2.json)"
    known = "pooled Xenium 100, pooled Visium HD 128"
    assert pitch.startswith(f"spots are 61.44 um apart at 0.2 um/px; expected by their files is {known} um")
    _, notes = read(replace(source, mpp=MPP * 1.56))  # 199.7 um, which would be that of legacy ST
    assert f"is {known} um" in warnings_of(notes)[1]


@pytest.mark.parametrize("about", [None, {"pixel_size_um_estimated": None}, {}])
def test_without_the_value_visium_has_its_pitch_and_other_sections_need_mpp(tmp_path: Path, about: Any) -> None:
    section, notes = read(_visium(tmp_path, about))
    assert (section.uns["raystp"]["mpp"], notes["mpp_from"]) == (pytest.approx(MPP), "pitch")
    with pytest.raises(SectionError, match=r"um/px is unknown: the files have none, .* give mpp"):
        read(_pooled(tmp_path, GENES, about))


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, '"a"', " " * (2 << 20)])
def test_a_damaged_file_beside_it_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        SectionError, match=r"^section 'TENX1' .*metadata/TENX1.json is not .*; remove it and give mpp$"
    ):
        read(_visium(tmp_path, text))


def test_control_probes_are_left_out_and_counted(tmp_path: Path) -> None:
    controls = ["BLANK_0006", "NegControlProbe_00042", "NegControlCodeword_0500", "antisense_PROKR2"]
    controls += ["UnassignedCodeword_0001", "DeprecatedCodeword_0321", "GenomicControl_1"]
    controls += ["Intergenic_Region_1"]
    section, notes = read(_pooled(tmp_path, [*GENES[:5], *controls, *GENES[5:]]))
    assert section.var_names.tolist() == GENES
    assert notes["dropped_controls"] == 8
    with pytest.raises(SectionError, match="has no genes: all of its 8 features are control probes"):
        read(_pooled(tmp_path, controls))


def test_rows_of_pooled_sections_are_no_lattice(tmp_path: Path) -> None:
    section, notes = read(_pooled(tmp_path, GENES))
    assert (notes["pitch_um"], notes["pitch_like"], notes["pooled"]) == (
        128.0,
        "pooled Visium HD",
        "to squares by HEST",
    )
    assert warnings_of(notes) == []
    assert section.obs["array_row"].tolist() == section.obsm["spatial"][:, 1].tolist()  # places stand for the array


def test_ensembl_ids_among_symbols_lose_their_versions(tmp_path: Path) -> None:
    genes = [*GENES[:-2], "ENSG00000141510.17", "ENSMUSG00000059552.3"]
    section, _ = read(_visium(tmp_path, genes=genes))
    assert section.var_names.tolist() == [*GENES[:-2], "ENSG00000141510", "ENSMUSG00000059552"]


def test_the_file_beside_it_is_one_of_the_files_that_are_read(tmp_path: Path) -> None:
    source = _visium(tmp_path)
    (file,) = FILES_BESIDE["hest"](source)
    assert json.loads(file.read_bytes()) == ABOUT
    file.remove()
    assert FILES_BESIDE["hest"](source) == []


def test_a_mirrored_array_of_cytassist_is_read_with_a_warning_and_swapped_columns_are_refused(tmp_path: Path) -> None:
    array, xy = lattice(10, 10, 100 / MPP, hexagonal=True)
    mirrored = np.column_stack([xy[:, 0].max() + 500.0 - xy[:, 0], xy[:, 1]])
    path = tmp_path / "st" / "TENX1.h5ad"
    hest_section(path, (array, mirrored), GENES, about=ABOUT, diameter_px=55 / MPP)
    source = SectionSource("TENX1", "TENX1", "A study/P1", "hest", StoragePath.of(path))
    section, notes = read(source)
    (warning,) = warnings_of(notes)
    assert warning.startswith("the array is mirrored in the positions")
    assert section.obsm["spatial"].tolist() == pytest.approx(mirrored)
    assert section.uns["raystp"]["mpp"] == pytest.approx(MPP)
    with pytest.raises(SectionError, match="the array is mirrored"):  # the layout of any other h5ad
        read(replace(source, layout="scverse", mpp=MPP))
    adata = ad.read_h5ad(path)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    adata.write_h5ad(path)
    with pytest.raises(SectionError, match=r"obsm\['spatial'\] is \(row, column\)"):
        read(source)
