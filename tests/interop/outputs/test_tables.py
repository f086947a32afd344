"""QuPath's objects and the plain table are read back with json and csv alone."""

import csv
import json
import math
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.errors import FormatError
from raystp.interop.outputs import csv_table, qupath
from raystp.interop.outputs.slide import Matrix, OutputOptions, SlideExpression, most_variable
from raystp.storage import StoragePath
from tests.interop.outputs.toy import contents, of_tiles, toy_slide

CSV = OutputOptions(measurements="csv")


def objects(slide: SlideExpression, folder: Path) -> list[dict[str, Any]]:
    qupath.write(slide, StoragePath.of(folder), OutputOptions())
    parsed = json.loads((folder / f"{slide.slide}.geojson").read_text(encoding="utf-8"))
    assert parsed["type"] == "FeatureCollection"
    found: list[dict[str, Any]] = parsed["features"]
    return found


def test_each_tile_is_a_closed_polygon_with_measurements(tmp_path: Path) -> None:
    found = objects(toy_slide(), tmp_path)
    assert len(found) == 20
    for number, one in enumerate(found):
        (ring,) = one["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        assert one["properties"]["objectType"] == "tile"
        assert one["properties"]["measurements"]["pred ERBB2"] == number
        uuid.UUID(one["id"])
    assert found[6]["geometry"]["coordinates"][0][0] == [300.0, 500.0]
    expected = {"pred ERBB2", "pred GNAS", "pred FN1", "spread ERBB2", "spread GNAS", "spread FN1", "distance", "far"}
    assert set(found[7]["properties"]["measurements"]) == expected
    assert [one["properties"]["measurements"]["far"] for one in found].index(1) == 7


def test_a_missing_value_has_no_measurement_and_an_infinite_one_is_text(tmp_path: Path) -> None:
    values = toy_slide().values.read()
    values[0, 0] = np.inf
    found = objects(replace(toy_slide(), values=Matrix(values)), tmp_path)
    assert "pred GNAS" not in found[3]["properties"]["measurements"]
    assert found[0]["properties"]["measurements"]["pred ERBB2"] == "Infinity"


def test_ids_are_those_of_slide_and_tile_whatever_else_is_written(tmp_path: Path) -> None:
    first = objects(toy_slide(), tmp_path / "a")
    fewer = objects(toy_slide().select(["FN1"]), tmp_path / "b")
    other = objects(replace(toy_slide(), slide="S2"), tmp_path / "c")
    assert [one["id"] for one in first] == [one["id"] for one in fewer]
    assert not {one["id"] for one in first} & {one["id"] for one in other}


def test_objects_are_in_the_frame_that_qupath_shows(tmp_path: Path) -> None:
    found = objects(replace(toy_slide(), origin=(50.0, 100.0)), tmp_path)
    assert found[0]["geometry"]["coordinates"][0][0] == [50.0, 200.0]


def test_the_csv_form_has_the_ids_and_values_of_the_objects(tmp_path: Path) -> None:
    found = objects(toy_slide(), tmp_path)
    qupath.write(toy_slide(), StoragePath.of(tmp_path), CSV)
    with (tmp_path / "S1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, one in zip(rows, found, strict=True):
        assert row["tile_id"] == one["id"]
        measured = one["properties"]["measurements"]
        assert {name: float(row[name]) for name in measured} == measured
    assert (rows[6]["x_um"], rows[6]["y_um"], rows[3]["pred GNAS"]) == ("200.0", "300.0", "")


def test_a_file_over_the_limit_is_refused_with_the_number_of_genes_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qupath, "MAX_BYTES", 20 * 480)
    with pytest.raises(FormatError, match="choose at most 1 with `genes`"):
        objects(toy_slide(), tmp_path)
    objects(toy_slide().select(["FN1"]), tmp_path)
    monkeypatch.setattr(qupath, "MAX_BYTES", 20 * 100)
    with pytest.raises(FormatError, match="use spatialdata or csv"):
        objects(toy_slide().select(["FN1"]), tmp_path)


@pytest.mark.parametrize("options", [OutputOptions(), CSV], ids=["geojson", "csv"])
def test_the_bound_on_a_file_is_never_below_its_size(tmp_path: Path, options: OutputOptions) -> None:
    values = np.random.default_rng(0).uniform(-99, 99, (20, 40)).astype(np.float32)
    genes = tuple(f"ENSG0000012345{number}" for number in range(40))
    slide = replace(toy_slide(), genes=genes, values=Matrix(values), layers={"spread": Matrix(values)}, measured=None)
    qupath.write(slide, StoragePath.of(tmp_path), options)
    (file,) = tmp_path.iterdir()
    size = file.stat().st_size
    for limit, fits in ((size * 1.6, True), (size * 0.99, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(qupath, "MAX_BYTES", limit)
            if fits:
                qupath.write(slide, StoragePath.of(tmp_path), options)
            else:
                with pytest.raises(FormatError):
                    qupath.write(slide, StoragePath.of(tmp_path), options)


def test_the_plain_table_has_boxes_in_px_and_centres_in_um(tmp_path: Path) -> None:
    assert csv_table.write(toy_slide(), StoragePath.of(tmp_path), OutputOptions()) == []
    with (tmp_path / "S1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:7] == ["slide", "tile", "x", "y", "side", "x_um", "y_um"]
    assert [float(rows[6][name]) for name in ("x", "y", "side", "x_um", "y_um")] == [300, 500, 200, 200, 300]
    expected = toy_slide().values.read()
    for number, row in enumerate(rows):
        for column, gene in enumerate(toy_slide().genes):
            value = float(row[gene]) if row[gene] else math.nan
            assert value == pytest.approx(float(expected[number, column]), nan_ok=True)


def test_a_gene_with_the_name_of_another_column_is_refused(tmp_path: Path) -> None:
    slide = replace(toy_slide(), genes=("far", "GNAS", "FN1"))
    with pytest.raises(FormatError, match="the gene 'far' has the name of another column"):
        csv_table.write(slide, StoragePath.of(tmp_path), OutputOptions())


def test_two_exports_are_identical(tmp_path: Path) -> None:
    for name in ("a", "b"):
        target = StoragePath.of(tmp_path / name)
        qupath.write(toy_slide(), target, OutputOptions())
        qupath.write(toy_slide(), target / "csv", CSV)
        csv_table.write(toy_slide(), target / "plain", OutputOptions())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_most_variable_genes_come_first_and_ties_keep_their_order() -> None:
    values = np.zeros((4, 5), np.float32)
    values[0] = (1, 9, 9, 0, np.nan)
    slide = replace(of_tiles(toy_slide(), np.arange(4)), genes=("a", "b", "c", "d", "e"), values=Matrix(values))
    assert most_variable(slide, 4) == ["b", "c", "a", "d"]


def test_an_unknown_gene_is_named() -> None:
    with pytest.raises(FormatError, match="slide 'S1' has no prediction of 'TP53'; it has 3 genes, 'ERBB2'"):
        toy_slide().select(["TP53"])
