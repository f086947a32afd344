"""A gene that a section has not measured is learned from the others: no method reads 0, and no weight is NaN."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from raystp.expression.training_set import SpotTable
from raystp.models.baselines.gene_mean import fit_gene_mean
from raystp.models.baselines.knn import fit_knn, predict_knn
from raystp.models.baselines.ridge import fit_ridge, predict_ridge
from raystp.models.log_total import fit_log_total, predict_log_total
from raystp.models.method import ModelMeta
from raystp.models.methods import METHODS, open_predictor
from raystp.models.nh2st.model import seeded_nh2st
from raystp.models.nh2st.options import Nh2stOptions
from raystp.models.nh2st.samples import NeighbourSamples
from raystp.models.predict import embed_reference
from raystp.models.predictor import ContrastivePredictor
from raystp.models.training.fit import fit
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import RankLayout
from raystp.models.training.samples import mean_squared_error
from raystp.models.training.setup import SpotInputs, start

SPOTS, FEATURES = 24, 8
GENES = ["A", "B", "C", "D"]
SMALL: dict[str, dict[str, Any]] = {
    "bleep": {"dim": 8},
    "mclstexp": {"dim": 8, "heads": 2, "head_dim": 4},
    "genequery": {"dim": 8, "heads": 2, "depth": 1},
    "nh2st": {"dim": 8, "heads": 2, "depth": 1},
    "attention": {"embedding": 8, "hidden": 4},
}


def table(*, missing: bool = True, sections: tuple[str, ...] = ("S1", "S2", "S3")) -> SpotTable:
    """Return a table whose first section has not measured D."""
    rng = np.random.default_rng(0)
    count = SPOTS * len(sections)
    features = rng.normal(size=(count, FEATURES)).astype(np.float32)
    signal = features[:, :4] + 0.1 * rng.normal(size=(count, 4))
    expression = np.log1p(np.exp(signal)).astype(np.float32)
    group = np.repeat(np.arange(len(sections)), SPOTS)
    if missing:
        expression[group == 0, 3] = np.nan
    at = np.arange(count) % SPOTS
    boxes = np.stack([at % 6 * 100.0, at // 6 * 100.0, np.full(count, 50.0)], axis=1)
    spots = tuple(f"s{number}" for number in range(count))
    totals = rng.integers(50, 500, count).astype(np.float64)
    return SpotTable(sections, sections, group, spots, boxes, features, expression, totals)


def of_sections(spots: SpotTable, kept: list[int]) -> SpotTable:
    return spots.select(np.isin(spots.group, kept))


QUERIES = np.random.default_rng(1).normal(size=(5, FEATURES)).astype(np.float32)


def test_gene_mean_and_log_total_of_a_gene_are_those_of_the_sections_that_measured_it() -> None:
    spots, rest = table(), of_sections(table(), [1, 2])
    mean = fit_gene_mean(spots.expression)["mean"]
    assert mean[3] == pytest.approx(rest.expression[:, 3].mean(), abs=1e-6)
    assert mean[0] == pytest.approx(spots.expression[:, 0].mean(), abs=1e-6)
    lines = [predict_log_total(fit_log_total(one.totals, one.expression), np.array([90.0])) for one in (spots, rest)]
    assert lines[0][0, 3] == pytest.approx(lines[1][0, 3], abs=1e-6)
    assert np.isfinite(lines[0]).all()


def test_knn_averages_the_nearest_of_the_spots_that_measured_the_gene() -> None:
    spots, k = table(), 5
    model = fit_knn(spots.features, spots.expression, k=k)
    predicted = predict_knn(model, QUERIES)

    def unit(values: np.ndarray) -> np.ndarray:
        values = (values - model["mean"]) / model["scale"]
        return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))

    order = np.argsort(-(unit(QUERIES) @ unit(spots.features).T), axis=1)
    for query, near in enumerate(order.tolist()):
        measured = [row for row in near if spots.group[row] > 0][:k]
        assert predicted[query, 3] == pytest.approx(spots.expression[measured, 3].mean(), abs=1e-5)
        assert predicted[query, 0] == pytest.approx(spots.expression[near[:k], 0].mean(), abs=1e-5)
    few = fit_knn(spots.features, spots.expression, k=60)  # D is measured at 48 spots
    assert predict_knn(few, QUERIES)[:, 3] == pytest.approx(np.nanmean(spots.expression[:, 3]), abs=1e-5)


def test_ridge_of_a_gene_is_that_of_the_sections_that_measured_it() -> None:
    spots, rest = table(), of_sections(table(), [1, 2])
    alpha = (3.0,)
    whole = predict_ridge(fit_ridge(spots.features, spots.expression, groups=spots.group, alphas=alpha), QUERIES)
    part = predict_ridge(fit_ridge(rest.features, rest.expression[:, 3:], alphas=alpha), QUERIES)
    np.testing.assert_allclose(whole[:, 3:], part, atol=1e-5)
    others = predict_ridge(
        fit_ridge(spots.features, spots.expression[:, :3], groups=spots.group, alphas=alpha), QUERIES
    )
    np.testing.assert_allclose(whole[:, :3], others, atol=1e-5)


def test_ridge_chooses_alpha_where_each_gene_is_measured_in_one_section_only() -> None:
    spots = table()
    for gene in range(4):
        spots.expression[spots.group != (gene + 1) % 3, gene] = np.nan
    model = fit_ridge(spots.features, spots.expression, groups=spots.group)
    assert model["cv_mse"].min() > 0
    assert np.isfinite(predict_ridge(model, QUERIES)).all()


def test_the_error_is_over_the_measured_values_and_its_gradient_is_finite() -> None:
    predicted = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    error = mean_squared_error(predicted, torch.tensor([[0.0, torch.nan], [1.0, 4.0]]))
    assert error.item() == pytest.approx((1 + 4 + 0) / 3)
    torch.autograd.backward(error)
    assert predicted.grad is not None
    torch.testing.assert_close(predicted.grad, torch.tensor([[2.0, 0.0], [4.0, 0.0]]) / 3)
    assert mean_squared_error(predicted, torch.full((2, 2), torch.nan)).item() == 0


def _inputs(name: str, train: SpotTable) -> tuple[Any, SpotInputs]:
    mean = np.nanmean(train.expression.astype(np.float64), axis=0).tolist()
    meta = {"genes": GENES, "seen": GENES, "unseen": [], "d_image": FEATURES, "training_mean": mean}
    texts = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
    held = of_sections(train, [0])
    options = METHODS[name].options(**SMALL[name])
    inputs = SpotInputs(train, held, FEATURES, meta, 0, torch.device("cpu"), texts=texts, bags={"parts": 4})
    return options, inputs


CONTEXTS = [
    ("genequery", {"context": context, "scaling": scaling})
    for context in ("gene", "spot", "none")
    for scaling in ("standardised", "centred", "min_max")
]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bleep", {}),
        ("bleep", {"target": "input"}),
        ("mclstexp", {}),
        ("mclstexp", {"sequence": "batch", "positions": "learned"}),
        ("nh2st", {}),
        ("nh2st", {"form": "faithful"}),
        ("attention", {}),
        *CONTEXTS,
    ],
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_no_nan_reaches_a_weight_or_a_prediction(name: str, changes: dict[str, Any], *, shuffled: bool) -> None:
    train = table().shuffled(np.random.default_rng(3)) if shuffled else table()
    options, inputs = _inputs(name, train)
    options = replace(options, **changes)
    setup = METHODS[name].setup(options, inputs)
    chosen = FitOptions(epochs=2, batch_size=4, accumulate_batches=1)
    state = start(setup, chosen)
    rows = list(fit(state, setup.train, chosen, validation=setup.validation))
    losses = np.array([[row["train_loss"], row["validation_loss"]] for row in rows], np.float64)
    assert np.isfinite(losses).all()
    assert all(torch.isfinite(value).all() for value in state.weights().values())
    meta: Any = {**inputs.meta, "options": {**SMALL[name], **changes}}
    arrays = {key: value.numpy() for key, value in state.weights().items()} | setup.extra
    model: Any = open_predictor(name, arrays, meta)
    if isinstance(model, ContrastivePredictor):
        assert np.isfinite(embed_reference(model, train)).all()
    elif name != "nh2st":
        assert np.isfinite(model.predict(QUERIES)).all()


def test_bleep_reads_the_training_mean_for_a_gene_that_is_missing() -> None:
    options, inputs = _inputs("bleep", table())
    setup = METHODS["bleep"].setup(options, inputs)
    meta: ModelMeta = {**inputs.meta, "options": SMALL["bleep"]}  # type: ignore[typeddict-item] # more keys than a method reads
    arrays = {key: value.numpy() for key, value in setup.model.state_dict().items()}
    model = open_predictor("bleep", arrays, meta)
    assert isinstance(model, ContrastivePredictor)
    expression = table().expression
    by_hand = np.where(np.isnan(expression), np.asarray(inputs.meta["training_mean"], np.float32), expression)
    np.testing.assert_array_equal(model.embed_spots(expression), model.embed_spots(by_hand))


def test_gene_query_draws_no_sample_of_a_gene_that_a_section_has_not_measured() -> None:
    options, inputs = _inputs("genequery", table())
    setup = METHODS["genequery"].setup(replace(options, context="spot"), inputs)
    assert len(setup.train) == 3 * 4 - 1
    genes = setup.train.at(np.arange(11))[3].tolist()
    assert genes == [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_split_batch_of_nh2st_with_missing_genes_has_the_loss_of_one_process(parts: int) -> None:
    spots = table()
    rows, mask = np.arange(72)[:, None], np.ones((72, 1), bool)
    encoded = torch.from_numpy(np.nan_to_num(spots.expression))
    samples = NeighbourSamples.of(
        torch.from_numpy(spots.features), torch.from_numpy(spots.expression), rows, mask, encoded=encoded
    )
    model = seeded_nh2st(FEATURES, 4, Nh2stOptions(**SMALL["nh2st"], dropout=0.0), seed=0)
    model.misses_genes = True
    order = np.random.default_rng(4).permutation(72)[:64]
    whole = model.loss(*model(*samples.at(order)))
    outputs = [model(*samples.at(part)) for part in np.split(order, parts)]
    counts = torch.cat([(~torch.isnan(own[1])).sum(dim=1, keepdim=True).float() for own in outputs])
    z_g, n_g = (torch.cat([own[at] for own in outputs]) for at in (3, 5))

    def gather(part: torch.Tensor) -> torch.Tensor:
        if part.shape[1] == 1:
            return counts
        return z_g if any(part is own[3] for own in outputs) else n_g

    losses = [model.loss_part(RankLayout(rank, parts, gather), *own) for rank, own in enumerate(outputs)]
    torch.testing.assert_close(torch.stack(losses).mean(), whole, atol=1e-5, rtol=1e-5)
