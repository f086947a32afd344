"""Expression of whole cases, retrieved from the training cases: one vector per case, exact search, a weighted mean.

The same retrieval as through a reference index of cases. A validation score, the choice of k and a permutation null are
computed with it. Labels of cases are complete, so every row votes for every gene.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32

from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.models.predictor import BagEmbedder
from raystp.steps.train.retrieval import EmbeddedReference, Retrieval

CANDIDATES = (5, 10, 20, 50)
"""Numbers of neighbours to choose from: a cohort has some 100 to 1,000 cases."""

UNVALIDATED_K = 10
"""Neighbours where no validation case can choose."""


@dataclass(frozen=True)
class EmbeddedCases:
    """Some cases' bags in the joint space, beside the training cases that are searched."""

    bags: Float32[np.ndarray, "case joint"]
    vectors: Float32[np.ndarray, "row joint"]
    """Of the training cases' labels."""
    labels: Float32[np.ndarray, "row gene"]

    @classmethod
    def of(
        cls,
        model: BagEmbedder,
        labels: Float32[np.ndarray, "row gene"],
        bags: Iterable[Float[np.ndarray, "_ feature"]],
    ) -> "EmbeddedCases":
        """Embed labels and bags; one bag is in memory at a time."""
        return cls(np.stack([model.embed_bag(bag) for bag in bags]), model.embed_spots(labels), labels)

    def predict(self, retrieval: Retrieval) -> Float32[np.ndarray, "case gene"]:
        """Return the weighted mean of each case's nearest training cases, or of all."""
        return EmbeddedReference.of(self.vectors, self.labels, retrieval.metric).retrieve(self.bags, retrieval)

    def best(
        self, retrievals: Sequence[Retrieval], measured: Float[np.ndarray, "case gene"]
    ) -> tuple[Retrieval, float, Float32[np.ndarray, "case gene"]]:
        """Return the retrieval of the highest mean PCC over genes, that PCC and the prediction; the first of equals."""
        predicted = [self.predict(one) for one in retrievals]
        scores = [float(pcc_per_gene(one, measured)[0].mean()) for one in predicted]
        first = int(np.argmax(scores))
        return retrievals[first], scores[first], predicted[first]


def candidates(given: Retrieval, k: int | str | None, cases: int) -> list[Retrieval]:
    """Return the retrievals to choose from, of `cases` training cases: the given one, or each k that suits them."""
    if k is not None:
        return [given]
    limited = [replace(given, k=count).limited(cases) for count in CANDIDATES]
    return list(dict.fromkeys(limited))
