from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from raystp.errors import SectionError, StorageError
from raystp.expression.schema import (
    SpotPositions,
    check_section,
    make_section,
    read_section,
    section_info,
    write_section,
)
from raystp.storage import StoragePath

Make = Callable[..., ad.AnnData]


def test_a_section_is_what_scverse_users_expect(make: Make) -> None:
    section = make([[1, 0, 2], [0, 3, 0]])
    assert sp.issparse(section.X)
    assert section.X.format == "csr"
    assert section.X.dtype == np.float32
    assert section.X.toarray().tolist() == [[1, 0, 2], [0, 3, 0]]
    assert section.obs_names.tolist() == ["s0", "s1"]
    assert section.obsm["spatial"].tolist() == [[10, 1000], [20, 2000]]
    assert section.obs["array_row"].tolist() == [1, 2]
    assert section.obs["array_col"].tolist() == [2, 4]
    library = section.uns["spatial"]["S1"]
    assert library["images"] == {}
    assert library["metadata"] == {}
    assert library["scalefactors"] == {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 110.0}
    assert section.uns["raystp"]["schema_version"] == 1


def test_a_written_section_reads_back(make: Make, tmp_path: Path) -> None:
    section = make([[1, 0, 2], [0, 3, 0]], ["A", "B", "C"], patient="P7")
    path = StoragePath.of(tmp_path / "S1.h5ad")
    write_section(path, section)
    back = read_section(path)
    assert back.X.toarray().tolist() == section.X.toarray().tolist()
    assert back.var_names.tolist() == ["A", "B", "C"]
    assert back.obsm["spatial"].tolist() == section.obsm["spatial"].tolist()
    assert section_info(back) == section_info(section)
    assert section_info(back).patient == "P7"


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, np.nan], [1, 1]], r"1 counts that are not finite numbers: s0/g1 = nan"),
        ([[1, 1], [np.inf, 1]], r"1 counts that are not finite numbers: s1/g0 = inf"),
        ([[1, 1], [1, -2]], r"1 negative counts: s1/g1 = -2"),
        ([[0.5] * 4, [1.5] * 4], r"8 counts that are not whole.*s0/g0 = 0.5, .*s0/g3 = 0.5, s1/g0 = 1.5 and 3 more"),
        ([[1, 1], [0, 0]], r"1 spots without a count.*'s1'; remove them"),
        (np.zeros((0, 2)), r"has no spots: 0 spots x 2 genes"),
        (np.zeros((2, 0)), r"has no genes: 2 spots x 0 genes"),
    ],
)
def test_counts_that_are_not_raw_are_refused_by_spot_and_gene(make: Make, counts: Any, message: str) -> None:
    with pytest.raises(SectionError, match=message):
        make(counts)


def test_duplicate_genes_are_reported(make: Make) -> None:
    with (
        pytest.warns(UserWarning, match="not unique"),
        pytest.raises(SectionError, match=r"lists 1 genes more than once \('A'\)"),
    ):
        make([[1, 2, 3]], ["A", "B", "A"])


def _twice(section: ad.AnnData) -> None:
    section.obs.index = section.obs.index.where(section.obs.index != "s1", "s0")


def _infinite(section: ad.AnnData) -> None:
    section.obsm["spatial"][1, 0] = np.inf


def _cube(section: ad.AnnData) -> None:
    section.obsm["spatial"] = np.ones((2, 3))


def _lost(section: ad.AnnData) -> None:
    del section.obsm["spatial"]


def _dense(section: ad.AnnData) -> None:
    section.X = section.X.toarray()


def _out_of_range(section: ad.AnnData) -> None:
    section.X.indices[0] = 99


def _label(**values: object) -> Callable[[ad.AnnData], None]:
    def change(section: ad.AnnData) -> None:
        section.uns["raystp"].update(values)

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_twice, r"lists 1 spots more than once \('s0'\)"),
        (_infinite, r"1 spots whose position is not finite: 's1'"),
        (_cube, r"obsm\['spatial'\] has shape \(2, 3\), expected \(2, 2\)"),
        (_lost, r"obsm\['spatial'\] is absent, expected \(2, 2\)"),
        (_dense, r"counts as ndarray, the schema has CSR float32"),
        (_out_of_range, r"damaged count matrix"),
        (_label(schema_version=2), r"schema version 2, this raystp reads version 1: run `raystp spots`"),
        (_label(mpp=352.8), r"implausible 352.8 um/px"),
        (_label(mpp=float("nan")), r"nan um/px"),
        (_label(pitch_um=0.0), r"pitch_um 0.0"),
        (_label(section="../x"), r"section '../x'.*consists of letters"),
        (lambda section: section.uns["raystp"].pop("patient"), r"lacks 'patient'"),
        (lambda section: section.uns.pop("raystp"), r"it is not a section of raystp; run `raystp spots`"),
    ],
)
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_a_damaged_section_is_neither_accepted_nor_written(
    make: Make, tmp_path: Path, damage: Callable[[ad.AnnData], object], message: str
) -> None:
    section = make([[1, 2], [3, 4]])
    damage(section)
    with pytest.raises(SectionError, match=f"^here.*{message}"):
        check_section(section, "here")
    with pytest.raises(SectionError, match=message):
        write_section(StoragePath.of(tmp_path / "x.h5ad"), section)
    assert list(tmp_path.iterdir()) == []


def test_another_h5ad_is_not_a_section(tmp_path: Path) -> None:
    path = tmp_path / "x.h5ad"
    ad.AnnData(np.ones((2, 2), dtype=np.float32)).write_h5ad(path)
    with pytest.raises(SectionError, match=r"x.h5ad has no uns\['raystp'\]"):
        read_section(StoragePath.of(path))


def test_absent_and_damaged_files_are_reported(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no file at"):
        read_section(StoragePath.of(tmp_path / "absent.h5ad"))
    (tmp_path / "text.h5ad").write_text("counts")
    with pytest.raises(SectionError, match="is not a readable HDF5 file"):
        read_section(StoragePath.of(tmp_path / "text.h5ad"))
    write_section(StoragePath.of(tmp_path / "whole.h5ad"), make([[1, 2], [3, 4]]))
    whole = (tmp_path / "whole.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SectionError, match=r"cut.h5ad is not"):
        read_section(StoragePath.of(tmp_path / "cut.h5ad"))
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["X"] = [1, 2]
        file.attrs["encoding-type"] = "anndata"
        file.attrs["encoding-version"] = "99"
    with pytest.raises(SectionError, match="not an h5ad file that anndata can read"):
        read_section(StoragePath.of(tmp_path / "other.h5ad"))


def test_given_scale_factors_are_kept(make: Make) -> None:
    whole = make([[1]])
    from_file = make_section(
        whole.X,
        ["A"],
        SpotPositions(["s0"], whole.obsm["spatial"], np.ones(1), np.ones(1)),
        section_info(whole),
        gene_ids=["ENSG1"],
        scalefactors={"tissue_hires_scalef": 0.1, "spot_diameter_fullres": 130.0},
    )
    assert from_file.uns["spatial"]["S1"]["scalefactors"] == {
        "tissue_hires_scalef": 0.1,
        "spot_diameter_fullres": 130.0,
    }
    assert from_file.var["gene_ids"].tolist() == ["ENSG1"]
