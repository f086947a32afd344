"""Genes held back from training: who they are, and what an answer about them must beat.

The published code has no such split; this protocol is raystp's. Three controls: random texts (an encoder's affair),
texts that are dealt to the wrong genes, and the mean profile of the genes that were trained on.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from raystp.errors import ModelError

STRATA = 10
"""Bands of mean expression from which genes are held back in equal shares."""


def split_genes(
    genes: Sequence[str], mean: Float[np.ndarray, "gene"], *, unseen: float = 0.2, seed: int = 0, strata: int = STRATA
) -> tuple[list[str], list[str]]:
    """Return genes to train on and genes to hold back, each in the given order, alike in their mean expression.

    `mean` is of training spots. Genes are sorted by it (ties by name) and cut into bands of equal size, and a share
    `unseen` is drawn from each, so that the order in which genes come changes nothing. Both parts get a gene at least.
    Raises ModelError for a share that is no share, and for fewer than two genes.
    """
    if len(mean) != len(genes) or len(set(genes)) != len(genes) or len(genes) < 2 or not 0 < unseen < 1:  # noqa: PLR2004 -- one for either part
        msg = (
            "genes are split into seen and unseen by a share between 0 and 1, two genes or more, each once and with "
            f"its mean, got a share of {unseen}, {len(set(genes))} of {len(genes)} genes and {len(mean)} means"
        )
        raise ModelError(msg)
    rng = np.random.default_rng(seed)
    order = np.lexsort((np.asarray(genes), mean))
    held: list[int] = []
    reached = 0
    for band in np.array_split(order, min(strata, len(genes))):
        reached += len(band)
        owed = round(unseen * reached) - len(held)  # of all so far, so that small bands do not each round to none
        held += rng.permutation(band)[: max(0, min(owed, len(band)))].tolist()
    if not held or len(held) == len(genes):
        drawn = int(rng.integers(len(genes)))
        held = [drawn] if not held else [place for place in held if place != drawn]
    back = set(held)
    return [g for n, g in enumerate(genes) if n not in back], [g for n, g in enumerate(genes) if n in back]


def shuffled_texts(texts: Float[np.ndarray, "gene text"], *, seed: int) -> Float[np.ndarray, "gene text"]:
    """Return the same texts, each dealt to another gene than its own (given in a ring that the seed draws).

    To be dealt over seen and unseen genes together, before training. Raises ModelError for a single gene.
    """
    if len(texts) < 2:  # noqa: PLR2004 -- one has nobody to swap with
        msg = f"texts are dealt to other genes, and there are {len(texts)} genes: two would do"
        raise ModelError(msg)
    ring = np.random.default_rng(seed).permutation(len(texts))
    out = np.empty_like(texts)
    out[ring] = texts[np.roll(ring, 1)]
    return out


def mean_gene_profile(expression: Float[np.ndarray, "tile seen"], unseen: int) -> Float32[np.ndarray, "tile unseen"]:
    """Return for each of `unseen` genes the mean over the seen genes at each tile.

    The baseline that knows nothing of a gene but that it is one. Give it what a model predicts for the seen genes, or
    what was measured of them at the tiles, which no prediction from images has.
    """
    profile = expression.mean(axis=1, dtype=np.float64).astype(np.float32)
    return np.repeat(profile[:, None], unseen, axis=1)
