from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from raystp.errors import SectionError
from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.registry import LAYOUTS, read
from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import section_info, write_section
from raystp.storage import StoragePath

OPTIONS = SectionOptions(min_counts=0.0)
XY = np.array([[100.0, 1000.0], [200.0, 1000.0], [100.0, 1100.0], [300.0, 1300.0]])
COUNTS = np.array([[1, 0], [2, 3], [0, 4], [5, 6]], dtype=np.float32)


def _foreign(**parts: Any) -> ad.AnnData:
    obs = pd.DataFrame(index=["a", "b", "c", "d"])
    made = ad.AnnData(X=sp.csr_matrix(COUNTS), obs=obs, var=pd.DataFrame(index=["G", "H"]))
    made.obsm["spatial"] = XY.copy()
    for name, value in parts.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def source(tmp_path: Path) -> SectionSource:
    return SectionSource("S1", "slide1", "P1", "scverse", StoragePath.of(tmp_path / "x.h5ad"), mpp=0.5, options=OPTIONS)


def _read(source: SectionSource, adata: ad.AnnData) -> tuple[ad.AnnData, dict[str, object]]:
    adata.write_h5ad(source.counts.local_path)
    return read(source)


def test_a_plain_h5ad_reads_with_a_given_mpp(source: SectionSource) -> None:
    section, notes = _read(source, _foreign())
    assert section.X.toarray().tolist() == COUNTS.tolist()
    assert section.obsm["spatial"].tolist() == XY.tolist()
    assert section_info(section).mpp == 0.5
    assert section_info(section).pitch_um == 50.0
    assert section_info(section).spot_diameter_um == 25.0
    assert notes["mpp_from"] == "given"
    assert notes["spot_diameter_from"] == "half the pitch"


def test_values_in_uns_are_used(source: SectionSource) -> None:
    uns = {"spatial": {"lib": {"scalefactors": {"spot_diameter_fullres": 110.0, "microns_per_pixel": 0.25}}}}
    section, notes = _read(replace(source, mpp=None), _foreign(uns=uns))
    assert section_info(section).mpp == 0.25
    assert section_info(section).spot_diameter_um == 27.5
    assert notes["mpp_from"] == "scalefactors"
    assert notes["spot_diameter_from"] == "scalefactors"
    assert list(section.uns["spatial"]) == ["S1"]


@pytest.mark.parametrize("mpp", [None, 352.8])
def test_um_per_pixel_is_required(source: SectionSource, mpp: float | None) -> None:
    with pytest.raises(SectionError, match=r"um/px is unknown: the files have none|implausible 352.8 um/px \(given\)"):
        _read(replace(source, mpp=mpp), _foreign())


def test_the_counts_layer_is_preferred_and_a_normalised_x_is_refused(source: SectionSource) -> None:
    normalised = _foreign(X=sp.csr_matrix(np.log1p(COUNTS)))
    with pytest.raises(SectionError, match=r"not raw counts .*a/G = 0.693147.* no raw counts in X: .* counts_layer"):
        _read(source, normalised)
    normalised.layers["counts"] = COUNTS
    section, notes = _read(source, normalised)
    assert section.X.toarray().tolist() == COUNTS.tolist()
    assert notes["counts_from"] == "layers['counts']"


def test_spots_off_tissue_and_without_counts_are_dropped(source: SectionSource) -> None:
    foreign = _foreign(X=COUNTS * np.array([[1], [0], [1], [1]], dtype=np.float32))
    foreign.obs["in_tissue"] = [0, 1, 1, 1]
    foreign.obs["array_row"], foreign.obs["array_col"] = [0, 0, 1, 3], [0, 1, 0, 2]
    section, notes = _read(source, foreign)
    assert section.obs_names.tolist() == ["c", "d"]
    assert section.obs["array_row"].tolist() == [1, 3]
    assert (notes["dropped_off_tissue_first"], notes["dropped_empty_first"]) == (["a"], ["b"])


def test_positions_may_be_in_obs_as_in_hest(source: SectionSource) -> None:
    hest = _foreign()
    hest.obs["pxl_col_in_fullres"], hest.obs["pxl_row_in_fullres"] = XY[:, 0], XY[:, 1]
    del hest.obsm["spatial"]
    section, notes = _read(source, hest)
    assert section.obsm["spatial"].tolist() == XY.tolist()
    assert notes["places_from"] == "obs"
    hest.obsm["spatial"] = XY[:, ::-1].copy()
    with pytest.raises(SectionError, match=r"obsm\['spatial'\] is \(row, column\).*swap its columns"):
        _read(source, hest)


def test_positions_are_required(source: SectionSource) -> None:
    foreign = _foreign()
    del foreign.obsm["spatial"]
    with pytest.raises(SectionError, match=r"has no positions: neither obsm\['spatial'\] nor obs columns pxl_col"):
        _read(source, foreign)
    foreign.obsm["spatial"] = np.ones((4, 3))
    with pytest.raises(SectionError, match=r"has shape \(4, 3\)"):
        _read(source, foreign)
    foreign.obsm["spatial"] = np.where(XY == 300, np.nan, XY)
    with pytest.raises(SectionError, match=r"1 spots whose position is not finite: 'd'"):
        _read(source, foreign)


def test_a_section_of_raystp_reads_back_unchanged(source: SectionSource, make: Any) -> None:
    first = make([[1, 2], [3, 4]])
    write_section(source.counts, first)
    again, notes = read(replace(source, mpp=None))
    assert section_info(again) == replace(section_info(first), layout="scverse")
    assert again.X.toarray().tolist() == first.X.toarray().tolist()
    assert notes["mpp_from"] == "uns['raystp']"


def test_an_unknown_layout_is_refused_with_the_known_ones(source: SectionSource) -> None:
    with pytest.raises(SectionError, match=f"unknown layout 'merfish'; choose one of {', '.join(LAYOUTS)}"):
        read(replace(source, layout="merfish"))
