"""The same tissue under two names is found by its counts; two tissues are not."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pytest
from jaxtyping import Float64

from raystp.expression.leaks import same_tissue
from raystp.expression.leaks.pseudo_bulk import PseudoBulk, pseudo_bulk
from raystp.expression.leaks.same_tissue import find_same_tissue

Make = Callable[..., ad.AnnData]
GENES = [f"G{number}" for number in range(400)]


def _levels(rng: np.random.Generator) -> Float64[np.ndarray, "gene"]:
    """Return how strongly each gene is expressed in one patient: all share a profile, and differ by a quarter."""
    shared = np.random.default_rng(7).gamma(0.5, 40.0, len(GENES))
    levels: Float64[np.ndarray, " gene"] = shared * np.exp(0.25 * rng.standard_normal(len(GENES))) + 0.1
    return levels


def _counts(seed: int, spots: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(_levels(rng), (spots, len(GENES))).astype(np.float64)


def _pairs(bulks: Mapping[str, PseudoBulk]) -> list[tuple[str, str, bool]]:
    return [(one.first, one.second, one.is_copy) for one in find_same_tissue(bulks)]


def test_a_copy_is_found_whatever_the_order_of_its_genes_and_spots(make: Make) -> None:
    counts = _counts(0)
    rng = np.random.default_rng(1)
    genes = rng.permutation(len(GENES))
    bulks = {
        "a": pseudo_bulk(make(counts, GENES)),
        "b": pseudo_bulk(make(counts[rng.permutation(60)][:, genes], [GENES[gene] for gene in genes])),
        "other": pseudo_bulk(make(_counts(2), GENES)),
    }
    assert _pairs(bulks) == [("a", "b", True)]


def test_one_tissue_that_was_counted_again_is_found_by_its_correlation(make: Make) -> None:
    counts = _counts(0, spots=200)
    again = np.random.default_rng(1).binomial(counts.astype(np.int64), 0.9).astype(np.float64)
    bulks = {"a": pseudo_bulk(make(counts, GENES)), "b": pseudo_bulk(make(again[:, 50:], GENES[50:]))}
    (found,) = find_same_tissue(bulks)
    assert (found.genes, found.spots, found.is_copy) == (350, 200, False)
    assert 0.999 < found.correlation < 1
    x, y = (np.log1p(one.sum(axis=0)[50:] * 1e6 / one.sum()) for one in (counts, again))
    assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-4)  # restated with the same genes


def test_two_patients_and_another_number_of_spots_are_no_copies(make: Make) -> None:
    bulks = {f"p{seed}": pseudo_bulk(make(_counts(seed), GENES)) for seed in range(8)}
    bulks["part"] = pseudo_bulk(make(_counts(0)[:59], GENES))
    assert _pairs(bulks) == []


def test_few_shared_genes_correlate_by_chance_and_only_copies_are_found(make: Make) -> None:
    few = {"a": pseudo_bulk(make([[9, 1], [9, 1]])), "b": pseudo_bulk(make([[8, 1], [9, 1]]))}
    assert _pairs(few) == []
    assert _pairs(few | {"c": few["a"]}) == [("a", "c", True)]


@pytest.mark.parametrize("block", [1, 2, 3, 512])
def test_blocks_of_any_size_find_the_same_pairs(make: Make, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(same_tissue, "BLOCK", block)
    bulks: dict[str, Any] = {name: pseudo_bulk(make(_counts(int(name[1])), GENES)) for name in ("a0", "b1", "c0", "d1")}
    bulks["e2"] = pseudo_bulk(make(_counts(2)[:, 1:], GENES[1:]))
    assert _pairs(bulks) == [("a0", "c0", True), ("b1", "d1", True)]


def test_three_thousand_sections_with_one_number_of_spots_take_seconds() -> None:
    rng = np.random.default_rng(0)
    levels = rng.normal(5, 2, (3000, 500)).astype(np.float16)
    levels[2999] = levels[17]
    keys = np.arange(500, dtype=np.uint64).tobytes()
    bulks = {f"{row:04d}": PseudoBulk(100, keys, levels[row], str(row)) for row in range(3000)}
    start = time.perf_counter()
    assert _pairs(bulks) == [("0017", "2999", False)]
    assert time.perf_counter() - start < 30
