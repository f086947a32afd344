"""Attention regression without attention is least squares on mean vectors; all genes fit into memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from raystp.models.attention.learner import setup_bags
from raystp.models.attention.method import ATTENTION
from raystp.models.attention.options import EMBEDDING_FIT, AttentionOptions, gene_bytes
from raystp.models.attention.predictor import AttentionPredictor
from raystp.models.method import BagBatch
from raystp.models.training.bags import BagSamples
from raystp.models.training.setup import BagInputs
from tests.conftest import ENVIRONMENT

GIGABYTES = 4.0


def test_patch_level_trained_to_convergence_equals_least_squares_on_mean_vectors() -> None:
    rng = np.random.default_rng(0)
    bags = [(rng.normal(size=(20 + number, 3)) + rng.normal(size=3)).astype(np.float32) for number in range(10)]
    means = np.stack([bag.mean(axis=0) for bag in bags])
    labels = (means @ rng.normal(size=(3, 2)) + 2 + 0.3 * rng.normal(size=(10, 2))).astype(np.float32)
    options = AttentionOptions(level="instance", pooling="mean", dropout=0.0, embedding=8, hidden=2, clamp=100.0)
    made = setup_bags(
        options, BagInputs(BagSamples.of(bags, labels), None, np.concatenate(bags), 0, torch.device("cpu"))
    )
    model, batch = made.model, made.train.at(np.arange(10))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=400, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model.loss(*model(*batch))  # type: ignore[operator]
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    design = np.concatenate([means, np.ones((10, 1))], axis=1).astype(np.float64)
    weights = np.linalg.lstsq(design, labels.astype(np.float64), rcond=None)[0]
    opened = AttentionPredictor("attention", ["a", "b"], 3, model.eval())  # type: ignore[arg-type]
    new = [rng.normal(size=(15, 3)).astype(np.float32) for _ in range(4)]
    for bag in (*bags, *new):
        expected = np.append(bag.astype(np.float64).mean(axis=0), 1) @ weights
        np.testing.assert_allclose(opened.predict_bag(bag), expected, atol=1e-3)


def test_only_values_of_every_gene_at_every_tile_count_as_memory_of_genes() -> None:
    batch = BagBatch(tiles=10_000, bags=1, genes=20_530)
    assert gene_bytes(AttentionOptions(), batch) == 4 * 4 * 10_000 * 20_530
    assert gene_bytes(AttentionOptions(level="embedding"), batch) == 0
    apart = AttentionOptions(level="embedding", heads="per_gene", trunk="per_gene")
    assert gene_bytes(apart, batch) > gene_bytes(AttentionOptions(), batch)
    assert ATTENTION.on_cases is not None
    assert ATTENTION.on_cases.fit({"level": "embedding"}) == EMBEDDING_FIT != ATTENTION.on_cases.fit({})
    assert AttentionOptions(level="embedding").chosen_optimizer == "adamw"


SCRIPT = """
import dataclasses, resource, sys
import numpy as np, torch
from raystp.models.methods import METHODS
from raystp.models.training.bags import BagSamples
from raystp.models.training.fit import fit
from raystp.models.training.setup import BagInputs, start

method = METHODS[sys.argv[1]]
rng = np.random.default_rng(0)
bags = [rng.random((2000, 1024), dtype=np.float32) for _ in range(40)]
labels = rng.random((40, 20530), dtype=np.float32)
inputs = BagInputs(BagSamples.of(bags, labels), None, np.concatenate([bag[:1000] for bag in bags]), 0,
                   torch.device("cpu"), method.on_cases.bag_tiles)
options = method.options_on("cases")(**({"level": "embedding"} if sys.argv[1] == "attention" else {}))
made = method.setup_bags(options, inputs)
chosen = dataclasses.replace(method.on_cases.fit({}), epochs=1, select="last", patience=None)
rows = list(fit(start(made, chosen), made.train, chosen))
assert np.isfinite(rows[-1]["train_loss"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


@pytest.mark.faults
@pytest.mark.parametrize("method", ["attention", "bleep"])
def test_all_genes_of_40_cases_of_2000_tiles_train_in_4_gb(method: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, method],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < GIGABYTES
