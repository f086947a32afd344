"""A prediction opens in scanpy, is drawn over the slide, and keeps names, centres and measured expression."""

from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from raystp.errors import ModelError, SectionError
from raystp.impute.writer import SlideOverview, TileTable, prediction_to_anndata, write_prediction
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

GENES = ["ERBB2", "HLA-A", "C1orf/2"]
NAMES = ["10x12", "10x13", "11x12", "11x13"]


def tiles(*, thumbnail: bool = True, **changed: Any) -> TileTable:
    values = {
        "library": "A1",
        "names": NAMES,
        "centres": np.array([[100, 200], [300, 200], [100, 400], [300, 400]], np.float64),
        "diameter": Level0Pixels(150.0),
        "thumbnail": SlideOverview(np.full((60, 40, 3), 240, np.uint8), 0.1) if thumbnail else None,
    }
    return TileTable(**{**values, **changed})


def predicted() -> Any:
    return np.arange(12, dtype=np.float32).reshape(4, 3)


def measured(*, sparse: bool = False) -> ad.AnnData:
    """Return measured expression in another order, with a spot and a gene that were not predicted."""
    values = np.random.default_rng(0).random((5, 4)).astype(np.float32)
    obs = pd.DataFrame({"array_row": [11, 10, 9, 11, 10], "in_tissue": 1}, index=[*NAMES[::-1][:2], "9x9", *NAMES[:2]])
    var = pd.DataFrame(index=["HLA-A", "C1orf/2", "GAPDH", "ERBB2"])
    return ad.AnnData(X=sp.csr_matrix(values) if sparse else values, obs=obs, var=var)


def written(folder: Path, adata: ad.AnnData) -> ad.AnnData:
    file = StoragePath.of(folder / "A1.h5ad")
    write_prediction(file, adata)
    return ad.read_h5ad(file.local_path)


def test_a_prediction_reads_back_as_it_was_made(tmp_path: Path) -> None:
    provenance = {"model": "train/bleep-0123456789ab", "protocol": "patient", "k": 50, "shared_patients": ["B"]}
    adata = written(tmp_path, prediction_to_anndata(predicted(), GENES, tiles(), provenance=provenance))
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X, predicted())
    assert (list(adata.obs_names), list(adata.var_names)) == (NAMES, GENES)
    assert np.array_equal(adata.obsm["spatial"], tiles().centres)
    assert {**adata.uns["raystp"], "shared_patients": list(adata.uns["raystp"]["shared_patients"])} == provenance
    assert "measured" not in adata.layers


def test_the_fields_that_squidpy_and_scanpy_look_for_are_there(tmp_path: Path) -> None:
    library = written(tmp_path, prediction_to_anndata(predicted(), GENES, tiles(), provenance={})).uns["spatial"]["A1"]
    assert set(library) == {"images", "scalefactors", "metadata"}
    assert library["images"]["hires"].shape == (60, 40, 3)
    assert library["images"]["hires"].dtype == np.uint8
    assert {name: float(value) for name, value in library["scalefactors"].items()} == {
        "tissue_hires_scalef": 0.1,
        "spot_diameter_fullres": 150.0,
    }


def test_without_a_thumbnail_the_centres_are_still_in_level_0_px(tmp_path: Path) -> None:
    adata = prediction_to_anndata(predicted(), GENES, tiles(thumbnail=False), provenance={})
    library = written(tmp_path, adata).uns["spatial"]["A1"]
    assert dict(library["images"]) == {}
    assert float(library["scalefactors"]["tissue_hires_scalef"]) == 1.0


@pytest.mark.parametrize("sparse", [False, True])
def test_the_truth_is_matched_by_name_and_brings_its_columns(tmp_path: Path, sparse: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    truth = measured(sparse=sparse)
    adata = written(tmp_path, prediction_to_anndata(predicted(), GENES, tiles(), measured=truth, provenance={}))
    assert list(adata.obs_names) == NAMES
    assert adata.obs["array_row"].tolist() == [11, 10, 10, 11]
    for spot in NAMES:
        for gene in GENES:
            found = adata[spot, gene].layers["measured"][0, 0]
            assert found == measured()[spot, gene].X[0, 0]
    assert np.array_equal(adata.X, predicted())


# scanpy 1.11 calls what matplotlib 3.11 will deprecate, and points from its own sc.pl.spatial to squidpy.
@pytest.mark.filterwarnings("ignore:The set_bad function will be deprecated:PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Use `squidpy.pl.spatial_scatter` instead:FutureWarning")
@pytest.mark.parametrize("thumbnail", [True, False])
def test_scanpy_opens_and_draws_a_prediction(tmp_path: Path, thumbnail: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    plt.switch_backend("Agg")
    sc = pytest.importorskip("scanpy", reason="scanpy is in the dev extra")
    file = StoragePath.of(tmp_path / "A1.h5ad")
    shown = tiles(thumbnail=thumbnail)
    write_prediction(file, prediction_to_anndata(predicted(), GENES, shown, provenance={"protocol": "patient"}))
    adata = sc.read_h5ad(file.local_path)
    axes = sc.pl.embedding(adata, basis="spatial", color="ERBB2", show=False)
    assert axes.collections[0].get_offsets().tolist() == tiles().centres.tolist()
    assert axes.collections[0].get_array().tolist() == predicted()[:, 0].tolist()
    image = {} if thumbnail else {"img_key": None}  # scanpy looks for an image by default
    on_slide = sc.pl.spatial(adata, color="HLA-A", show=False, **image)[0]
    assert len(on_slide.images) == (1 if thumbnail else 0)
    plt.close("all")


def test_an_inconsistent_prediction_is_refused_with_the_reason() -> None:
    broken = predicted()
    broken[2, 1] = np.nan
    cases: list[tuple[Any, list[str], ad.AnnData | None, type[Exception], str]] = [
        (broken, GENES, None, ModelError, r"library 'A1': predictions of 1 genes \('HLA-A'\) are not finite"),
        (predicted(), GENES[:2], None, ModelError, r"shape \(4, 3\) for 4 spots and 2 genes"),
        (
            predicted(),
            ["a", "b", "a"],
            None,
            SectionError,
            "genes of the model must be distinct; 'a' occur more than once",
        ),
        (predicted(), GENES, measured()[:, 1:], SectionError, r"0 predicted spots \(\) and 1 genes \('HLA-A'\)"),
    ]
    for values, genes, truth, error, message in cases:
        with pytest.raises(error, match=message):
            prediction_to_anndata(values, genes, tiles(), measured=truth, provenance={})


def test_an_inconsistent_tile_table_is_refused_with_the_reason() -> None:
    for changed, message in (
        ({"library": "a/b"}, "library 'a/b' is not a valid group name"),
        ({"names": NAMES[:3]}, "3 names for 4 centres"),
        ({"names": [*NAMES[:3], NAMES[0]]}, "'10x12' occur more than once"),
    ):
        with pytest.raises(SectionError, match=message):
            tiles(**changed)
