"""Xenium: a transcript comes back at its place on the H&E, squares are those of a loop, and faults have sentences."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raystp.errors import SectionError
from raystp.expression.readers.files import columns
from raystp.expression.readers.registry import read
from raystp.expression.section_checks.raw import warnings_of
from tests.expression.readers.pooled.xenium_files import (
    CONTROLS,
    GENES,
    HE_MPP,
    PIXEL_UM,
    Transcripts,
    he_to_morphology,
    random_section,
    source_of,
    um_of,
    write_bundle,
    write_cells,
    write_points,
)

CORNERS = np.array([[100.0, 80.0], [3900.0, 120.0], [150.0, 2900.0], [3700.0, 2800.0], [2000.0, 1500.0]])
TURNED = he_to_morphology(37.0, mirror=True)


def loop(section: Transcripts, pool_um: float) -> dict[tuple[int, int], Counter[str]]:
    """Return the genes of each square (row, column), transcript by transcript."""
    found: dict[tuple[int, int], Counter[str]] = {}
    for (x, y), name, qv in zip(section.xy.astype(np.float32).tolist(), section.names, section.qv, strict=True):
        if np.float32(qv) >= 20 and name not in CONTROLS:
            found.setdefault((int(y // pool_um), int(x // pool_um)), Counter())[name] += 1
    return found


@pytest.mark.parametrize("form", ["matrix", "points"])
@pytest.mark.parametrize(("degrees", "mirror"), [(0.0, False), (37.0, True), (180.0, False), (-90.0, True)])
def test_a_transcript_comes_back_at_its_place_on_the_image(
    tmp_path: Path, degrees: float, form: str, *, mirror: bool
) -> None:
    matrix = he_to_morphology(degrees, mirror=mirror)
    planted = np.array([[1234.5, 2345.5], [1300.0, 2400.0], [1280.25, 2290.75]])
    names = ["EPCAM", "VIM", "KRT8"]
    section = Transcripts(um_of(planted, matrix), names, np.full(3, 40.0), matrix)
    bundle = write_bundle(tmp_path / "bundle", section)
    alignment = None
    if form == "points":
        alignment = tmp_path / "points.csv"
        write_points(alignment, matrix, CORNERS)
    # A square of .04 um is .15 px of the H&E: its centre is within .1 px of any transcript in it.
    found, notes = read(source_of(bundle, alignment, pool_um=0.04))
    for name, place in zip(names, planted, strict=True):
        (row,) = np.flatnonzero(found[:, name].X.toarray())
        assert np.abs(found.obsm["spatial"][row] - place).max() < 0.1
    assert found.uns["raystp"]["mpp"] == pytest.approx(HE_MPP)
    assert notes.get("alignment_residual_um", 0.0) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("rows", [97, 1 << 20])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_squares_are_those_of_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, *, as_bytes: bool
) -> None:
    monkeypatch.setattr(columns, "ROWS", rows)
    section = random_section(TURNED)
    found, notes = read(
        source_of(write_bundle(tmp_path, section, as_bytes=as_bytes), image_px=(9999, 9999), pool_um=50.0)
    )
    expected = loop(section, 50.0)
    centres = (np.array([[column + 0.5, row + 0.5] for row, column in sorted(expected)]) * 50.0) / PIXEL_UM
    places = np.linalg.solve(TURNED[:2, :2], (centres - TURNED[:2, 2]).T).T
    on_image = [place.min() >= 0 for place in places]
    squares = [square for square, here in zip(sorted(expected), on_image, strict=True) if here]
    assert list(zip(found.obs["array_row"], found.obs["array_col"], strict=True)) == squares
    assert found.obsm["spatial"] == pytest.approx(places[on_image], abs=1e-6)
    assert found.X.toarray().tolist() == [[expected[square][name] for name in GENES] for square in squares]
    assert found.obs_names[0] == f"50um_{squares[0][0]:05d}_{squares[0][1]:05d}"
    assert notes["dropped_outside_image"] == len(expected) - len(squares) > 0
    assert notes["dropped_features"] == len(CONTROLS)
    assert notes["transcripts"] == sum(sum(one.values()) for one in expected.values())
    good = section.qv.astype(np.float32) >= 20
    assert notes["dropped_control_transcripts"] == sum(
        name in CONTROLS for name, kept in zip(section.names, good.tolist(), strict=True) if kept
    )
    assert notes["dropped_low_quality"] == int((section.qv.astype(np.float32) < 20).sum())


def test_a_gene_of_the_panel_without_a_transcript_is_measured_and_ids_lose_their_versions(tmp_path: Path) -> None:
    found, _ = read(source_of(write_bundle(tmp_path, random_section(TURNED))))
    assert found.var_names.tolist() == GENES
    assert found.var["gene_ids"].tolist() == [f"ENSG{number:011d}" for number in range(4)]
    assert found[:, "NEVER"].X.sum() == 0
    label = found.uns["raystp"]
    assert (label["pitch_um"], label["spot_diameter_um"]) == pytest.approx((100.0, 100.0))


def test_without_the_matrix_the_genes_are_those_with_a_transcript_and_controls_are_known_by_name(
    tmp_path: Path,
) -> None:
    bundle = write_bundle(tmp_path, random_section(TURNED))
    (bundle / "cell_feature_matrix.h5").unlink()
    found, notes = read(source_of(bundle))
    assert sorted(found.var_names) == sorted(GENES[:3])
    assert notes["dropped_features"] == len(CONTROLS)
    assert any("a gene without a transcript is not known as measured" in text for text in warnings_of(notes))


def test_transcripts_that_the_instrument_marks_as_no_gene_are_not_counted(tmp_path: Path) -> None:
    section = random_section(TURNED)
    whole, _ = read(source_of(write_bundle(tmp_path / "a", section)))
    marks = np.array([name != "VIM" for name in section.names])
    found, _ = read(source_of(write_bundle(tmp_path / "b", section, is_gene=marks)))
    assert found[:, "VIM"].X.sum() == 0
    assert found[:, "EPCAM"].X.sum() == whole[:, "EPCAM"].X.sum()


def test_a_square_is_kept_for_its_counts_or_for_its_cells(tmp_path: Path) -> None:
    # Squares of 100 um at x 0, 100 and 200: 60 counts and no cell; 5 counts and 12 cells; 5 counts and 3 cells.
    x = np.repeat([50.0, 150.0, 250.0], [60, 5, 5])
    cells = np.column_stack([np.repeat([150.0, 250.0], [12, 3]), np.full(15, 50.0)])
    places = np.column_stack([x, np.full(70, 50.0)])
    section = Transcripts(places, ["VIM"] * 70, np.full(70, 40.0), np.diag([2.0, 2.0, 1.0]), cells)
    found, notes = read(source_of(write_bundle(tmp_path, section), square_counts=50, square_cells=10))
    assert found.X.sum(axis=1).ravel().tolist()[0] == [60.0, 5.0]
    assert notes["dropped_sparse_squares"] == 1
    with pytest.raises(SectionError, match="none of its 3 squares of 100 um with counts has 61 counts or 13 cells"):
        read(source_of(tmp_path, square_counts=61, square_cells=13))


@pytest.mark.parametrize("ids", ["text", "bytes", "numbers"])
def test_cells_are_summed_at_their_centroids(tmp_path: Path, ids: str) -> None:
    section = random_section(TURNED)
    bundle = write_bundle(tmp_path, section)
    count = len(section.cells)
    kinds = {
        "text": [f"cell{number}-1" for number in range(count)],
        "bytes": [f"cell{number}-1".encode() for number in range(count)],
        "numbers": np.arange(1, count + 1, dtype=np.uint32),
    }
    write_cells(bundle, section.cells, kinds[ids])  # type: ignore[arg-type]  # an array of numbers is a sequence
    expected: Counter[tuple[int, int]] = Counter()
    for number, (x, y) in enumerate(section.cells.tolist()):
        expected[int(y // 100), int(x // 100)] += number % 7 + 1
    found, notes = read(source_of(bundle, image_px=None, xenium_from="cells"))
    squares = list(zip(found.obs["array_row"].tolist(), found.obs["array_col"].tolist(), strict=True))
    assert dict(zip(squares, found[:, "EPCAM"].X.toarray().ravel().tolist(), strict=True)) == dict(expected)
    assert found.var_names.tolist() == GENES
    assert (notes["cells"], notes["dropped_features"]) == (count, len(CONTROLS))


def test_the_residual_of_points_is_noted_and_refused_beyond_20_um(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, random_section(TURNED))
    write_points(tmp_path / "points.csv", TURNED, CORNERS, off_um=8.0)
    _, notes = read(source_of(bundle, tmp_path / "points.csv"))
    assert notes["alignment_points"] == 5
    assert isinstance(notes["alignment_residual_um"], float)
    assert 0.5 < notes["alignment_residual_um"] < 8.0
    write_points(tmp_path / "points.csv", TURNED, CORNERS, off_um=300.0)
    with pytest.raises(
        SectionError, match=r"5 pairs of points of .* from their affine map, more than 20; the worst is"
    ):
        read(source_of(bundle, tmp_path / "points.csv"))


def test_the_inverse_of_an_alignment_is_noticed_by_squares_outside_of_the_image(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, random_section(TURNED))
    np.savetxt(tmp_path / "inverse.csv", np.linalg.inv(TURNED), delimiter=",")
    with pytest.raises(SectionError, match=r"squares are outside of the H&E of 4000 x 3000 px: .* must be inverted"):
        read(source_of(bundle, tmp_path / "inverse.csv"))


def test_another_um_per_px_than_that_of_the_alignment_is_an_error_that_names_both(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, random_section(TURNED))
    with pytest.raises(SectionError, match=r"mpp 0.5 was given, but the spots' pitch gives 0.275 um/px"):
        read(replace(source_of(bundle), mpp=0.5))


# ---- Wrong files


def _transcripts(folder: Path, **changed: object) -> None:
    write_bundle(folder, random_section(TURNED), **changed)  # type: ignore[arg-type]  # columns, not `as_bytes`


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


ALIGNMENT = "toy_he_imagealignment.csv"
NAN = np.full(6000, np.nan, np.float32)

FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no experiment": (
        lambda folder: (folder / "experiment.xenium").unlink(),
        "is no bundle of Xenium: .* has no exper",
    ),
    "experiment is no JSON": (_text("experiment.xenium", "{"), "experiment.xenium is not a JSON object"),
    "no pixel size": (_text("experiment.xenium", json.dumps({"pixel_size": None})), "has no pixel_size above 0"),
    "no transcripts": (
        lambda folder: (folder / "transcripts.parquet").unlink(),
        "no transcripts.parquet in .* or set xenium_from=cells",
    ),
    "no alignment": (
        lambda folder: (folder / ALIGNMENT).unlink(),
        "place of its squares on the H&E is unknown: no .*_he_imagealignment.csv is in .* column `positions`",
    ),
    "two alignments": (
        lambda folder: (folder / "b_he_imagealignment.csv").write_text("1,0,0\n0,1,0\n0,0,1\n"),
        "unknown: there are 'b_he_imagealignment.csv', 'toy_he_imagealignment.csv'; give the alignment",
    ),
    "two rows": (_text(ALIGNMENT, "1,0,0\n0,1,0\n"), "it has 2 rows of 3 numbers, and no header"),
    "words": (_text(ALIGNMENT, "a,b,c\n0,1,0\n0,0,1\n"), "values that are not numbers: column 1 is 'a'"),
    "transposed": (_text(ALIGNMENT, "1,0,0\n0,1,0\n90,40,1\n"), "its last row is 90, 40, 1, and not 0, 0, 1"),
    "flat": (_text(ALIGNMENT, "1,1,0\n1,1,0\n0,0,1\n"), "its matrix cannot be inverted"),
    "points without a column": (
        _text(ALIGNMENT, "fixedX,fixedY,alignmentX\n1,2,3\n"),
        "has no column 'alignmentY'; it has 'fixedx'",
    ),
    "two points": (
        _text(ALIGNMENT, "fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n5,6,7,8\n"),
        "has 2 pairs of points; an alignment needs at least 3",
    ),
    "no column": (lambda folder: _transcripts(folder, qv=None), "has no column 'qv'; it has 'transcript_id'"),
    "no place": (lambda folder: _transcripts(folder, x_location=NAN), "are not all finite and below|not finite"),
    "not in um": (
        lambda folder: _transcripts(folder, x_location=np.linspace(0, 1e9, 6000, dtype=np.float32)),
        "squares of 100 um; at most 4000000 are read: are they in um",
    ),
    "all bad": (
        lambda folder: _transcripts(folder, qv=np.zeros(6000, np.float32)),
        "none of the 6000 transcripts of .* is of a gene with a qv of at least 20",
    ),
    "numbers as names": (
        lambda folder: _transcripts(folder, feature_name=np.zeros(6000)),
        "is not a table of transcripts .*: feature_name is double, not text",
    ),
    "another table": (_text("transcripts.parquet", "x"), "transcripts.parquet is not a table of transcripts"),
    "another matrix": (_text("cell_feature_matrix.h5", "x"), "cell_feature_matrix.h5"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_file_has_its_sentence(tmp_path: Path, fault: str) -> None:
    change, sentence = FAULTS[fault]
    change(write_bundle(tmp_path, random_section(TURNED)))
    with pytest.raises(SectionError, match=sentence):
        read(source_of(tmp_path))


def test_cells_of_another_section_have_their_sentence(tmp_path: Path) -> None:
    section = random_section(TURNED)
    bundle = write_bundle(tmp_path / "a", section)
    write_cells(write_bundle(tmp_path / "b", section), section.cells, [f"other{n}" for n in range(len(section.cells))])
    (bundle / "cells.parquet").write_bytes((tmp_path / "b" / "cells.parquet").read_bytes())
    with pytest.raises(SectionError, match=r"500 of 500 cells of cell_feature_matrix.h5 are not in cells.parquet"):
        read(source_of(bundle, xenium_from="cells"))
