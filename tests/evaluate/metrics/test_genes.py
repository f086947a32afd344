import numpy as np
import pytest
from scipy.stats import pearsonr

from raystp.errors import ModelError, PanelError, SectionError
from raystp.evaluate.metrics.genes import gene_sets, genes_to_show, highest, mse, named_sets, pcc_per_gene, spot_pcc


def pair(spots: int = 40, genes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    measured = rng.normal(5.0, 2.0, (spots, genes)).astype(np.float32)
    return (0.5 * measured + rng.normal(size=(spots, genes))).astype(np.float32), measured


def test_pcc_is_that_of_scipy() -> None:
    predicted, measured = pair()
    pcc, constant = pcc_per_gene(predicted, measured)
    wanted = [
        pearsonr(p.astype(float), m.astype(float)).statistic for p, m in zip(predicted.T, measured.T, strict=True)
    ]
    np.testing.assert_allclose(pcc, wanted, atol=1e-12)
    assert not constant.any()


def test_spot_pcc_is_the_pcc_of_the_transposed_matrices() -> None:
    predicted, measured = pair()
    np.testing.assert_array_equal(spot_pcc(predicted, measured)[0], pcc_per_gene(predicted.T, measured.T)[0])


@pytest.mark.parametrize("side", [0, 1])
def test_a_gene_without_spread_has_pcc_0_keeps_its_column_and_is_counted(side: int) -> None:
    both = pair()
    whole, _ = pcc_per_gene(*both)
    both[side][:, 2] = 3.7
    pcc, constant = pcc_per_gene(*both)
    assert pcc[2] == 0.0
    assert constant.tolist() == [False, False, True, False, False, False]
    np.testing.assert_array_equal(np.delete(pcc, 2), np.delete(whole, 2))


def test_float32_rounding_is_not_spread() -> None:
    predicted, measured = pair()
    predicted[:, 0] = np.float32(1000.0)
    predicted[::2, 0] = np.nextafter(np.float32(1000.0), np.float32(2000.0))
    assert pcc_per_gene(predicted, measured)[1][0]


@pytest.mark.parametrize(("side", "error"), [(0, ModelError), (1, SectionError)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_the_number_of_the_gene(
    side: int, error: type[Exception], value: float
) -> None:
    both = pair()
    both[side][3, 4] = value
    with pytest.raises(error, match=r"1 of 6 genes .* such as gene number '4'"):
        pcc_per_gene(*both)


def test_no_spots_are_refused() -> None:
    with pytest.raises(SectionError, match="0 spots x 3 genes"):
        pcc_per_gene(np.zeros((0, 3)), np.zeros((0, 3)))


def test_mse_by_hand() -> None:
    predicted, measured = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[1.0, 2.0], [1.0, -4.0]])
    assert mse(predicted, measured).tolist() == [2.0, 10.0]


def test_highest_comes_first_and_ties_are_sorted_by_name_in_any_order_of_the_panel() -> None:
    values, names = np.array([1.0, 3.0, 3.0, 2.0]), ["d", "c", "b", "a"]
    assert [names[at] for at in highest(values, 3, names)] == ["b", "c", "a"]
    turned = [names[::-1][at] for at in highest(values[::-1].copy(), 3, names[::-1])]
    assert turned == ["b", "c", "a"]


def test_a_nan_cannot_be_ranked() -> None:
    with pytest.raises(PanelError, match="'y'"):
        highest(np.array([1.0, np.nan]), 1, ["x", "y"])


def test_gene_sets_are_named_by_their_true_size() -> None:
    names = [f"g{at}" for at in range(20)]
    sets = gene_sets(np.arange(20.0), np.arange(20.0)[::-1].copy(), names)
    assert {name: len(genes) for name, genes in sets.items()} == {"all": 20, "HEG-20": 20, "HVG-20": 20}
    few = gene_sets(np.arange(20.0), np.arange(20.0)[::-1].copy(), names, n=2)
    assert few["HEG-2"].tolist() == [19, 18]
    assert few["HVG-2"].tolist() == [0, 1]


def test_named_sets_are_indices_into_the_panel_without_other_genes_and_empty_sets() -> None:
    found = named_sets({"planted": ["c", "x", "a"], "absent": ["y"]}, ["a", "b", "c"])
    assert {name: genes.tolist() for name, genes in found.items()} == {"planted": [2, 0]}


def test_highest_median_and_listed_genes_are_shown_once_each() -> None:
    chosen = genes_to_show(np.array([0.1, 0.9, 0.5]), ["a", "b", "c"], ["b", "a", "absent"])
    assert chosen == [(1, "highest PCC here"), (2, "median PCC here"), (0, "listed in the config")]
