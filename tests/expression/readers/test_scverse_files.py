"""What an h5ad of other programs holds: several libraries, counts in other places, symbols, values from R."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raystp.errors import SectionError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import Notes, warnings_of
from raystp.storage import StoragePath
from tests.expression.toy_layouts import GENES, IDS, MPP, as_h5ad, toy

SECTION = toy("scverse")
COUNTS = SECTION.counts


def _read(adata: ad.AnnData, folder: Path, **given: object) -> tuple[ad.AnnData, Notes]:
    adata.write_h5ad(folder / "x.h5ad")
    source = SectionSource("S1", "slide1", "P1", "scverse", StoragePath.of(folder / "x.h5ad"), mpp=MPP)
    return read(replace(source, **given))  # type: ignore[arg-type]  # fields of SectionSource


def _normalised() -> ad.AnnData:
    adata = as_h5ad(SECTION)
    adata.X = np.log1p(COUNTS).astype(np.float32)
    return adata


# ---- libraries


def _two(column: str | None = "library_id", names: tuple[str, str] = ("S1", "S2")) -> ad.AnnData:
    """Return two sections in one file, the second with twice the counts, as anndata.concat joins them."""
    first, second = as_h5ad(SECTION), as_h5ad(replace(SECTION, counts=2 * COUNTS))
    for adata, name in ((first, names[0]), (second, names[1])):
        adata.uns["spatial"] = {name: adata.uns["spatial"]["lib1"]}
    second.obsm["spatial"] = second.obsm["spatial"] + [150.0, 90.0]
    both = ad.concat([first, second], label=column, keys=list(names), index_unique="-", uns_merge="unique")
    both.var["gene_ids"] = IDS
    return both


@pytest.mark.parametrize("column", ["library_id", "sample", "batch", "slide", "section", "orig.ident"])
def test_the_library_named_like_the_section_is_read(tmp_path: Path, column: str) -> None:
    section, notes = _read(_two(column), tmp_path)
    assert section.X.toarray().tolist() == COUNTS.tolist()
    assert section.obsm["spatial"].tolist() == SECTION.xy.tolist()
    assert (notes["library"], notes["dropped_other_libraries"]) == ("S1", 64)


def test_the_library_of_the_table_or_the_slide_is_read(tmp_path: Path) -> None:
    section, _ = _read(_two(), tmp_path, library="S2")
    assert section.X.toarray().tolist() == (2 * COUNTS).tolist()
    section, notes = _read(_two(names=("A", "slide1")), tmp_path)
    assert notes["library"] == "slide1"
    assert section.X.toarray().tolist() == (2 * COUNTS).tolist()


@pytest.mark.parametrize("library", [None, "S9"])
def test_without_a_name_that_fits_the_libraries_are_listed(tmp_path: Path, library: str | None) -> None:
    with pytest.raises(SectionError, match=r"has 2 libraries \('A', 'B'\), and none .* column `library` of the slide"):
        _read(_two(names=("A", "B")), tmp_path, library=library)


def test_two_sections_without_a_column_that_tells_them_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SectionError, match="64 of 128 spots have the same array_row and array_col as another spot"):
        _read(_two(column=None), tmp_path)


def test_two_samples_under_one_library_are_seen(tmp_path: Path) -> None:
    both = _two("sample", ("T1", "T2"))
    both.uns["spatial"] = {"lib": both.uns["spatial"]["T1"]}
    with pytest.raises(SectionError, match=r"has 2 libraries \('T1', 'T2'\)"):
        _read(both, tmp_path)


def test_all_libraries_may_be_wanted(tmp_path: Path) -> None:
    adata = as_h5ad(SECTION)
    adata.obs["sample"] = ["a"] * 32 + ["b"] * 32
    section, notes = _read(adata, tmp_path, library="all")
    assert section.n_obs == 64
    assert "spots of all 2 libraries ('a', 'b') are used" in warnings_of(notes)[0]


def test_regions_of_one_section_are_no_libraries(tmp_path: Path) -> None:
    adata = as_h5ad(SECTION)
    adata.obs["region"] = ["cortex"] * 32 + ["medulla"] * 32
    section, notes = _read(adata, tmp_path)
    assert section.n_obs == 64
    assert warnings_of(notes) == []


def test_an_entry_beside_the_libraries_is_no_library(tmp_path: Path) -> None:
    adata = as_h5ad(SECTION)
    adata.uns["spatial"] = {"is_single": np.True_, "a_first": 3, **adata.uns["spatial"]}
    _, notes = _read(adata, tmp_path)
    assert notes["scalefactors_spot_diameter_um"] == pytest.approx(65)


# ---- counts


def _raw(adata: ad.AnnData) -> None:
    adata.raw = as_h5ad(SECTION)


def _layer(*names: str) -> Callable[[ad.AnnData], None]:
    def add(adata: ad.AnnData) -> None:
        for name in names:
            adata.layers[name] = COUNTS.astype(np.float32)

    return add


@pytest.mark.parametrize(
    ("add", "found"),
    [
        (_raw, ".raw"),
        (_layer("counts"), "layers['counts']"),
        (_layer("raw_counts"), "layers['raw_counts']"),
        (_layer("umi"), "layers['umi']"),
    ],
)
def test_raw_counts_are_found_where_x_is_normalised(
    tmp_path: Path, add: Callable[[ad.AnnData], None], found: str
) -> None:
    adata = _normalised()
    add(adata)
    section, notes = _read(adata, tmp_path)
    assert section.X.toarray().tolist() == COUNTS.tolist()
    assert notes["counts_from"] == found


def test_raw_may_have_more_genes_and_other_names_than_x(tmp_path: Path) -> None:
    adata = _normalised()
    whole = as_h5ad(SECTION)
    whole.var = pd.DataFrame({"feature_name": GENES}, index=IDS)
    adata.raw = whole
    section, notes = _read(adata[:, :6].copy(), tmp_path)
    assert section.var_names.tolist() == GENES
    assert section.var["gene_ids"].tolist() == IDS
    assert notes["gene_names_from"] == "feature_name"


def test_several_layers_of_whole_numbers_need_a_choice(tmp_path: Path) -> None:
    adata = _normalised()
    _layer("spliced", "unspliced")(adata)
    with pytest.raises(
        SectionError, match="several layers hold whole numbers: 'spliced', 'unspliced'; choose one with"
    ):
        _read(adata, tmp_path)
    section, notes = _read(adata, tmp_path, counts_layer="spliced")
    assert section.X.toarray().tolist() == COUNTS.tolist()
    assert notes["counts_from"] == "layers['spliced']"
    with pytest.raises(SectionError, match="counts_layer is 'umi', and the file has 'X', 'spliced', 'unspliced'"):
        _read(adata, tmp_path, counts_layer="umi")


def test_a_mask_is_no_layer_of_counts(tmp_path: Path) -> None:
    adata = _normalised()
    adata.layers["detected"] = (COUNTS > 4).astype(np.float32)
    with pytest.raises(SectionError, match=r"not raw counts \(normalised already\?\).*there are no raw counts in X"):
        _read(adata, tmp_path)


# ---- genes


@pytest.mark.parametrize("column", ["gene_symbols", "feature_name", "symbol", "SYMBOL", "gene_name", "gene_short_name"])
def test_symbols_beside_ensembl_ids_become_the_names(tmp_path: Path, column: str) -> None:
    adata = as_h5ad(SECTION)
    symbols = [*GENES[:-1], ""]
    adata.var = pd.DataFrame({column: symbols}, index=[f"{gene}.{n}" for n, gene in enumerate(IDS)])
    section, _ = _read(adata, tmp_path)
    assert section.var_names.tolist() == [*GENES[:-1], IDS[-1]]
    assert section.var["gene_ids"].tolist() == IDS


@pytest.mark.parametrize("column", ["gene_ids", "gene_id", "ensembl_id", "feature_id"])
def test_ids_beside_symbols_are_kept_without_versions(tmp_path: Path, column: str) -> None:
    adata = as_h5ad(SECTION)
    adata.var = pd.DataFrame({column: [f"{gene}.7" for gene in IDS]}, index=GENES)
    section, _ = _read(adata, tmp_path)
    assert section.var_names.tolist() == GENES
    assert section.var["gene_ids"].tolist() == IDS


def test_ids_of_mouse_and_of_the_second_sex_chromosome_are_recognised(tmp_path: Path) -> None:
    ids = [f"ENSMUSG{number:011d}.2" for number in range(9)] + ["ENSG00000182378.15_PAR_Y"]
    adata = as_h5ad(SECTION)
    adata.var = pd.DataFrame(index=ids)
    section, notes = _read(adata, tmp_path)
    assert section.var_names[-1] == "ENSG00000182378_PAR_Y"
    assert section.var_names[0] == "ENSMUSG00000000000"
    assert notes["gene_names_from"] == "Ensembl ids; the files have no symbols"


# ---- values of other programs


@pytest.mark.parametrize("as_stored", [lambda v: np.array([v]), str, lambda v: np.array([str(v)]), np.float32, int])
def test_a_number_is_read_as_r_and_text_have_it(tmp_path: Path, as_stored: Callable[[float], object]) -> None:
    adata = as_h5ad(SECTION)
    factors = {"spot_diameter_fullres": as_stored(130.0), "microns_per_pixel": as_stored(1.0)}
    adata.obsm["spatial"] = adata.obsm["spatial"] / 2
    adata.uns["spatial"]["lib1"] = {"scalefactors": factors, "metadata": {"chemistry": np.array(["v1"])}}
    del adata.obs["array_row"]
    with pytest.raises(SectionError, match=r"spots of 130.0 um across"):
        _read(adata, tmp_path, mpp=None)


def test_a_scale_factor_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    adata = as_h5ad(SECTION)
    adata.uns["spatial"]["lib1"]["scalefactors"] = {"spot_diameter_fullres": "unknown", "tissue_hires_scalef": "nan"}
    section, notes = _read(adata, tmp_path)
    assert "scalefactors_spot_diameter_um" not in notes
    assert section.uns["spatial"]["S1"]["scalefactors"]["tissue_hires_scalef"] == 1.0


@pytest.mark.parametrize("chemistry", ["Visium V4 Slide - FFPE v2", "Visium CytAssist"])
def test_the_array_of_cytassist_may_be_mirrored(tmp_path: Path, chemistry: str) -> None:
    adata = as_h5ad(SECTION)
    adata.obsm["spatial"] = adata.obsm["spatial"] * [-1.0, 1.0] + [5000.0, 0.0]
    with pytest.raises(SectionError, match="mirrored"):
        _read(adata, tmp_path)
    adata.uns["spatial"]["lib1"]["metadata"] = {"chemistry_description": np.array([chemistry])}
    _, notes = _read(adata, tmp_path)
    assert "array is mirrored" in warnings_of(notes)[0]


def test_positions_and_columns_that_differ_are_refused(tmp_path: Path) -> None:
    adata = as_h5ad(SECTION)
    adata.obs["pxl_col_in_fullres"], adata.obs["pxl_row_in_fullres"] = (SECTION.xy / 0.2).T
    with pytest.raises(SectionError, match=r"obsm\['spatial'\] and the obs columns .* differ for 64 of 64 spots"):
        _read(adata, tmp_path)


def test_an_array_that_is_no_lattice_is_not_used(tmp_path: Path) -> None:
    adata = as_h5ad(SECTION)
    rng = np.random.default_rng(0)  # pooled bins, numbered after the empty ones were dropped
    adata.obs["array_row"], adata.obs["array_col"] = rng.permutation(64), rng.permutation(64)
    _, notes = _read(adata, tmp_path)
    assert "array_row and array_col are not used" in warnings_of(notes)[0]
