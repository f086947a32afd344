"""BLEEP on whole cases: bags in parts, retrieval over cases, and ranks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from raystp.errors import ModelError
from raystp.models.bleep.bag_learner import BagBleepPredictor, open_bag_predictor, setup_bags
from raystp.models.bleep.bag_model import seeded_bag_bleep
from raystp.models.bleep.options import BAG_FIT, BagBleepOptions
from raystp.models.training.bags import BagSamples
from raystp.models.training.fit import fit
from raystp.models.training.setup import BagInputs, start
from raystp.steps.train.cases.retrieval import EmbeddedCases, candidates
from raystp.steps.train.retrieval import Retrieval

OPTIONS = BagBleepOptions(embedding=12, hidden=6, dim=8, dropout=0.0)


def _bags(cases: int = 12, *, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Return bags whose share of raised tiles is the label of the first two of four genes."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.05, 0.6, size=(cases, 2))
    raised = [rng.random((30 + 5 * number % 20, 2)) < share[number] for number in range(cases)]
    bags = [
        np.concatenate([rng.normal(size=(len(one), 4)), 3 * one + rng.normal(size=one.shape)], axis=1) for one in raised
    ]
    means = np.stack([one.mean(axis=0) for one in raised])
    labels = np.concatenate([3 + 4 * means, 3 - 2 * means], axis=1)
    return [bag.astype(np.float32) for bag in bags], labels.astype(np.float32)


def _inputs(bags: list[np.ndarray], labels: np.ndarray) -> BagInputs:
    return BagInputs(BagSamples.of(bags, labels), None, np.concatenate(bags), seed=0, device=torch.device("cpu"))


def _predictor(bags: list[np.ndarray], labels: np.ndarray, *, chunk: int | None = None) -> BagBleepPredictor:
    model = setup_bags(OPTIONS, _inputs(bags, labels)).model.eval()
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    options = {"embedding": 12, "hidden": 6, "dim": 8, "dropout": 0.0}
    opened = open_bag_predictor(arrays, {"genes": ["a", "b", "c", "d"], "d_image": 6, "options": options})
    return replace(opened, chunk=chunk)


def test_a_bag_does_not_depend_on_the_parts_that_its_tiles_are_read_in() -> None:
    bags, labels = _bags()
    whole, parts = (_predictor(bags, labels, chunk=chunk) for chunk in (None, 7))
    np.testing.assert_allclose(whole.embed_bag(bags[0]), parts.embed_bag(bags[0]), atol=1e-5)
    np.testing.assert_allclose(whole.embed_images(bags[0]), parts.embed_images(bags[0]), atol=1e-5)
    padded, mask, values = BagSamples.of(bags, labels).at(np.arange(3))
    with torch.inference_mode():
        rows, spots = whole.model(padded, mask, values)
    np.testing.assert_allclose(rows.numpy(), np.stack([whole.embed_bag(bag) for bag in bags[:3]]), atol=1e-5)
    np.testing.assert_allclose(spots.numpy(), whole.embed_spots(labels[:3]), atol=1e-5)


def test_a_tile_alone_is_a_bag_of_one_and_equal_tiles_are_that_tile() -> None:
    bags, labels = _bags()
    model = _predictor(bags, labels)
    tile = bags[0][:1]
    np.testing.assert_allclose(model.embed_images(tile)[0], model.embed_bag(tile), atol=1e-5)
    np.testing.assert_allclose(model.embed_bag(np.repeat(tile, 9, axis=0)), model.embed_bag(tile), atol=1e-5)
    with pytest.raises(ModelError, match="a bag without tiles has no embedding"):
        model.embed_bag(tile[:0])


def test_retrieval_of_all_cases_is_the_training_mean_and_of_one_is_a_case() -> None:
    bags, labels = _bags()
    embedded = EmbeddedCases.of(_predictor(bags, labels), labels, bags[:5])
    for k in ("all", len(labels)):
        np.testing.assert_allclose(embedded.predict(Retrieval(k=k)), np.repeat(labels.mean(0)[None], 5, 0), rtol=1e-5)
    one = embedded.predict(Retrieval(k=1))
    assert all((row == labels).all(axis=1).any() for row in one)


def test_the_number_of_neighbours_is_chosen_among_those_that_suit_the_cases() -> None:
    assert [one.k for one in candidates(Retrieval(), None, 400)] == [5, 10, 20, 50]
    assert [one.k for one in candidates(Retrieval(), None, 60)] == [5, 10, 15]
    assert [one.k for one in candidates(Retrieval(), None, 2)] == [1]
    assert candidates(Retrieval(k="all"), "all", 60) == [Retrieval(k="all")]
    bags, labels = _bags()
    embedded = EmbeddedCases.of(_predictor(bags, labels), labels, bags)
    several = [Retrieval(k="all"), Retrieval(k=3), Retrieval(k=1)]
    best, pcc, predicted = embedded.best(several, labels)
    assert pcc == max(embedded.best([one], labels)[1] for one in several)
    np.testing.assert_array_equal(predicted, embedded.predict(best))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_bags_that_ranks_embed_apart_give_the_loss_and_gradient_of_one_rank(ranks: int) -> None:
    bags, labels = _bags()
    made = setup_bags(OPTIONS, _inputs(bags, labels))
    model: Any = made.model.eval()

    def gradient(rows: list[np.ndarray]) -> list[torch.Tensor]:
        sides = [model(*made.train.at(part)) for part in rows]
        loss = model.loss(*(torch.cat(side) for side in zip(*sides, strict=True)))
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    apart = gradient(np.array_split(np.arange(12), ranks))
    torch.testing.assert_close(apart, gradient([np.arange(12)]), atol=1e-5, rtol=1e-4)


def test_planted_shares_are_retrieved_for_new_cases_and_permuted_labels_give_nothing() -> None:
    (bags, labels), (new, truth) = _bags(60), _bags(40, seed=1)
    options, scores = replace(BAG_FIT, epochs=60, batch_size=20, lr=5e-3, select="last"), []
    for order in (np.arange(60), *(np.random.default_rng(seed).permutation(60) for seed in range(3))):
        made = setup_bags(OPTIONS, _inputs(bags, labels[order]))
        for _ in fit(start(made, options), made.train, options):
            pass
        model = BagBleepPredictor("bleep", ["a", "b", "c", "d"], 6, made.model.eval())  # type: ignore[arg-type]
        predicted = EmbeddedCases.of(model, labels[order], new).predict(Retrieval(k=5))
        scores.append(np.mean([np.corrcoef(predicted[:, gene], truth[:, gene])[0, 1] for gene in range(4)]))
    assert scores[0] > 0.8
    assert abs(np.mean(scores[1:])) < 0.2


def test_targets_that_bags_cannot_have_are_refused() -> None:
    with pytest.raises(ModelError, match='target="input" compares given features'):
        BagBleepOptions(target="input")
    first, same = (seeded_bag_bleep(6, 4, OPTIONS, seed=7).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], same[name]) for name in first)
