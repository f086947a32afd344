"""The choice from scores: candidates and epochs by their mean over the folds, on toy numbers."""

import random

import pytest

from raystp.errors import ModelError
from raystp.steps.train.choice.candidates import MOST, Candidate, candidates_of, check_choice, stored
from raystp.steps.train.choice.choose import MARGIN, FoldScore, choose, mean_curve
from raystp.steps.train.choice.record import Comparison


def scores(candidate: int, **folds: list[float | None]) -> list[FoldScore]:
    """Return the PCC of each epoch of each fold."""
    return [FoldScore(candidate, fold, epoch, pcc) for fold, own in folds.items() for epoch, pcc in enumerate(own)]


def test_the_epoch_is_the_best_of_the_mean_not_of_a_fold() -> None:
    choice = choose(scores(0, A=[0.1, 0.3, 0.2], B=[0.3, 0.0, 0.25]))
    assert (choice.candidate, choice.chosen.epoch, choice.epochs) == (0, 2, 3)
    assert choice.chosen.pcc == pytest.approx(0.225)
    assert choice.chosen.folds == {"A": 0.2, "B": 0.25}


def test_of_equal_epochs_the_earliest_is_chosen() -> None:
    assert choose(scores(0, A=[0.1, 0.2, 0.2], B=[0.1, 0.2, 0.2])).chosen.epoch == 1


def test_epochs_that_a_fold_has_not_reached_or_has_no_score_for_are_not_compared() -> None:
    choice = choose(scores(0, A=[0.1, 0.2, 0.9], B=[0.1, 0.0]))
    assert (choice.chosen.epoch, choice.epochs) == (0, 2)
    assert choose(scores(0, A=[0.1, 0.9], B=[0.1, None])).chosen.epoch == 0


@pytest.mark.parametrize(("errors", "epoch"), [([2.0, 0.9, 0.8], 2), ([3.0, 1.5, 2.0], 1)])
def test_an_epoch_above_the_gene_mean_is_taken_only_where_none_is_below(errors: list[float], epoch: int) -> None:
    rows = [
        FoldScore(0, fold, number, [0.5, 0.1, 0.2][number], error, 1.0)
        for number, error in enumerate(errors)
        for fold in "AB"
    ]
    assert choose(rows).chosen.epoch == epoch


def test_a_candidate_below_the_gene_mean_is_preferred_to_one_above() -> None:
    rows = [FoldScore(0, fold, 0, 0.5, 2.0, 1.0) for fold in "AB"]
    rows += [FoldScore(1, fold, 0, 0.1, 0.9, 1.0) for fold in "AB"]
    assert choose(rows).candidate == 1


@pytest.mark.parametrize(("better", "candidate"), [(0.9 * MARGIN, 0), (1.1 * MARGIN, 2)])
def test_the_first_candidate_is_kept_within_the_margin(better: float, candidate: int) -> None:
    rows = scores(0, A=[0.2], B=[0.2]) + scores(1, A=[0.1], B=[0.2]) + scores(2, A=[0.2 + better], B=[0.2 + better])
    choice = choose(rows)
    assert (choice.candidate, choice.kept) == (candidate, candidate == 0)
    assert list(choice.best) == [2, 0, 1]


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = scores(0, A=[0.1, 0.3], B=[0.2, 0.1]) + scores(1, A=[0.2, 0.1], B=[0.2, 0.4])
    mixed = rows.copy()
    random.Random(0).shuffle(mixed)
    assert choose(mixed) == choose(rows)
    assert [one.pcc for one in mean_curve(mixed, 1)] == pytest.approx([0.2, 0.25])


def test_scores_without_a_pcc_choose_nothing() -> None:
    with pytest.raises(ModelError, match="none has a PCC on every fold"):
        choose(scores(0, A=[None], B=[0.1]))


def test_candidates_are_all_combinations_and_a_mapping_sets_several_fields() -> None:
    found = candidates_of({"knn.k": [5, 9], "retrieval": [{"k": 3}, {"k": "all", "weights": "softmax"}]})
    assert found[0] == Candidate({"knn.k": 5}, {"k": 3})
    assert found[3] == Candidate({"knn.k": 9}, {"k": "all", "weights": "softmax"})
    assert found[3].label == "knn.k=9, retrieval k all, weights softmax"
    assert candidates_of({"a": [{"b": 1}], "a.c": [2]}) == [Candidate({"a.b": 1, "a.c": 2}, {})]
    assert candidates_of({}) == [Candidate({}, {})]


def _sentence(rows: list[FoldScore], *, plain: bool = False, trained: bool = True) -> str:
    choice = choose(rows)
    candidates = candidates_of({"knn.k": [5, 9]}) if len(choice.best) > 1 else [Candidate({}, {})]
    last = mean_curve(rows, 0)[-1] if plain else None
    folds = {"A": ["A"], "B": ["B"]}
    return Comparison(candidates, "section", folds, choice, {}, trained, 6, last).sentence()


def test_the_sentence_says_what_was_chosen_and_why() -> None:
    one, two = scores(0, A=[0.1, 0.3], B=[0.1, 0.2]), scores(1, A=[0.4, 0.1], B=[0.4, 0.1])
    over = "over 2 folds (sections A, B)"
    assert _sentence(one, plain=True) == f"2 of 6 epochs: mean PCC 0.250 {over}; plain training 0.250"
    assert _sentence(one + two) == f"1 of 6 epochs and knn.k=9: mean PCC 0.400 {over}, next 0.250 (knn.k=5)"
    assert _sentence(one[::2], trained=False) == f"nothing to choose: mean PCC 0.100 {over}"
    level = [FoldScore(1, fold, 0, 0.2505) for fold in "AB"]
    assert _sentence(one + level).endswith(f"{over}, preferred to knn.k=9 (0.251) within 0.002")
    poor = [FoldScore(1, fold, 0, 0.9, 2.0, 1.0) for fold in "AB"]
    assert _sentence(one + poor).endswith("next 0.900 (knn.k=9; its error is above the gene mean's)")


def test_a_label_names_embeddings_without_their_path_and_credentials() -> None:
    one = Candidate({"embeddings": ["s3://bucket/embed/a-0f?key=secret", "/store/embed/b-1e", "embed/c"]}, {})
    assert one.label == "embeddings=a-0f+b-1e+embed/c"
    assert stored(one.training["embeddings"])[0] == "s3://bucket/embed/a-0f"


@pytest.mark.parametrize(
    ("choose_from", "message"),
    [
        ({"knn.k": []}, "a list of one or more values"),
        ({"split.test": [["A"], ["B"]]}, "split.test must be the same for all scores"),
        ({"panel": [{"variable": 4}]}, "panel.variable must be the same"),
        ({"fit.epochs": [4, 8]}, "fit.epochs follows from the choice of the epoch"),
        ({"retrieval": [{"calibrate": "mse"}]}, "retrieval.calibrate cannot be compared"),
        ({"fit.lr": list(range(MOST + 1))}, f"more than {MOST} combinations"),
    ],
)
def test_what_cannot_be_chosen_is_refused(choose_from: dict[str, list[object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_choice(candidates_of(choose_from))
