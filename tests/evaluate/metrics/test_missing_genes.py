"""A gene that a section has not measured has no score there, and changes no other score."""

from dataclasses import replace

import numpy as np
import pytest

from raystp.evaluate.metrics.genes import genes_to_show, mse, pcc_per_gene, pcc_where_measured
from raystp.evaluate.metrics.score import ScoreLabel, ScoreRow, SectionOutcome, score_model

GENES = 6
SETS = {"all": np.arange(GENES), "pair": np.array([4, 5]), "last": np.array([5])}
METRICS = {"PCC", "MSE", "MAE", "RVD", "spot-PCC", "spread"}
Key = tuple[str, str, str]


def outcome(seed: int, patient: str = "p", missing: tuple[int, ...] = (), spots: int = 64) -> SectionOutcome:
    rng = np.random.default_rng(seed)
    measured = rng.normal(2.0, 1.0, (spots, GENES)).astype(np.float32)
    predicted = (measured + rng.normal(size=measured.shape)).astype(np.float32)
    measured[:, list(missing)] = np.nan
    xy = np.stack([np.arange(spots) % 8, np.arange(spots) // 8], axis=1) * 100.0
    return SectionOutcome(predicted, measured, xy, patient)


def scored(outcomes: dict[str, SectionOutcome], nulls: dict[str, np.ndarray] | None = None) -> dict[Key, ScoreRow]:
    label = ScoreLabel("section", "toy", "ridge")
    rows = score_model(label, outcomes, SETS, rng=np.random.default_rng(0), draws=200, nulls=nulls)
    return {(row.section, row.genes, row.metric): row for row in rows}


def test_scores_of_a_section_are_over_the_genes_that_it_measured() -> None:
    part = outcome(0, missing=(5,))
    rows = scored({"A": part})
    measured = part.predicted[:, :5], part.measured[:, :5]
    assert rows["A", "all", "PCC"].value == pytest.approx(pcc_per_gene(*measured)[0].mean())
    assert rows["A", "all", "MSE"].value == pytest.approx(mse(*measured).mean())
    assert rows["A", "pair", "PCC"].value == pytest.approx(pcc_per_gene(*measured)[0][4])
    narrow = score_model(
        ScoreLabel("section", "toy", "ridge"),
        {"A": replace(part, predicted=measured[0], measured=measured[1])},
        {"all": np.arange(5)},
        rng=np.random.default_rng(0),
        draws=200,
    )
    for row in narrow:
        same = rows[row.section, "all", row.metric]
        numbers = [(one.value, one.low, one.high, one.constant, one.n) for one in (row, same)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-12)


def test_a_set_without_a_measured_gene_has_no_row_and_no_share_of_the_mean() -> None:
    rows = scored({"A": outcome(0, missing=(5,)), "B": outcome(1)})
    assert {metric for section, genes, metric in rows if (section, genes) == ("B", "last")} == METRICS - {"RVD"} | {
        "RVD"
    }
    assert not [key for key in rows if key[:2] == ("A", "last")]
    assert rows["mean", "last", "PCC"].value == rows["B", "last", "PCC"].value
    assert rows["mean", "all", "PCC"].value == pytest.approx(
        (rows["A", "all", "PCC"].value + rows["B", "all", "PCC"].value) / 2
    )
    assert all(np.isfinite([row.value]).all() for row in rows.values())


def test_a_pooled_gene_is_over_the_sections_that_measured_it() -> None:
    parts = {"A": outcome(0, missing=(5,)), "B": outcome(1), "C": outcome(2)}
    rows = scored(parts)
    with_gene = np.concatenate([parts[name].predicted for name in "BC"])[:, 5:]
    truth = np.concatenate([parts[name].measured for name in "BC"])[:, 5:]
    assert rows["pooled", "last", "PCC"].value == pytest.approx(pcc_per_gene(with_gene, truth)[0][0])
    assert rows["pooled", "last", "MSE"].value == pytest.approx(mse(with_gene, truth)[0])


@pytest.mark.parametrize("patients", ["ppp", "pqr"])
def test_too_few_sections_with_the_genes_give_no_interval(patients: str) -> None:
    missing = ((5,), (5,), ())
    rows = scored({name: outcome(n, patients[n], missing[n]) for n, name in enumerate("ABC")})
    last, whole = rows["mean", "last", "PCC"], rows["mean", "all", "PCC"]
    assert (last.low, last.high) == (None, None)
    assert whole.low is not None
    assert whole.high is not None
    assert whole.low < whole.value < whole.high


def test_nothing_changes_where_no_gene_is_missing() -> None:
    parts = {"A": outcome(0), "B": outcome(1)}
    masked = {**parts, "B": outcome(1, missing=(5,))}
    before, after = scored(parts), scored(masked)
    assert before["A", "all", "PCC"] == after["A", "all", "PCC"]
    assert before["A", "last", "MSE"] == after["A", "last", "MSE"]


def test_the_null_leaves_out_the_genes_that_the_score_leaves_out() -> None:
    null = np.arange(3.0)[:, None] + np.array([0.0, 0, 0, 0, 0, 60])
    missing = null.copy()
    missing[:, 5] = np.nan
    rows = scored({"A": outcome(0, missing=(5,)), "B": outcome(1)}, nulls={"A": missing, "B": null, "pooled": null})
    assert rows["A", "all", "PCC"].null_mean == pytest.approx(1.0)
    assert rows["B", "all", "PCC"].null_mean == pytest.approx(11.0)
    assert rows["mean", "all", "PCC"].null_mean == pytest.approx(6.0)


def test_one_spot_has_errors_and_no_correlation() -> None:
    rows = scored({"A": outcome(0, spots=1), "B": outcome(1)})
    assert {metric for section, genes, metric in rows if (section, genes) == ("A", "all")} == {"MSE", "MAE", "spot-PCC"}
    assert rows["mean", "all", "PCC"].value == rows["B", "all", "PCC"].value
    alone = scored({"A": outcome(0, spots=1)})
    assert ("mean", "all", "PCC") not in alone


def test_a_gene_measured_in_some_spots_is_scored_over_these() -> None:
    part = outcome(0)
    part.measured[10:, 3] = np.nan
    part.measured[1:, 4] = np.nan
    pcc, constant = pcc_where_measured(part.predicted, part.measured)
    assert pcc[3] == pytest.approx(pcc_per_gene(part.predicted[:10, :4], part.measured[:10, :4])[0][3])
    assert np.isnan(pcc[4])
    assert not constant.any()
    assert scored({"A": part})["A", "all", "PCC"].value == pytest.approx(np.nanmean(pcc))


def test_a_gene_without_a_pcc_is_not_drawn() -> None:
    names = ["a", "b", "c"]
    assert genes_to_show(np.array([np.nan, 0.1, 0.5]), names, ["a", "b"]) == [
        (2, "highest PCC here"),
        (1, "median PCC here"),
    ]
    assert genes_to_show(np.full(3, np.nan), names) == []
