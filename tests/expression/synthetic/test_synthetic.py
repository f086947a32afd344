"""Laws of the simulated genes: equal totals, constant null genes, the stated noise, spots on a Visium array."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from scipy.spatial import cKDTree

from raystp.errors import SectionError
from raystp.expression.synthetic.programs import (
    DISPERSION,
    MEDIAN_UMI,
    Programs,
    expected_expression,
    measure,
    plant_programs,
)
from raystp.expression.synthetic.spots import type_fractions, visium_positions
from raystp.units import Level0Pixels, MicronsPerPixel

TISSUES = ("tumour", "stroma", "immune", "fat", "gland")
MPP = MicronsPerPixel(0.5)


def planted(seed: int = 0, *, genes: int = 30, null: int = 100) -> Programs:
    return plant_programs(np.random.default_rng(seed), TISSUES, genes_per_program=genes, null_genes=null)


def pure(spots_each: int) -> Float64[np.ndarray, "spot type"]:
    """Return spots of one tissue each, tissue by tissue."""
    return np.repeat(np.eye(len(TISSUES)), spots_each, axis=0)


def pcc(one: Float64[np.ndarray, "spot gene"], other: Float64[np.ndarray, "spot gene"]) -> Float64[np.ndarray, " gene"]:
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    return np.asarray((one * other).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0)))


def log_cp10k(counts: Float64[np.ndarray, "spot gene"]) -> Float64[np.ndarray, "spot gene"]:
    return np.asarray(np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 40), st.integers(1, 60))
def test_every_tissue_has_the_same_expected_total_to_the_last_bit(seed: int, genes: int, null: int) -> None:
    programs = planted(seed, genes=genes, null=null)
    assert (programs.relative.sum(axis=1) == 1.0).all()
    assert (programs.relative[:, ::-1].cumsum(axis=1)[:, -1] == 1.0).all()
    assert (programs.relative > 0.0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_raised_genes_are_highest_and_lowered_genes_lowest_in_their_tissues(seed: int) -> None:
    programs = planted(seed)
    tissues_of = [
        [kind for kind, tissue in enumerate(TISSUES) if tissue[:3].upper() in name.split("_")[0]]
        for name in programs.genes
    ]
    for home, away in itertools.permutations(range(len(TISSUES)), 2):
        # The planted genes of a tissue share one scale, which the genes of other programs show for a pair of tissues.
        ratios = programs.relative[home] / programs.relative[away]
        others = [
            ratio
            for ratio, kinds, planted_gene in zip(ratios, tissues_of, programs.planted, strict=True)
            if planted_gene and not {home, away} & set(kinds)
        ]
        for name, ratio, kinds in zip(programs.genes, ratios, tissues_of, strict=True):
            if home in kinds and away not in kinds:
                assert (ratio > max(others)) if "_UP" in name else (ratio < min(others)), name


def test_gene_names_are_unique_and_contain_program_and_direction() -> None:
    programs = planted(genes=3, null=2)
    assert programs.genes[:3] in {
        ("TUM_UP01", "TUM_UP02", "TUM_DN01"),
        ("TUM_UP01", "TUM_DN01", "TUM_UP02"),
        ("TUM_DN01", "TUM_UP01", "TUM_UP02"),
    }
    assert {name.split("_")[0] for name in programs.genes[15:18]} == {"TUMGLA"}
    assert programs.genes[-2:] == ("NULL001", "NULL002")
    assert len(set(programs.genes)) == len(programs.genes) == 6 * 3 + 2
    assert programs.planted.tolist() == [True] * 18 + [False] * 2


def test_null_genes_are_constant_and_planted_genes_are_not() -> None:
    programs = planted()
    shares = np.random.default_rng(1).dirichlet(np.full(len(TISSUES), 0.3), 500)
    for level in (programs.relative, expected_expression(programs, shares)):
        assert (np.ptp(level[:, ~programs.planted], axis=0) == 0.0).all()
        assert (np.ptp(level[:, programs.planted], axis=0) > 0.0).all()


def test_expected_expression_is_the_mean_of_the_tissues_weighted_by_area() -> None:
    programs = planted()
    got = expected_expression(programs, np.array([[0.0, 1.0, 0.0, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0, 0.2]]))
    np.testing.assert_allclose(got[0], programs.relative[1], rtol=1e-12)
    np.testing.assert_allclose(got[1], 0.5 * (programs.relative[0] + programs.relative[4]), rtol=1e-12)
    np.testing.assert_allclose(got.sum(axis=1), 1.0, rtol=1e-12)


def test_abundances_are_heavy_tailed() -> None:
    level = planted().relative.mean(axis=0)
    assert level.max() / np.median(level) > 8.0
    assert 0.9 < np.log(level).std() < 1.5


def test_counts_have_the_expected_mean_and_more_than_poisson_variance() -> None:
    expected = np.tile([[0.5, 0.3, 0.2]], (40000, 1))
    mean = 100.0 * expected[0]
    counts = measure(np.random.default_rng(0), expected, median_umi=100.0, depth_sigma=0.0)
    np.testing.assert_allclose(counts.mean(axis=0), mean, rtol=0.01)
    np.testing.assert_allclose(counts.var(axis=0), mean + DISPERSION * mean**2, rtol=0.05)
    plain = measure(np.random.default_rng(0), expected, median_umi=100.0, depth_sigma=0.0, dispersion=0.0)
    np.testing.assert_allclose(plain.var(axis=0), mean, rtol=0.05)


def test_library_sizes_are_lognormal_and_independent_of_the_tissue() -> None:
    programs, fractions = planted(), pure(1000)
    totals = np.log(measure(np.random.default_rng(0), expected_expression(programs, fractions)).sum(axis=1))
    assert np.exp(np.median(totals)) == pytest.approx(MEDIAN_UMI, rel=0.05)
    assert totals.std() == pytest.approx(0.6, rel=0.05)
    by_tissue = totals.reshape(len(TISSUES), -1).mean(axis=1)
    assert np.ptp(by_tissue) < 5 * 0.6 / np.sqrt(1000)


def test_normalised_null_genes_do_not_depend_on_the_tissue() -> None:
    programs = planted()
    counts = measure(np.random.default_rng(0), expected_expression(programs, pure(2000))).astype(float)
    by_tissue = log_cp10k(counts).reshape(len(TISSUES), 2000, -1).mean(axis=1)
    centred = by_tissue - by_tissue.mean(axis=0)
    null, rest = centred[:, ~programs.planted], centred[:, programs.planted]
    assert np.abs(null.mean(axis=1)).max() < 0.01  # no tissue raises all null genes together
    assert null.std() < 0.03
    assert rest.std() > 0.2


def test_the_planted_mean_reaches_a_realistic_score_and_none_on_null_genes() -> None:
    programs = planted()
    rng = np.random.default_rng(0)
    blocks = rng.integers(1, len(TISSUES) + 1, (12, 12)).astype(np.uint8)  # regions of 304 um
    kinds = np.kron(blocks, np.ones((38, 38), np.uint8))
    xy, _, _ = visium_positions(12 * 38 * 16, 12 * 38 * 16, mpp=MPP)
    shares = type_fractions(kinds, xy, cell=16, radius_px=Level0Pixels(55.0), types=len(TISSUES))[:, 1:]
    expected = expected_expression(programs, shares)
    measured = log_cp10k(measure(rng, expected).astype(float))
    score = pcc(np.log1p(1e4 * expected[:, programs.planted]), measured[:, programs.planted]).mean()
    assert 0.3 < score < 0.7
    every_tissue = np.abs(
        [pcc(np.tile(share[:, None], (1, 100)), measured[:, ~programs.planted]).mean() for share in shares.T]
    )
    assert every_tissue.max() < 0.02


def test_the_same_seed_gives_the_same_genes_and_counts() -> None:
    one, two = (measure(np.random.default_rng(3), expected_expression(planted(3), pure(5))) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert planted(3).relative.tobytes() != planted(4).relative.tobytes()


def test_positions_are_hexagonal_with_visiums_array_coordinates() -> None:
    xy, row, col = visium_positions(4096, 4096, mpp=MPP)
    assert (row % 2 == col % 2).all()
    assert len(set(zip(row.tolist(), col.tolist(), strict=True))) == len(xy)
    distance, _ = cKDTree(xy).query(xy, k=3)
    np.testing.assert_allclose(distance[:, 1], 200.0)
    position_of = {(r, c): p for r, c, p in zip(row.tolist(), col.tolist(), xy, strict=True)}
    np.testing.assert_allclose(position_of[0, 2] - position_of[0, 0], [200.0, 0.0])
    np.testing.assert_allclose(position_of[1, 1] - position_of[0, 0], [100.0, 100.0 * np.sqrt(3.0)])
    assert xy.min() >= 112.0
    assert xy.max() <= 4096.0 - 112.0
    assert 400 < len(xy) < 500


def test_a_disc_on_a_border_is_divided_by_area_and_the_area_off_the_slide_is_glass() -> None:
    kinds = np.repeat(np.array([[1, 2]], np.uint8), 20, axis=1).repeat(40, axis=0)  # 640 x 640 px, border at x = 320
    xy = np.array([[160.0, 320.0], [320.0, 320.0], [480.0, 320.0], [0.0, 320.0], [5000.0, 5000.0]])
    got = type_fractions(kinds, xy, cell=16, radius_px=Level0Pixels(55.0), types=3)
    assert got.shape == (5, 4)
    np.testing.assert_allclose(got.sum(axis=1), 1.0)
    np.testing.assert_array_equal(got[[0, 2, 4]], [[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(got[1], [0.0, 0.5, 0.5, 0.0], atol=0.03)
    np.testing.assert_allclose(got[3], [0.5, 0.5, 0.0, 0.0], atol=0.03)


def test_a_small_square_of_tissue_has_its_share_of_the_disc() -> None:
    kinds = np.zeros((40, 40), np.uint8)
    kinds[19:21, 19:21] = 1  # 32 x 32 px at the centre
    got = type_fractions(kinds, np.array([[320.0, 320.0]]), cell=16, radius_px=Level0Pixels(55.0), types=1)
    assert got[0, 1] == pytest.approx(32**2 / (np.pi * 55**2), rel=0.05)


def test_invalid_arguments_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SectionError, match="first three letters differ"):
        plant_programs(rng, ["tumour", "tumid", "fat"])
    with pytest.raises(SectionError, match="three tissues or more"):
        plant_programs(rng, ["tumour", "fat"])
    with pytest.raises(SectionError, match="2 genes per program"):
        plant_programs(rng, TISSUES, genes_per_program=2)
    with pytest.raises(SectionError, match="1 of 2 spots have no tissue"):
        expected_expression(planted(), np.array([[1.0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0]]))
    with pytest.raises(SectionError, match="leave glass out"):
        expected_expression(planted(), np.ones((2, 6)))
    with pytest.raises(SectionError, match="too small for a spot"):
        visium_positions(100, 4096, mpp=MPP)
    with pytest.raises(SectionError, match="the tissue map has type 4"):
        type_fractions(np.full((2, 2), 4, np.uint8), np.zeros((1, 2)), cell=16, radius_px=Level0Pixels(5.0), types=3)
