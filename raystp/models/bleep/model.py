"""BLEEP: images and expression in one joint space, where the neighbours of a tile are measured spots.

Two projection heads are trained against each other. Prediction is retrieval and not part of this module. Method: Xie et
al., NeurIPS 2023, arXiv 2306.01859. Where paper and published code differ, the code is the default and the paper's
variant an option.
"""

import torch

from raystp.models.bleep.options import BleepOptions
from raystp.models.contrastive.heads import ContrastiveHeads


class Bleep(ContrastiveHeads):
    """The two heads."""


def seeded_bleep(d_image: int, genes: int, options: BleepOptions, *, seed: int) -> Bleep:
    """Return a new model whose heads have weights drawn from the seed; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Bleep(d_image, genes, options)
