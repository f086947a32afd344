"""Paired differences between models whose true order is planted."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from raystp import tables
from raystp.evaluate.comparison.differences import (
    PairedDifference,
    case_pair,
    paired_differences,
    primary,
    turned,
)
from raystp.evaluate.comparison.entries import ComparedModel, Outcomes, PairScorer, common_outcomes, pairs_to_compare
from raystp.evaluate.comparison.text import comparison_notes, comparison_text
from raystp.evaluate.metrics.cases import CASES, CaseOutcome, case_scores
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.tables import COMPARISON

GENES, SIDE = 6, 8
SETS = {"all": np.arange(GENES), "pair": np.array([0, 1])}
SCORER = PairScorer(SETS, seed=0, draws=200)
XY = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2) * 100.0


def sections(noise: float, patients: str, seed: int = 0) -> dict[str, SectionOutcome]:
    """Return a model that predicts the truth with noise of this standard deviation."""
    found = {}
    for number, patient in enumerate(patients):
        truth = np.random.default_rng(number).normal(size=(SIDE * SIDE, GENES))
        error = np.random.default_rng([seed, number, 7]).normal(size=truth.shape)
        found[f"S{number}"] = SectionOutcome(truth + noise * error, truth, XY, patient)
    return found


def model(name: str, *outcomes: Outcomes) -> ComparedModel:
    return ComparedModel(name, outcomes, [SCORER.score(one) for one in outcomes])


def compare(*models: ComparedModel) -> list[PairedDifference]:
    by_name = {one.name: one for one in models}
    pairs = [SCORER.pair(by_name[a], by_name[b]) for a, b in pairs_to_compare(list(by_name), [])]
    found = [one for one in pairs if one is not None]
    return paired_differences(found, SETS, where=("patient", "toy"), rng=np.random.default_rng(0))


def pcc_all(rows: Sequence[PairedDifference], name: str, against: str) -> PairedDifference:
    found = primary(rows, name, against)
    assert found is not None
    return found


def test_rows_are_those_of_the_comparison_table() -> None:
    rows = compare(model("a", sections(0.5, "pp")), model("b", sections(1.0, "pp")))
    assert [field.name for field in fields(PairedDifference)] == COMPARISON.names
    table = tables.of_rows([asdict(row) for row in rows], COMPARISON)
    assert table.select(["metric", "genes"]).to_pylist() == [
        {"metric": "PCC", "genes": "all"},
        {"metric": "PCC", "genes": "pair"},
        {"metric": "MSE", "genes": "all"},
    ]


@pytest.mark.parametrize(("patients", "test"), [("pp", "bootstrap of blocks within section"), ("pqrstuvw", "patients")])
def test_the_planted_order_is_found(patients: str, test: str) -> None:
    noises = {"best": 0.5, "middle": 0.6, "worst": 2.0}
    rows = compare(*(model(name, sections(noise, patients)) for name, noise in noises.items()))
    for one, other in (("best", "middle"), ("middle", "worst"), ("best", "worst")):
        pcc = pcc_all(rows, one, other)
        assert pcc.difference > 0
        assert pcc.low is not None
        assert pcc.low > 0
        assert pcc.p_holm is not None
        assert pcc.p_holm < 0.05
        assert test in pcc.test
        (error,) = [row for row in rows if (row.model, row.against, row.metric) == (one, other, "MSE")]
        assert error.difference < 0


def test_a_difference_is_that_of_the_mean_correlations() -> None:
    ours, theirs = sections(0.5, "pqr"), sections(1.0, "pqr")
    row = pcc_all(compare(model("a", ours), model("b", theirs)), "a", "b")

    def mean_pcc(outcomes: Outcomes) -> float:
        return float(
            np.mean(
                [
                    [np.corrcoef(one.predicted[:, gene], one.measured[:, gene])[0, 1] for gene in range(GENES)]
                    for one in outcomes.values()
                ]
            )
        )

    assert row.difference == pytest.approx(mean_pcc(ours) - mean_pcc(theirs))
    assert (row.units, row.p) == (3, 0.25)  # all three patients agree, and 2 of 8 signs do


@pytest.mark.parametrize("patients", ["pp", "pqrs", "pppp"])
def test_comparing_in_the_other_direction_gives_minus_the_same(patients: str) -> None:
    one, other = model("a", sections(0.8, patients)), model("b", sections(1.0, patients))
    for row, opposite in zip(compare(one, other), compare(other, one), strict=True):
        back = turned(opposite)
        assert (row.model, row.against, row.p, row.p_holm) == (back.model, back.against, back.p, back.p_holm)
        assert [row.difference, row.low, row.high] == pytest.approx([back.difference, back.low, back.high])


@pytest.mark.parametrize("patients", ["pp", "pqrs"])
def test_equal_models_differ_by_0_with_p_1(patients: str) -> None:
    for row in compare(model("a", sections(0.8, patients)), model("b", sections(0.8, patients))):
        assert (row.difference, row.low, row.high, row.p, row.p_holm) == (0, 0, 0, 1, 1)


def test_a_third_model_changes_the_correction_alone() -> None:
    one, other = model("a", sections(0.8, "pp")), model("b", sections(0.9, "pp"))
    third = model(
        "c",
        {
            name: replace(part, measured=np.where(part.measured > 2, np.nan, part.measured))
            for name, part in sections(1.0, "pp").items()
        },
    )
    alone, among = (pcc_all(rows, "a", "b") for rows in (compare(one, other), compare(one, other, third)))
    assert replace(among, p_holm=None) == replace(alone, p_holm=None)
    assert alone.p_holm == alone.p


def test_a_value_that_one_model_does_not_predict_is_left_out_for_both() -> None:
    ours, theirs = sections(0.5, "pp"), sections(1.0, "pp")
    part = theirs["S0"]
    lacking = part.measured.copy()
    lacking[:, 5] = np.nan
    lacking[:24] = np.nan
    row = pcc_all(compare(model("a", ours), model("b", theirs | {"S0": replace(part, measured=lacking)})), "a", "b")
    kept = {name: one["S0"] for name, one in (("a", ours), ("b", theirs))}
    first = {
        name: np.mean([np.corrcoef(one.predicted[24:, gene], one.measured[24:, gene])[0, 1] for gene in range(5)])
        for name, one in kept.items()
    }
    second = pcc_all(compare(model("a", {"S1": ours["S1"]}), model("b", {"S1": theirs["S1"]})), "a", "b")
    assert row.difference == pytest.approx((first["a"] - first["b"] + second.difference) / 2)


def test_spots_that_one_model_lacks_are_left_out_and_their_order_does_not_matter() -> None:
    ours, theirs = sections(0.5, "p"), sections(1.0, "p")
    order = np.random.default_rng(0).permutation(SIDE * SIDE)[:40]
    part = theirs["S0"]
    fewer = {"S0": replace(part, predicted=part.predicted[order], measured=part.measured[order], xy=XY[order])}
    common = common_outcomes([ours, fewer])
    assert {tuple(spot) for spot in common[0]["S0"].xy} == {tuple(spot) for spot in XY[order]}
    np.testing.assert_array_equal(common[0]["S0"].xy, common[1]["S0"].xy)
    np.testing.assert_array_equal(common[0]["S0"].measured, common[1]["S0"].measured)
    elsewhere = {"S0": replace(part, xy=XY + 1.0)}
    assert SCORER.pair(model("a", ours), model("b", elsewhere)) is None


def test_too_few_units_have_a_difference_without_interval_and_p() -> None:
    small = {
        name: {"S0": replace(one["S0"], predicted=one["S0"].predicted[:8], measured=one["S0"].measured[:8], xy=XY[:8])}
        for name, one in (("a", sections(0.5, "p")), ("b", sections(1.0, "p")))
    }
    rows = compare(*(model(name, one) for name, one in small.items()))
    row = pcc_all(rows, "a", "b")
    assert np.isfinite(row.difference)
    assert (row.low, row.high, row.p, row.p_holm) == (None, None, None, None)
    assert "There is no p" in comparison_notes(rows, 300)[-1]
    assert "n/a" in comparison_text(rows)


def test_the_note_says_when_no_p_can_be_small() -> None:
    rows = compare(*(model(name, sections(noise, "pqr")) for name, noise in (("a", 0.5), ("b", 1.0), ("c", 2.0))))
    assert (
        "the lowest corrected p is 0.750: compare fewer models, or test on more units"
        in comparison_notes(rows, 300)[-1]
    )


def test_seeds_count_as_one_model_with_their_mean_score() -> None:
    seeds = [sections(0.8, "pp", seed) for seed in range(3)]
    other = model("b", sections(1.0, "pp"))
    together = pcc_all(compare(model("a", *seeds), other), "a", "b")
    apart = [pcc_all(compare(model("a", one), other), "a", "b").difference for one in seeds]
    assert together.difference == pytest.approx(np.mean(apart))


def test_models_of_cases_are_compared_on_the_same_draws_of_patients() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(24, GENES))
    names = [f"c{number}" for number in range(24)]
    patients = [f"p{number // 2}" for number in range(24)]
    scores = {
        name: case_scores(
            CaseOutcome(names, patients, truth + noise * rng.normal(size=truth.shape), truth),
            SETS,
            rng=np.random.default_rng(0),
            draws=300,
        )
        for name, noise in (("good", 0.5), ("bad", 3.0))
    }
    pair = case_pair(("good", "bad"), (scores["good"], scores["bad"]), patients)
    rows = paired_differences([pair], SETS, where=("patient", "toy"), section=CASES, rng=rng)
    row = pcc_all(rows, "good", "bad")
    assert (row.section, row.test, row.units) == (CASES, "bootstrap of patients", 12)
    assert row.difference > 0
    assert row.p == pytest.approx(2 / 301)


def test_two_cases_have_no_correlation_and_no_p() -> None:
    truth = np.arange(12.0).reshape(2, GENES)
    outcomes = [CaseOutcome(["c0", "c1"], ["p0", "p1"], truth + error, truth) for error in (1.0, 2.0)]
    scores = [case_scores(one, SETS, rng=np.random.default_rng(0), draws=200) for one in outcomes]
    pair = case_pair(("a", "b"), (scores[0], scores[1]), ["p0", "p1"])
    (row,) = paired_differences([pair], SETS, where=("patient", "toy"), section=CASES, rng=np.random.default_rng(0))
    assert (row.metric, row.difference, row.p, row.units) == ("MSE", 1.0 - 4.0, None, 2)
    assert "There is no p: 3 units to resample are needed, and there are 2." in comparison_notes([row], 200)
    assert comparison_text([row]).splitlines()[-1].split() == ["a", "b", "n/a", "n/a", "-3.000", "n/a"]


def test_comparisons_with_controls_are_corrected_apart_from_those_of_models() -> None:
    by_name = {
        name: model(name, sections(noise, "pqrst")) for name, noise in (("a", 0.5), ("b", 0.8), ("control", 2.0))
    }
    pairs = [SCORER.pair(by_name["a"], by_name[other]) for other in ("b", "control")]
    found = [replace(one, control=one.against == "control") for one in pairs if one is not None]
    rows = paired_differences(found, SETS, where=("patient", "toy"), rng=np.random.default_rng(0))
    for other in ("b", "control"):
        row = pcc_all(rows, "a", other)
        assert row.p == row.p_holm == 2 / 32
        assert row.control == (other == "control")
    assert (
        "for 1 comparison of models and apart for 1 comparison with controls in each" in comparison_notes(rows, 200)[1]
    )
