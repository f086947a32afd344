from dataclasses import asdict, fields

import numpy as np
import pytest

from raystp import tables
from raystp.errors import ModelError, PanelError, SectionError
from raystp.evaluate.metrics.genes import gene_sets, pcc_per_gene
from raystp.evaluate.metrics.score import ScoreLabel, ScoreRow, SectionOutcome, score_model

GENES = 12
NAMES = [f"g{at:02d}" for at in range(GENES)]
LABEL = ScoreLabel("section", "toy", "ridge")


def outcome(seed: int, patient: str = "p", side: int = 8, offset: float = 0.0) -> SectionOutcome:
    rng = np.random.default_rng(seed)
    measured = rng.normal(2.0 + offset, 1.0, (side * side, GENES)).astype(np.float32)
    predicted = (measured + rng.normal(size=measured.shape)).astype(np.float32)
    xy = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * 100.0
    return SectionOutcome(predicted, measured, xy, patient)


def scored(outcomes: dict[str, SectionOutcome], **more: object) -> list[ScoreRow]:
    sets = gene_sets(np.arange(12.0), np.arange(12.0), NAMES, n=3) | {"planted": np.array([0, 1])}
    return score_model(LABEL, outcomes, sets, rng=np.random.default_rng(0), draws=200, **more)  # type: ignore[arg-type] # keywords are passed on


def one(rows: list[ScoreRow], section: str, genes: str = "all", metric: str = "PCC") -> ScoreRow:
    (row,) = [r for r in rows if (r.section, r.genes, r.metric) == (section, genes, metric)]
    return row


def test_rows_are_those_of_the_scores_table() -> None:
    rows = scored({"A": outcome(0), "B": outcome(1)})
    table = tables.of_rows([asdict(row) for row in rows], tables.SCORES)
    assert [field.name for field in fields(ScoreRow)] == tables.SCORES.names
    assert table.num_rows == 4 * 4 * 6  # sections and the two over them, gene sets, metrics
    assert table["section"].unique().to_pylist() == ["A", "B", "mean", "pooled"]


def test_a_value_is_the_mean_of_its_genes_pcc_and_the_mean_row_that_of_sections() -> None:
    outcomes = {"A": outcome(0), "B": outcome(1)}
    rows = scored(outcomes)
    wanted = [pcc_per_gene(o.predicted, o.measured)[0] for o in outcomes.values()]
    for section, pcc in zip(outcomes, wanted, strict=True):
        assert one(rows, section).value == pytest.approx(pcc.mean())
        assert one(rows, section, "HEG-3").value == pytest.approx(pcc[9:].mean())
        assert one(rows, section, "planted").value == pytest.approx(pcc[:2].mean())
    assert one(rows, "mean").value == pytest.approx(np.mean([pcc.mean() for pcc in wanted]))


def test_pooling_rewards_an_offset_between_sections_that_the_mean_does_not() -> None:
    outcomes = {}
    for name, offset in (("A", 0.0), ("B", 5.0)):
        o = outcome(0, offset=offset)
        noise = np.random.default_rng(9).normal(size=o.measured.shape)
        outcomes[name] = SectionOutcome(noise + offset, o.measured, o.xy, o.patient)
    rows = scored(outcomes)
    assert abs(one(rows, "mean").value) < 0.1
    assert one(rows, "pooled").value > 0.7


def test_constant_predictions_score_0_and_are_counted_over_sections() -> None:
    o = outcome(0)
    flat = SectionOutcome(np.ones_like(o.predicted), o.measured, o.xy, o.patient)
    rows = scored({"A": flat, "B": flat})
    assert (one(rows, "A").value, one(rows, "A").constant) == (0.0, GENES)
    assert (one(rows, "mean").value, one(rows, "mean").constant) == (0.0, 2 * GENES)
    assert one(rows, "mean", metric="RVD").value == pytest.approx(1.0)
    assert one(rows, "mean", metric="spot-PCC").constant == 2 * 64


@pytest.mark.parametrize("patients", ["pp", "pqr", "ppp", "pqqr"])
def test_an_interval_covers_its_point(patients: str) -> None:
    outcomes = {f"S{at}": outcome(at, patient) for at, patient in enumerate(patients)}
    for row in scored(outcomes):
        if row.metric in {"RVD", "spread"}:
            assert row.low is None
        else:
            assert row.low is not None
            assert row.high is not None
            assert row.low <= row.value <= row.high
            assert row.low < row.high


def test_a_section_too_small_for_blocks_has_a_value_and_no_interval() -> None:
    rows = scored({"A": outcome(0), "tiny": outcome(1, side=3)})
    assert one(rows, "A").low is not None
    assert [one(rows, name).low for name in ("tiny", "mean", "pooled")] == [None, None, None]


def test_equal_seeds_give_equal_rows() -> None:
    assert scored({"A": outcome(0)}) == scored({"A": outcome(0)})


def test_the_order_of_the_spots_does_not_matter() -> None:
    o, order = outcome(0), np.random.default_rng(1).permutation(64)
    turned = SectionOutcome(o.predicted[order], o.measured[order], o.xy[order], o.patient)
    for row, other in zip(scored({"A": o}), scored({"A": turned}), strict=True):
        assert row.value == pytest.approx(other.value)
        assert row.low == pytest.approx(other.low)


def test_a_null_is_the_mean_and_spread_over_permutations_of_the_gene_sets_mean() -> None:
    nulls = {"A": np.array([[0.0] * 12, [0.2] * 12]), "B": np.array([[0.2] * 12, [0.4] * 12])}
    rows = scored({"A": outcome(0), "B": outcome(1)}, nulls=nulls)
    assert one(rows, "A", "HEG-3").null_mean == pytest.approx(0.1)
    assert one(rows, "A", "HEG-3").null_sd == pytest.approx(0.2 / np.sqrt(2))
    assert one(rows, "mean").null_mean == pytest.approx(0.2)
    assert one(rows, "pooled").null_mean is None
    assert one(rows, "A", metric="MSE").null_mean is None


def test_errors_name_the_section() -> None:
    o = outcome(0)
    broken = SectionOutcome(np.full_like(o.predicted, np.nan), o.measured, o.xy, o.patient)
    with pytest.raises(ModelError, match="nan or infinite") as caught:
        scored({"A": o, "B7": broken})
    assert caught.value.__notes__ == ["section B7"]
    with pytest.raises(SectionError, match="no test section"):
        scored({})
    with pytest.raises(SectionError, match="'pooled'"):
        scored({"pooled": o})
    with pytest.raises(PanelError, match="'planted'"):
        score_model(LABEL, {"A": o}, {"planted": np.array([], dtype=np.int64)}, rng=np.random.default_rng(0))
