"""Pooling models on the bulk labels of a demo cohort: above the gene mean, and nothing under permuted labels."""

import numpy as np
import pytest
import torch

from raystp.encoders.encoder import BatchEncoder
from raystp.encoders.registry import build
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.expression.schema import read_section
from raystp.expression.synthetic.programs import plant_programs
from raystp.models.attention.learner import setup_bags as attention_bags
from raystp.models.attention.options import AttentionOptions
from raystp.models.attention.predictor import AttentionPredictor
from raystp.models.bleep.bag_learner import BagBleepPredictor
from raystp.models.bleep.bag_learner import setup_bags as bleep_bags
from raystp.models.bleep.options import BagBleepOptions
from raystp.models.training.bags import BagSamples
from raystp.models.training.fit import fit
from raystp.models.training.options import FitOptions
from raystp.models.training.setup import BagInputs, TrainSetup, start
from raystp.slides.open import open_slide, read_tiles
from raystp.slides.synthetic.slide import TISSUES
from raystp.steps.demo.draw import DrawTask, draw
from raystp.steps.encoder_source import spec_of
from raystp.steps.input_config import EncoderConfig
from raystp.steps.train.cases.retrieval import EmbeddedCases
from raystp.steps.train.retrieval import Retrieval
from raystp.storage import StoragePath
from raystp.units import TilePixels

PATIENTS, SIDE, TILE, FOLDS = 24, 1536, 224, 4
FIT = FitOptions(epochs=60, lr=5e-4, weight_decay=1e-2, batch_size=4, accumulate_batches=1)
CONTRASTIVE_FIT = FitOptions(epochs=60, lr=2e-3, weight_decay=1e-3, batch_size=18, accumulate_batches=1)
K = 4

Labels = np.ndarray


class DemoCases:
    """Features of each patient's tissue tiles, and the log1p CP10k of the patient's pooled counts."""

    def __init__(self, folder: StoragePath) -> None:
        programs = plant_programs(np.random.default_rng([0, 0]), [tissue.name for tissue in TISSUES])
        self.genes, self.planted = list(programs.genes), programs.planted
        encode = BatchEncoder(build(spec_of(EncoderConfig(name="tiny"))), device="cpu", precision="float32")
        corners = np.stack(np.meshgrid(*[np.arange(0, SIDE - TILE + 1, TILE)] * 2), axis=-1).reshape(-1, 2)
        boxes = np.column_stack([corners, np.full(len(corners), TILE)]).astype(np.float64)
        self.bags, labels = [], []
        for number in range(PATIENTS):
            name = f"patient-{number:02d}"
            draw(DrawTask(name, number, SIDE, 0, programs, folder))
            with open_slide(name, folder / "slides" / f"{name}.svs", given_mpp=0.5) as slide:
                tiles = read_tiles(slide, boxes, TilePixels(TILE))
            self.bags.append(encode(tiles[tiles.mean(axis=(1, 2, 3)) < 225]))
            counts = np.asarray(read_section(folder / "counts" / f"{name}.h5ad")[:, self.genes].X.sum(axis=0)).ravel()
            labels.append(np.log1p(counts / counts.sum() * 1e4))
        self.labels = np.array(labels, np.float32)

    def inputs(self, rows: np.ndarray, labels: Labels) -> BagInputs:
        bags = [self.bags[row] for row in rows]
        samples = BagSamples.of(bags, labels)
        return BagInputs(samples, None, np.concatenate(bags), 0, torch.device("cpu"))

    def attention(self, rows: np.ndarray, labels: Labels, held: np.ndarray) -> np.ndarray:
        options = AttentionOptions(level="embedding", embedding=32, hidden=16)
        made = _trained(attention_bags(options, self.inputs(rows, labels)), FIT)
        model = AttentionPredictor("attention", self.genes, self.bags[0].shape[1], made)  # type: ignore[arg-type]
        return np.stack([model.predict_bag(self.bags[row]) for row in held])

    def bleep(self, rows: np.ndarray, labels: Labels, held: np.ndarray) -> np.ndarray:
        made = bleep_bags(BagBleepOptions(dim=16, target="identity"), self.inputs(rows, labels))
        whole = _trained(made, CONTRASTIVE_FIT)
        model = BagBleepPredictor("bleep", self.genes, self.bags[0].shape[1], whole)  # type: ignore[arg-type]
        return EmbeddedCases.of(model, labels, [self.bags[row] for row in held]).predict(Retrieval(k=K))

    def score(self, method: str, permutation: int | None = None) -> tuple[float, float, float]:
        """Return PCC, squared error and that of the training means; means over planted genes and folds."""
        order, found = np.random.default_rng(0).permutation(PATIENTS), []
        for fold in range(FOLDS):
            held = order[fold::FOLDS]
            rows = np.setdiff1d(order, held)
            learned = rows if permutation is None else np.random.default_rng(permutation).permutation(rows)
            predicted = getattr(self, method)(rows, self.labels[learned], held)
            truth, mean = self.labels[held], self.labels[rows].mean(axis=0)
            errors = [np.square(one - truth)[:, self.planted].mean() for one in (predicted, mean)]
            found.append((pcc_per_gene(predicted, truth)[0][self.planted].mean(), *errors))
        pcc, error, of_mean = np.mean(found, axis=0).tolist()
        return pcc, error, of_mean


def _trained(made: TrainSetup, options: FitOptions) -> torch.nn.Module:
    for _ in fit(start(made, options), made.train, options):
        pass
    return made.model.eval()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> DemoCases:
    return DemoCases(StoragePath.of(tmp_path_factory.mktemp("cases")))


@pytest.mark.faults
def test_joint_pooling_is_at_least_the_gene_mean_for_new_cases(cases: DemoCases) -> None:
    pcc, error, of_mean = cases.score("attention")
    assert pcc > 0.03  # that of the gene mean is 0
    assert error <= of_mean


@pytest.mark.faults
def test_contrastive_retrieval_of_cases_finds_new_ones_and_nothing_in_permuted_labels(cases: DemoCases) -> None:
    nulls = [cases.score("bleep", permutation)[0] for permutation in range(5)]
    assert cases.score("bleep")[0] > 0.1
    assert abs(np.mean(nulls)) < 0.05
