"""What the maps of the report hold, beside what `impute` has stored of the same tiles."""

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from PIL import Image

from raystp.artifacts import resolve
from raystp.errors import ConfigError
from raystp.evaluate.report.viewer.content import SlideThumbnail
from raystp.evaluate.report.viewer.scores import gene_scores
from raystp.expression.sections import load_counts, sections_of
from raystp.steps.evaluate.predictions import Prediction, open_models, sets_of_files
from raystp.steps.evaluate.spots.outcomes import compare_sections
from raystp.steps.evaluate.viewer.nearest import SHOWN, Reference
from raystp.steps.evaluate.viewer.pictures import SIDE, ReferenceTiles, cut_tiles
from raystp.steps.evaluate.viewer.sets import gmt_sets
from raystp.steps.evaluate.viewer.slides import MapReader
from raystp.storage import StoragePath
from raystp.units import Level0Pixels


def opened(store: Path) -> tuple[Prediction, Reference]:
    (first,) = open_models([resolve(str(store), "impute/smoke-bleep", "impute")], str(store))
    reference = Reference.of(first, StoragePath.of(store))
    assert reference is not None
    return first, reference


@pytest.mark.ray
def test_neighbours_are_at_the_distance_and_have_the_spread_that_impute_stored(smoke_store: Path) -> None:
    first, reference = opened(smoke_store)
    adata = ad.read_h5ad(first.prediction.path.local_path / "anndata" / "patient-C.h5ad")
    rows = np.array([5, 0, 17])
    found = reference.neighbours("patient-C", rows)
    assert found.rows.shape == (3, SHOWN)
    np.testing.assert_allclose(found.distance[:, 0], adata.obs["distance"].to_numpy()[rows], atol=1e-5)
    np.testing.assert_allclose(found.spread, adata.layers["spread"][rows], atol=1e-5)
    assert (np.diff(found.distance, axis=1) >= 0).all()
    assert "C" not in set(reference.opened.rows["patient"].to_pylist())


@pytest.mark.ray
def test_a_reference_tile_measured_what_its_section_did_and_has_its_own_picture(smoke_store: Path) -> None:
    first, reference = opened(smoke_store)
    row = {name: value[0] for name, value in reference.opened.rows.slice(3, 1).to_pydict().items()}
    spots = resolve(str(smoke_store), "spots/smoke", "spots")
    counts = load_counts(spots, row["section"])
    true = first.measured_as.values(counts)[counts.spots.index(row["spot"])]
    np.testing.assert_allclose(reference.expression(np.array([3]))[0], true, atol=1e-5)
    tiles = ReferenceTiles.of(reference.index, StoragePath.of(smoke_store))
    assert tiles is not None
    known, unknown = tiles.pictures([row["section"], "other"], [row["spot"], "x"])
    assert known is not None
    assert known.startswith(b"\xff\xd8")
    assert unknown is None


@pytest.mark.ray
def test_a_section_has_its_spots_in_order_and_a_slide_without_measurement_its_tiles(smoke_store: Path) -> None:
    first, reference = opened(smoke_store)
    spots = resolve(str(smoke_store), "spots/smoke", "spots")
    compared = compare_sections(spots, [first])
    reader = MapReader(first, StoragePath.of(smoke_store), reference)
    (name,) = [one for one in compared.measured if sections_of(spots)[one]["slide"] == "patient-C"]
    counts, outcome = compared.measured[name], compared.outcomes[first.name][name]
    scores = gene_scores(outcome, [], rng=np.random.default_rng(0), draws=100)
    slide, neighbours = reader.measured(counts, outcome, scores)
    assert neighbours is not None
    row = {spot: number for number, spot in enumerate(counts.spots)}
    assert slide.spots is not None
    np.testing.assert_array_equal(slide.xy, counts.xy[[row[spot] for spot in slide.spots]])
    np.testing.assert_array_equal(slide.layers["predicted"], outcome.predicted)
    np.testing.assert_allclose(slide.layers["spread"], neighbours.spread, atol=1e-5)
    assert slide.distance is not None
    np.testing.assert_allclose(slide.distance, neighbours.distance[:, 0], atol=1e-5)
    whole, _ = replace(reader, reference=None).predicted("unmeasured")
    assert (whole.shape, whole.spots, whole.pictures) == ("square", None, None)
    assert set(whole.layers) == {"predicted", "spread"}


def test_a_picture_cut_from_a_thumbnail_shows_that_place_and_nothing_outside() -> None:
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[:, 50:] = (0, 200, 0)
    thumbnail = SlideThumbnail(pixels, Level0Pixels(1000.0), Level0Pixels(500.0))
    tiles = cut_tiles(thumbnail, np.array([[0.0, 0.0, 100.0], [700.0, 100.0, 100.0], [950.0, 480.0, 100.0]]))
    assert tiles.shape == (3, SIDE, SIDE, 3)
    assert tiles[0].max() == 0
    assert (tiles[1] == (0, 200, 0)).all()
    assert (tiles[2] == (0, 200, 0)).all()
    assert Image.fromarray(tiles[2]).size == (SIDE, SIDE)


def test_sets_of_a_gmt_have_maps_and_no_rows_of_scores(tmp_path: Path) -> None:
    panel = ["ERBB2", "GRB7", "FASN", "ACTB"]
    file = tmp_path / "hallmark.gmt"
    file.write_text("HEG-2\tx\tGRB7\tERBB2\tGRB7\tFASN\nSMALL\tx\tACTB\tTP53\nALL\tx\tACTB\tFASN\tERBB2\tGRB7\n")
    files = {"hallmark": str(file)}
    assert sets_of_files(files, {}, panel) == {}
    found = gmt_sets(files, panel, {"HEG-2": np.array([0, 1])})
    assert {name: genes.tolist() for name, genes in found.items()} == {
        "ALL": [3, 2, 0, 1],
        "hallmark: HEG-2": [1, 0, 2],
    }
    with pytest.raises(
        ConfigError, match=r"sets.hallmark: none of the 3 sets of .* has 3 genes in the panel of 1 genes"
    ):
        gmt_sets(files, ["ERBB2"], {})
