"""Files as people have them: GEO's prefixes and `.gz`, folders one level up, and Visium HD however it is named."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from raystp.errors import SectionError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath
from tests.expression.toy_layouts import GENES, IDS, Toy, geo, positions_table, toy, write, write_h5

PREFIX = "GSM0000001_S1_"
FLAGS = [1] * 40 + [0] * 24


def _source(counts: Path, positions: Path | None = None, layout: str = "space_ranger") -> SectionSource:
    place = None if positions is None else StoragePath.of(positions)
    return SectionSource("S1", "slide1", "P1", layout, StoragePath.of(counts), place)


def _check(source: SectionSource, section: Toy) -> None:
    found, notes = read(source)
    assert found.X.toarray().tolist() == section.counts.tolist()
    assert found.obsm["spatial"].tolist() == pytest.approx(section.xy)
    assert notes["scalefactors_spot_diameter_um"] == pytest.approx(65)


@pytest.mark.parametrize("given", ["file and file", "file alone", "folder alone", "folder and folder"])
def test_a_download_of_geo_is_read_however_it_is_named(tmp_path: Path, given: str) -> None:
    section = toy("space_ranger")
    geo(section, tmp_path / "geo", PREFIX)
    counts = tmp_path / "geo" / f"{PREFIX}filtered_feature_bc_matrix.h5"
    positions = tmp_path / "geo" / f"{PREFIX}tissue_positions_list.csv.gz"
    sources = {
        "file and file": _source(counts, positions),
        "file alone": _source(counts),
        "folder alone": _source(tmp_path / "geo"),
        "folder and folder": _source(tmp_path / "geo", tmp_path / "geo"),
    }
    _check(sources[given], section)


@pytest.mark.parametrize("prefix", [PREFIX, ""])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_the_three_text_files_are_read_with_a_prefix(tmp_path: Path, prefix: str, end: str) -> None:
    section = toy("space_ranger")
    geo(section, tmp_path, PREFIX)
    folder = tmp_path / "mtx"
    folder.mkdir()
    scipy.io.mmwrite(tmp_path / "x.mtx", sp.coo_matrix(section.counts.T.astype(int)))
    lines = [f"{gene}\t{name}\tGene Expression" for gene, name in zip(IDS, GENES, strict=True)]
    files = {
        "matrix.mtx": (tmp_path / "x.mtx").read_bytes(),
        "features.tsv": "\n".join(lines).encode(),
        "barcodes.tsv": "\n".join(section.spots).encode(),
    }
    for name, content in files.items():
        (folder / f"{prefix}{name}{end}").write_bytes(gzip.compress(content) if end else content)
    positions = tmp_path / f"{PREFIX}tissue_positions_list.csv.gz"
    _check(_source(folder, positions), section)
    _check(_source(folder / f"{prefix}matrix.mtx{end}", positions), section)


def test_of_several_samples_in_a_folder_the_one_named_like_the_section_is_read(tmp_path: Path) -> None:
    section = toy("space_ranger")
    geo(section, tmp_path, PREFIX)
    geo(replace(section, counts=section.counts + 1), tmp_path, "GSM0000002_S2_")
    _check(_source(tmp_path), section)
    _check(replace(_source(tmp_path), section="S2"), replace(section, counts=section.counts + 1))
    _check(replace(_source(tmp_path), section="X", library="S2"), replace(section, counts=section.counts + 1))
    with pytest.raises(SectionError, match=r"has files of 2 samples .*GSM0000001_S1_f.* none has the name of the sect"):
        read(replace(_source(tmp_path), section="X"))


@pytest.mark.parametrize("inside", ["outs", "outs/filtered_feature_bc_matrix.h5", "."])
def test_a_folder_above_or_a_file_within_outs_is_read(tmp_path: Path, inside: str) -> None:
    section = toy("space_ranger")
    write(section, "space_ranger", tmp_path / "outs")
    _check(_source(tmp_path / inside), section)


def test_a_raw_matrix_is_read_by_its_spots_in_tissue(tmp_path: Path) -> None:
    section = replace(toy("space_ranger"), flags=list(FLAGS))
    write(section, "space_ranger", tmp_path)
    (tmp_path / "filtered_feature_bc_matrix.h5").rename(tmp_path / "raw_feature_bc_matrix.h5")
    found, notes = read(_source(tmp_path))
    assert (found.n_obs, notes["dropped_off_tissue"]) == (40, 24)


def test_a_filtered_matrix_with_barcodes_off_tissue_is_of_another_section(tmp_path: Path) -> None:
    section = toy("space_ranger")
    kept = replace(section, spots=section.spots[8:48], counts=section.counts[8:48], flags=list(FLAGS))
    source = write(kept, "space_ranger", tmp_path)
    with pytest.raises(SectionError, match="8 of 40 spots with counts have no position in tissue"):
        read(source)


@pytest.mark.parametrize(
    "change", [{"spot_diameter_fullres": None}, {"spot_diameter_fullres": "130"}, {"tissue_hires_scalef": [0.25]}]
)
def test_scale_factors_of_other_programs_are_read(tmp_path: Path, change: dict[str, object]) -> None:
    section = toy("space_ranger")
    source = write(replace(section, factors={**section.factors, **change}), "space_ranger", tmp_path)
    assert read(source)[0].n_obs == 64
    if "spot_diameter_fullres" not in change:
        assert read(replace(source, image="hires"))[0].uns["raystp"]["mpp"] == pytest.approx(2.0)


@pytest.mark.parametrize("form", ["tsv", "csv", "semicolons", "quoted", "transposed", "BOM", "CRLF", "R names"])
def test_every_form_of_a_legacy_table_is_read(tmp_path: Path, form: str) -> None:
    section = toy("legacy_st")
    source = write(section, "legacy_st", tmp_path)
    text = (tmp_path / "counts.tsv").read_text()
    cells = [line.split("\t") for line in text.splitlines()]
    texts = {
        "tsv": text,
        "csv": text.replace("\t", ","),
        "semicolons": text.replace("\t", ";"),
        "quoted": "\n".join("\t".join([f'"{line[0]}"', *line[1:]]) for line in cells),
        "transposed": "\n".join("\t".join(line) for line in np.array(cells).T.tolist()),
        "BOM": "\ufeff" + text,
        "CRLF": text.replace("\n", "\r\n"),
        "R names": "\n".join("\t".join([f"X{line[0]}" if n else "", *line[1:]]) for n, line in enumerate(cells)),
    }
    (tmp_path / "counts.tsv").write_bytes(texts[form].encode())
    (tmp_path / "counts.tsv.gz").write_bytes(gzip.compress(texts[form].encode()))
    for name in ("counts.tsv", "counts.tsv.gz"):
        found, _ = read(replace(source, counts=StoragePath.of(tmp_path / name)))
        assert found.X.toarray().tolist() == section.counts.tolist()
        assert found.var_names.tolist() == GENES


# ---- Visium HD


def _write_hd(folder: Path) -> Path:
    """Write `outs` of Visium HD with one bin size; return the folder of the bins."""
    bins = folder / "outs" / "binned_outputs" / "square_008um"
    section = toy("space_ranger")
    names = [f"s_008um_{number // 8:05d}_{number % 8:05d}-1" for number in range(64)]
    section = replace(section, spots=names, places=names)
    (bins / "spatial").mkdir(parents=True)
    write_h5(section, bins / "filtered_feature_bc_matrix.h5")
    positions_table(section).to_parquet(bins / "spatial" / "tissue_positions.parquet")
    (bins / "spatial" / "scalefactors_json.json").write_text(json.dumps({"bin_size_um": 8.0, "microns_per_pixel": 0.5}))
    return bins


@pytest.mark.parametrize(
    "given",
    [
        "",
        "outs",
        "outs/binned_outputs",
        "outs/binned_outputs/square_008um",
        "outs/binned_outputs/square_008um/filtered_feature_bc_matrix.h5",
    ],
)
def test_visium_hd_is_named_with_what_to_do(tmp_path: Path, given: str) -> None:
    _write_hd(tmp_path)
    with pytest.raises(
        SectionError, match=r"is Visium HD, .* the layout `space_ranger` reads spots: set the layout to `visium_hd`"
    ):
        read(_source(tmp_path / given))


def test_visium_hd_is_recognised_where_its_folders_have_other_names(tmp_path: Path) -> None:
    bins = _write_hd(tmp_path).rename(tmp_path / "mine")
    with pytest.raises(SectionError, match="Visium HD"):
        read(_source(bins))
    write(toy("space_ranger"), "space_ranger", tmp_path / "visium")
    with pytest.raises(SectionError, match="Visium HD"):  # counts of spots, positions of bins
        read(_source(tmp_path / "visium", bins / "spatial" / "tissue_positions.parquet"))
