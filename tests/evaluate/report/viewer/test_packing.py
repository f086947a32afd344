import base64
import zlib
from dataclasses import replace

import numpy as np
import pytest

from raystp.evaluate.report.viewer.content import MEASURED, PREDICTED, SPREAD
from raystp.evaluate.report.viewer.fewer import with_fewer_pictures
from raystp.evaluate.report.viewer.packing import FINE, MISSING, PackedLayer, pack, packed_floats, quantise
from tests.evaluate.report.viewer.toy import GENES, content, picture, section, whole_slide


def values_of(layer: PackedLayer, spots: int) -> np.ndarray:
    """Read a packed layer as the browser does: spots x genes."""
    raw = zlib.decompress(base64.b64decode(layer.text))
    low, step = np.frombuffer(raw, "<f4", 2 * layer.genes).reshape(2, -1)
    codes = np.frombuffer(raw, np.uint8, offset=8 * layer.genes).reshape(layer.genes, spots)
    return np.where(codes == MISSING, np.nan, low[:, None] + codes * step[:, None]).T


def test_packed_values_read_back_to_half_a_step_and_missing_ones_stay_missing() -> None:
    one = content(section())
    (measured,) = (layer for layer in pack(one).layers if layer.layer == MEASURED)
    true = one.slides[0].layers[MEASURED][:, one.order]
    found = values_of(measured, len(true))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(true))
    half = np.nan_to_num(np.nanmax(true, axis=0, initial=0.0)) / FINE / 2
    assert (np.nan_to_num(np.abs(found - true)) <= half + 1e-6).all()


def test_a_constant_gene_keeps_its_value_and_a_gene_without_values_is_missing() -> None:
    scale, codes = quantise(np.array([[3.0, np.nan], [3.0, np.nan]]), FINE)
    assert scale.tolist() == [[3.0, 0.0], [0.0, 0.0]]
    assert codes.tolist() == [[0, 0], [MISSING, MISSING]]


def test_genes_with_a_button_are_stored_first_then_those_that_vary_most() -> None:
    assert [GENES[column] for column in content().order] == ["FASN", "GRB7", "ACTB", "ERBB2"]


def test_what_does_not_fit_is_left_out_last_wanted_first_and_named() -> None:
    one = content(section(), whole_slide())
    whole = pack(one)
    assert whole.left_out == []
    sizes = {(layer.slide, layer.layer): len(layer.text) for layer in whole.layers}
    assert list(sizes) == [(0, MEASURED), (0, PREDICTED), (1, PREDICTED), (0, SPREAD)]
    less = pack(one, budget=sum(sizes.values()) - 10)
    assert sum(len(layer.text) for layer in less.layers) <= sum(sizes.values()) - 10
    assert len(less.layers) == 4
    assert less.left_out[0] == f"spread of A: {less.layers[-1].genes} of 4 genes are in this file"
    assert pack(one, budget=0).left_out[0] == "measured of A: not in this file"


def test_what_reference_tiles_measured_comes_last_and_is_named_if_it_does_not_fit() -> None:
    one = content()
    whole = pack(one)
    assert (whole.references, whole.reference_genes, whole.left_out) == (2, 4, [])
    less = pack(one, budget=sum(len(layer.text) for layer in whole.layers))
    assert less.left_out == ["measured at the reference tiles: not in this file"]


def test_sections_that_do_not_fit_together_have_the_same_genes() -> None:
    one = content(section("A"), section("B"))
    sizes = [len(layer.text) for layer in pack(one).layers[:4]]
    less = pack(one, budget=sum(sizes) * 3 // 4)
    assert [(layer.slide, layer.layer) for layer in less.layers] == [
        (0, MEASURED),
        (0, PREDICTED),
        (1, MEASURED),
        (1, PREDICTED),
    ]
    assert len({layer.genes for layer in less.layers}) == 1
    assert 0 < less.layers[0].genes < len(GENES)


def test_many_values_have_coarser_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystp.evaluate.report.viewer.packing.STEPS", ((10, 254), (None, 30)))
    packed = pack(content(section()))
    assert packed.steps == 30
    codes = zlib.decompress(base64.b64decode(packed.layers[1].text))[8 * 4 :]
    assert max(set(codes) - {MISSING}) == 30


def test_pictures_of_the_reference_come_before_those_of_spots_and_what_is_cut_is_named() -> None:
    one = content(replace(section(), pictures=[b"123"] * 200))
    size = len(picture())
    whole, left_out = with_fewer_pictures(one, size + 600)
    assert (whole.slides[0].pictures, whole.references, left_out) == ([b"123"] * 200, one.references, [])
    fewer, left_out = with_fewer_pictures(one, size + 599)
    assert (fewer.slides[0].pictures, fewer.references, left_out) == (None, one.references, [])
    fewer, left_out = with_fewer_pictures(one, size - 1)
    assert [tile.picture for tile in fewer.references] == [None, None]
    assert left_out == ["pictures of reference tiles: 0 of 1 are in this file"]


def test_numbers_read_back() -> None:
    values = np.array([[1.5, np.nan], [-2.0, 0.25]])
    raw = zlib.decompress(base64.b64decode(packed_floats(values)))
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(2, 2), values)


def test_four_sections_of_300_spots_and_785_genes_fit() -> None:
    rng = np.random.default_rng(0)
    true = np.cumsum(rng.normal(size=(300, 785)), axis=0)
    slide = replace(
        section(), layers={MEASURED: true, PREDICTED: true, SPREAD: true}, xy=true[:, :2], distance=None, scores=None
    )
    one = replace(
        content(slide, slide, slide, slide),
        genes=[f"G{n}" for n in range(785)],
        importance=true[0],
        sets={},
        reference_expression=None,
    )
    packed = pack(one)
    assert sum(len(layer.text) for layer in packed.layers) < 8_000_000
    assert packed.left_out == []
