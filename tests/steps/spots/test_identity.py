"""A section is read again when any file that it was read from changes, also one that was found by its name."""

from dataclasses import replace
from pathlib import Path

import pytest

from raystp.slides.table import SlideRow
from raystp.steps.spots.step import _identity
from raystp.storage import StoragePath
from tests.expression.toy_layouts import toy, write

FILES = ["filtered_feature_bc_matrix.h5", "spatial/tissue_positions.csv", "spatial/scalefactors_json.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("counts", "positions"),
    [
        ("filtered_feature_bc_matrix.h5", None),
        ("filtered_feature_bc_matrix.h5", "spatial"),
        ("filtered_feature_bc_matrix.h5", "spatial/tissue_positions.csv"),
        ("", None),
    ],
)
def test_every_file_that_is_read_counts(tmp_path: Path, file: str, counts: str, positions: str | None) -> None:
    write(toy("space_ranger"), "space_ranger", tmp_path)
    row = SlideRow("S1", StoragePath.of("a.svs"), "P1", 0.5, "space_ranger", None, None, "S1", None)
    row = replace(row, counts=StoragePath.of(tmp_path / counts))
    row = replace(row, positions=StoragePath.of(tmp_path / positions) if positions else None)
    before = _identity(row)
    assert _identity(row) == before
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes() + b"\n")
    assert _identity(row) != before


def test_a_section_whose_files_are_absent_has_an_identity(tmp_path: Path) -> None:
    row = SlideRow("S1", StoragePath.of("a.svs"), "P1", 0.5, "space_ranger", None, None, "S1", None)
    assert _identity(replace(row, counts=StoragePath.of(tmp_path / "absent"))) is not None
