import gzip
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from raystp.errors import SectionError
from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath

BARCODES = ["AA-1", "BB-1", "CC-1", "DD-1", "EE-1"]
ARRAY = [(0, 0), (0, 2), (1, 1), (1, 3), (2, 0)]  # (row, column): odd rows hold odd columns
COUNTS = np.array([[1, 0, 2, 0], [0, 3, 0, 1], [4, 0, 0, 0], [0, 0, 5, 7], [6, 0, 0, 8]])
IDS, SYMBOLS = ["E1", "E2", "E3", "AB1"], ["G", "H", "G", "CD3"]
KINDS = ["Gene Expression", "Gene Expression", "Gene Expression", "Antibody Capture"]
PITCH = 200.0
OPTIONS = SectionOptions(min_counts=0.0)
HEADER = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"


def _positions(inside: tuple[int, ...] = (1, 1, 1, 1, 0)) -> str:
    lines = []
    for barcode, here, (row, column) in zip(BARCODES, inside, ARRAY, strict=True):
        x, y = 1000 + column * PITCH / 2, 5000 + row * PITCH * 3**0.5 / 2
        lines.append(f"{barcode},{here},{row},{column},{y},{x}\n")
    return "".join(reversed(lines))


def _write_h5(path: Path, kinds: list[str] = KINDS) -> None:
    matrix = sp.csr_matrix(COUNTS)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(BARCODES, dtype="S18")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array([COUNTS.shape[1], COUNTS.shape[0]], dtype=np.int32)
        for name, values in (("id", IDS), ("name", SYMBOLS), ("feature_type", kinds)):
            group[f"features/{name}"] = np.array(values, dtype="S18")


def _write_triple(folder: Path, *, zipped: bool) -> None:
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", sp.coo_matrix(COUNTS.T))
    lines = [f"{gene}\t{name}\t{kind}\n" for gene, name, kind in zip(IDS, SYMBOLS, KINDS, strict=True)]
    (folder / "features.tsv").write_text("".join(lines))
    (folder / "barcodes.tsv").write_text("\n".join(BARCODES) + "\n")
    for path in list(folder.iterdir()) if zipped else []:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


@pytest.fixture
def outs(tmp_path: Path) -> Path:
    _write_h5(tmp_path / "V1_filtered_feature_bc_matrix.h5")
    (tmp_path / "spatial").mkdir()
    (tmp_path / "spatial" / "tissue_positions_list.csv").write_text(_positions())
    factors = {"spot_diameter_fullres": 130.0, "tissue_hires_scalef": 0.09, "tissue_lowres_scalef": 0.03}
    (tmp_path / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    return tmp_path


@pytest.fixture
def source(outs: Path) -> SectionSource:
    return SectionSource("V1", "V1", "mouse", "space_ranger", StoragePath.of(outs), options=OPTIONS)


def test_a_spot_has_the_position_of_its_barcode(source: SectionSource) -> None:
    section, notes = read(source)
    assert section.obs_names.tolist() == BARCODES[:4]
    assert section.obsm["spatial"][:, 0].tolist() == [1000, 1200, 1100, 1300]
    assert section.obsm["spatial"][:, 1].tolist() == pytest.approx([5000, 5000, 5173.2050808, 5173.2050808])
    assert section.obs["array_row"].tolist() == [0, 0, 1, 1]
    assert section.obs["array_col"].tolist() == [0, 2, 1, 3]
    assert section.X.toarray().tolist() == COUNTS[:4, :3].tolist()
    assert section.uns["raystp"]["mpp"] == pytest.approx(0.5)
    assert section.uns["raystp"]["spot_diameter_um"] == 55.0
    assert section.uns["spatial"]["V1"]["scalefactors"]["tissue_hires_scalef"] == 0.09
    assert section.uns["spatial"]["V1"]["scalefactors"]["spot_diameter_fullres"] == 130.0
    assert (notes["dropped_off_tissue"], notes["dropped_off_tissue_first"]) == (1, ["EE-1"])
    assert notes["scalefactors_spot_diameter_um"] == pytest.approx(65)
    assert notes["mirrored"] is False


def test_duplicate_symbols_get_their_ids_and_other_features_are_dropped(source: SectionSource) -> None:
    section, notes = read(source)
    assert section.var_names.tolist() == ["G_E1", "H", "G_E3"]
    assert section.var["gene_ids"].tolist() == ["E1", "E2", "E3"]
    assert notes["renamed_genes"] == 2
    assert notes["dropped_features"] == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_every_format_of_one_output_reads_the_same(source: SectionSource, outs: Path, *, zipped: bool) -> None:
    first, _ = read(source)
    (outs / "spatial" / "tissue_positions_list.csv").unlink()
    (outs / "spatial" / "tissue_positions.csv").write_text(HEADER + _positions())
    (outs / "V1_filtered_feature_bc_matrix.h5").unlink()
    _write_triple(outs / "filtered_feature_bc_matrix", zipped=zipped)
    triple = replace(source, counts=source.counts / "filtered_feature_bc_matrix")
    for other in (
        source,
        replace(triple, positions=source.counts / "spatial"),
        replace(triple, positions=source.counts / "spatial" / "tissue_positions.csv"),
    ):
        section, _ = read(other)
        assert section.X.toarray().tolist() == first.X.toarray().tolist()
        assert section.var_names.tolist() == first.var_names.tolist()
        assert section.obsm["spatial"].tolist() == first.obsm["spatial"].tolist()
        assert section.uns["spatial"] == first.uns["spatial"]


def test_without_scale_factors_the_spot_diameter_is_the_printed_one(source: SectionSource, outs: Path) -> None:
    (outs / "spatial" / "scalefactors_json.json").unlink()
    section, _ = read(source)
    assert section.uns["spatial"]["V1"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(110)


def test_swapped_pixel_columns_are_refused_as_mirrored(source: SectionSource, outs: Path) -> None:
    swapped = HEADER.replace("pxl_row_in_fullres,pxl_col_in_fullres", "pxl_col_in_fullres,pxl_row_in_fullres")
    (outs / "spatial" / "tissue_positions.csv").write_text(swapped + _positions())
    with pytest.raises(SectionError, match=r"array is mirrored in the positions \(array columns run along y\)"):
        read(source)
    section, notes = read(replace(source, options=replace(OPTIONS, allow_mirrored=True)))
    assert section.n_obs == 4
    assert notes["mirrored"] is True


def test_spots_in_tissue_without_counts_are_dropped_and_noted(source: SectionSource, outs: Path) -> None:
    (outs / "spatial" / "tissue_positions_list.csv").write_text(_positions() + "ZZ-1,1,2,2,5346.41,1200\n")
    section, notes = read(source)
    assert section.n_obs == 4
    assert (notes["dropped_no_counts"], notes["dropped_no_counts_first"]) == (1, ["ZZ-1"])


def test_scale_factors_of_another_image_are_refused(source: SectionSource, outs: Path) -> None:
    (outs / "spatial" / "scalefactors_json.json").write_text('{"spot_diameter_fullres": 13}')
    with pytest.raises(SectionError, match=r"a spot of the scale factors is 6.5 um across at 0.5 um/px \(pitch\)"):
        read(source)
    (outs / "spatial" / "scalefactors_json.json").write_text("[1]")
    with pytest.raises(SectionError, match="is not a JSON object of scale factors"):
        read(source)


def test_positions_are_required_and_checked(source: SectionSource, outs: Path) -> None:
    h5 = source.counts / "V1_filtered_feature_bc_matrix.h5"
    assert read(replace(source, counts=h5))[0].n_obs == 4  # `spatial` beside the matrix
    (outs / "lone").mkdir()
    (outs / "lone" / h5.name).write_bytes(h5.read_bytes())
    (outs / "spatial").rename(outs / "elsewhere")
    with pytest.raises(SectionError, match="has no positions: give its spatial folder"):
        read(replace(source, counts=source.counts / "lone" / h5.name))
    (outs / "elsewhere").rename(outs / "spatial")
    (outs / "spatial" / "tissue_positions_list.csv").write_text("AA-1,1,0\n")
    with pytest.raises(SectionError, match="not a table of tissue positions"):
        read(source)
    (outs / "spatial" / "tissue_positions_list.csv").unlink()
    with pytest.raises(SectionError, match=r"no tissue_positions.csv or .* there are 'scalefactors_json.json'"):
        read(source)


def test_malformed_counts_are_refused(source: SectionSource, outs: Path) -> None:
    file = outs / "V1_filtered_feature_bc_matrix.h5"
    with h5py.File(file, "r+") as opened:
        opened["matrix/indices"][0] = 77
    with pytest.raises(SectionError, match="not a feature-barcode matrix"):
        read(source)
    with h5py.File(file, "w") as opened:
        opened["mm10"] = [1]
    with pytest.raises(SectionError, match="not a feature-barcode matrix"):
        read(source)
    file.unlink()
    with pytest.raises(SectionError, match=r"expected one \*filtered_feature_bc_matrix.h5"):
        read(source)
    _write_triple(outs / "filtered_feature_bc_matrix", zipped=False)
    (outs / "filtered_feature_bc_matrix" / "barcodes.tsv").write_text("AA-1\n")
    with pytest.raises(SectionError, match="5 spots x 4 features, but 1 barcodes"):
        read(source)
    (outs / "filtered_feature_bc_matrix" / "barcodes.tsv").unlink()
    with pytest.raises(SectionError, match=r"no barcodes.tsv\(.gz\) beside the matrix"):
        read(source)


def test_a_matrix_that_declares_more_than_its_file_is_not_read(source: SectionSource, outs: Path) -> None:
    (outs / "V1_filtered_feature_bc_matrix.h5").unlink()
    folder = outs / "filtered_feature_bc_matrix"
    _write_triple(folder, zipped=False)
    head = "%%MatrixMarket matrix coordinate integer general\n"
    (folder / "matrix.mtx").write_text(head + "4 5 999999999999\n1 1 1\n")
    with pytest.raises(SectionError, match="declares 999999999999 values in 4 x 5 in a file of"):
        read(source)


def test_a_real_output_reads_with_known_figures(real_data: Path) -> None:
    folder = StoragePath.of(real_data / "visium" / "Vis5A_2dpi")
    section, notes = read(SectionSource("Vis5A", "Vis5A", "mouse", "space_ranger", folder, options=OPTIONS))
    assert section.shape == (982, 33217)
    assert np.median(np.asarray(section.X.sum(axis=1))) == 4903.0
    assert section.uns["raystp"]["mpp"] == pytest.approx(0.3597, abs=0.0001)
    assert notes["scalefactors_spot_diameter_um"] == pytest.approx(64.9, abs=0.1)
    assert notes["dropped_no_counts"] == 0
    assert notes["mirrored"] is False
    assert section.var_names.is_unique
