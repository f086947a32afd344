"""mclSTExp's training and its stored model: sections in parts, retrieval on simulated spots, and permuted labels."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from raystp.errors import ModelError
from raystp.expression.training_set import SpotTable
from raystp.models.mclstexp.learner import INDEX_BATCH, MclstexpPredictor, open_predictor, setup
from raystp.models.mclstexp.options import MclstexpOptions
from raystp.models.predict import embed_reference
from raystp.models.predictor import SectionPredictor, SpotSections
from raystp.models.training.fit import fit
from raystp.models.training.options import FitOptions
from raystp.models.training.setup import SpotInputs, start
from raystp.steps.train.retrieval import Retrieval, retrieve

FEATURES, GENES = 12, [f"G{number}" for number in range(24)]
SMALL = MclstexpOptions(dim=16, heads=2, head_dim=4)
FORMS = {
    "default": SMALL,
    "few in the context": replace(SMALL, context_spots=5),
    "sincos": replace(SMALL, positions="sincos"),
    "learned": replace(SMALL, positions="learned"),
    "published": replace(SMALL, sequence="batch", positions="learned", position_sd=1.0),
    "without layers": replace(SMALL, layers=0),
}


def _table(names: tuple[str, ...] = ("S1", "S2", "S3"), *, each: int = 40, seed: int = 0) -> SpotTable:
    """Return spots whose expression is linear in their features, plus noise."""
    rng, count = np.random.default_rng(seed), each * len(names)
    weights = np.random.default_rng(99).normal(size=(FEATURES, len(GENES)))
    features = rng.normal(size=(count, FEATURES)).astype(np.float32)
    expression = (features @ weights + 0.1 * rng.normal(size=(count, len(GENES)))).astype(np.float32)
    at = np.arange(count) % each
    boxes = np.stack([at % 8 * 100.0, at // 8 * 100.0, np.full(count, 50.0)], axis=1)
    group, spots = np.repeat(np.arange(len(names)), each), tuple(str(number) for number in range(count))
    return SpotTable(names, names, group, spots, boxes, features, expression, np.ones(count))


def _inputs(train: SpotTable) -> SpotInputs:
    mean = np.nanmean(train.expression, axis=0).tolist()
    meta = {"genes": GENES, "d_image": FEATURES, "training_mean": mean, "tile": {"side": 25.0, "pixels": 50}}
    return SpotInputs(train, None, FEATURES, meta, 0, torch.device("cpu"))


def _opened(options: MclstexpOptions, train: SpotTable, chosen: FitOptions | None = None) -> MclstexpPredictor:
    """Return the model, trained if options of a training are given."""
    inputs = _inputs(train)
    made = setup(options, inputs)
    if chosen is not None:
        for _ in fit(start(made, chosen), made.train, chosen):
            pass
    arrays = {name: value.numpy() for name, value in made.model.state_dict().items()}
    meta: Any = {**inputs.meta, "options": vars(options)}
    return open_predictor(arrays, meta)


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_sections_embedded_one_by_one_equal_all_at_once(options: MclstexpOptions) -> None:
    """Acceptance 4: an index built in parts equals the one built at once."""
    table = _table()
    model = _opened(options, table)
    assert isinstance(model, SectionPredictor)
    whole = embed_reference(model, table)
    parts = [embed_reference(model, table.select(table.group == number)) for number in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    mixed = np.random.default_rng(1).permutation(3 * 40)
    if options.sequence == "section":
        sections = SpotSections(table.group[mixed], table.boxes[mixed])
        shuffled = model.embed_spots(table.expression[mixed], sections=sections)
        np.testing.assert_allclose(shuffled, whole[mixed], atol=1e-5)


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_a_stored_model_embeds_spots_as_its_training_does(options: MclstexpOptions) -> None:
    table = _table(each=INDEX_BATCH)
    model, samples = _opened(options, table), setup(options, _inputs(table)).train
    rows = np.arange(INDEX_BATCH)
    images, spots = model.model(*samples.at(rows))
    np.testing.assert_allclose(embed_reference(model, table)[rows], spots.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(model.embed_images(table.features[rows]), images.detach().numpy(), atol=1e-6)


def test_a_model_that_reads_sections_refuses_spots_without_them_and_another_does_not() -> None:
    table = _table()
    with pytest.raises(ModelError, match="embeds spots in their section: pass the `sections`"):
        _opened(SMALL, table).embed_spots(table.expression)
    plain = _opened(FORMS["without layers"], table)
    np.testing.assert_array_equal(plain.embed_spots(table.expression), embed_reference(plain, table))


def test_a_gene_that_a_section_has_not_measured_enters_with_its_training_mean() -> None:
    table = _table()
    table.expression[table.group == 0, 3] = np.nan
    model = _opened(SMALL, table)
    assert model.training_mean is not None
    by_hand = np.where(np.isnan(table.expression), model.training_mean, table.expression)
    given = embed_reference(model, table)
    np.testing.assert_array_equal(given, embed_reference(model, replace(table, expression=by_hand)))
    assert np.isfinite(given).all()


Trained = tuple[MclstexpPredictor, SpotTable]


@pytest.fixture(scope="module")
def trained() -> tuple[Trained, Trained]:
    """Return models of simulated spots and of the same spots with permuted labels, each with its spots."""
    train, chosen = _table(each=60), FitOptions(epochs=16, batch_size=60, accumulate_batches=1, lr=5e-3)
    options = replace(SMALL, layers=1)
    permuted = train.shuffled(np.random.default_rng(0))
    return (_opened(options, train, chosen), train), (_opened(options, permuted, chosen), permuted)


def _score(model: MclstexpPredictor, train: SpotTable, weights: str) -> float:
    """Return the mean PCC per gene of what is retrieved for other spots."""
    test = _table(("T",), each=200, seed=1)
    predicted = retrieve(model, train, test.features, Retrieval(k=10, weights=weights))
    pairs = zip(predicted.T, test.expression.T, strict=True)
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))


@pytest.mark.parametrize("weights", ["mean", "inverse_square", "inverse_square_l1"])
def test_simulated_signal_is_retrieved_and_permuted_labels_are_not(
    trained: tuple[Trained, Trained], weights: str
) -> None:
    """Acceptance 6, on simulated spots."""
    real, permuted = trained
    assert _score(*real, weights) > 0.6
    assert abs(_score(*permuted, weights)) < 0.15
