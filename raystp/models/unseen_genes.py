"""Genes held back from training: how they are chosen, and the controls that their prediction is compared with.

The published code has no such split; this protocol is raystp's. There are three controls: random texts (made by a text
encoder), texts that are assigned to other genes, and the mean profile of the genes of the training.
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
    """Return the genes to train on and the genes to hold back, each in the given order, with similar mean expression.

    `mean` is of training spots. Genes are sorted by it (ties by name) and cut into bands of equal size. A share
    `unseen` is drawn from each band, so the result does not depend on the order of `genes`. Both parts get at least
    one gene. Raises ModelError for a share outside 0 to 1, and for fewer than two genes.
    """
    if len(mean) != len(genes) or len(set(genes)) != len(genes) or len(genes) < 2 or not 0 < unseen < 1:  # noqa: PLR2004 -- one for either part
        msg = (
            "a split into seen and unseen genes needs a share above 0 and below 1, and two or more genes, each once "
            f"and with its mean; got a share of {unseen}, {len(set(genes))} different of {len(genes)} genes and "
            f"{len(mean)} means"
        )
        raise ModelError(msg)
    rng = np.random.default_rng(seed)
    order = np.lexsort((np.asarray(genes), mean))
    held: list[int] = []
    reached = 0
    for band in np.array_split(order, min(strata, len(genes))):
        reached += len(band)
        count = round(unseen * reached) - len(held)  # share of all bands so far: small bands would each round to 0
        held += rng.permutation(band)[: max(0, min(count, len(band)))].tolist()
    if not held or len(held) == len(genes):
        drawn = int(rng.integers(len(genes)))
        held = [drawn] if not held else [row for row in held if row != drawn]
    back = set(held)
    return [g for n, g in enumerate(genes) if n not in back], [g for n, g in enumerate(genes) if n in back]


def shuffled_texts(texts: Float[np.ndarray, "gene text"], *, seed: int) -> Float[np.ndarray, "gene text"]:
    """Return the same texts, each assigned to another gene: a cyclic shift along a random order of the genes.

    Shuffle seen and unseen genes together, before training. Raises ModelError for a single gene.
    """
    if len(texts) < 2:  # noqa: PLR2004 -- a single text cannot go to another gene
        msg = f"shuffled gene texts need 2 or more genes, got {len(texts)}: choose a larger panel"
        raise ModelError(msg)
    ring = np.random.default_rng(seed).permutation(len(texts))
    out = np.empty_like(texts)
    out[ring] = texts[np.roll(ring, 1)]
    return out


def mean_gene_profile(expression: Float[np.ndarray, "tile seen"], unseen: int) -> Float32[np.ndarray, "tile unseen"]:
    """Return for each of `unseen` genes the mean over the seen genes at each tile.

    This baseline uses no information about a single gene. `expression` is a model's prediction for the seen genes, or
    their measured expression at the tiles, which no prediction from images can use.
    """
    profile = expression.mean(axis=1, dtype=np.float64).astype(np.float32)
    return np.repeat(profile[:, None], unseen, axis=1)
