"""Samples of spot-aware GeneQuery: one gene of one section, all its spots at once.

In every batch, sections are padded to the longest section, so that batches of several workers fit together. Gene-aware
GeneQuery is trained on spots (`PairDataset`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from raystp.errors import ModelError, some
from raystp.models.training.samples import to_device


@dataclass(frozen=True)
class SectionGenes:
    """Sections by number, padded; a sample is a gene that a section has measured. All on the model's device."""

    features: Float[Tensor, "section spot image"]
    expression: Float[Tensor, "section gene spot"]
    mask: Bool[Tensor, "section spot"]
    """False at padding."""
    samples: Int64[np.ndarray, "sample"]
    """Number of each sample: `section * genes + gene`."""

    @classmethod
    def of(
        cls,
        features: Sequence[Float[Tensor, "_ image"]],
        expression: Sequence[Float[Tensor, "_ gene"]],
        names: Sequence[str] | None = None,
    ) -> "SectionGenes":
        """Return the samples of some sections; raises ModelError for empty sections, and for nan or infinity.

        nan in the expression is a missing gene, which is no sample of its section.
        """
        named = list(names) if names is not None else [f"section {number}" for number in range(len(features))]
        _check(features, expression, named)
        longest = max(len(rows) for rows in features)
        padded = [torch.nn.functional.pad(rows, (0, 0, 0, longest - len(rows))) for rows in features]
        labels = [torch.nn.functional.pad(rows.T, (0, longest - len(rows))) for rows in expression]
        sizes = torch.tensor([len(rows) for rows in features], device=features[0].device)
        mask = torch.arange(longest, device=sizes.device) < sizes[:, None]
        measured = torch.stack([~torch.isnan(rows).all(dim=0) for rows in expression]).flatten()
        samples = np.flatnonzero(measured.cpu().numpy()).astype(np.int64)
        return cls(torch.stack(padded), torch.stack(labels), mask, samples)

    def at(self, rows: Int64[np.ndarray, "sample"]) -> tuple[Tensor, ...]:
        """Return the arguments of `GeneQuery.forward`: features and expression of all spots, the mask, and the gene."""
        chosen = to_device(self.samples[rows], self.mask.device)
        section, gene = chosen // self.expression.shape[1], chosen % self.expression.shape[1]
        return self.features[section], self.expression[section, gene], self.mask[section], gene

    def __len__(self) -> int:
        return len(self.samples)


def _check(features: Sequence[Tensor], expression: Sequence[Tensor], names: list[str]) -> None:
    seen = [[len(rows) for rows in side] for side in (features, expression)]
    if not seen[0] or seen[0] != seen[1] or len(names) != len(seen[0]):
        msg = (
            "each section needs a name, and features and expression of the same spots; got "
            f"{len(names)} names, and {seen[0]} and {seen[1]} spots"
        )
        raise ModelError(msg)
    empty = [name for name, rows in zip(names, features, strict=True) if not len(rows)]
    if empty:
        msg = f"{len(empty)} of {len(names)} sections have no spots ({some(empty)}): remove them"
        raise ModelError(msg)
    for what, side in (("image features", features), ("expression", expression)):
        wrong = torch.isinf if what == "expression" else _is_not_finite
        bad = {name: int(wrong(rows).any(dim=1).sum()) for name, rows in zip(names, side, strict=True)}
        if any(bad.values()):
            where = some([f"{name}: {count}" for name, count in bad.items() if count])
            msg = f"the {what} of {sum(bad.values())} spots hold nan or infinity ({where}): remove those spots"
            raise ModelError(msg)


def _is_not_finite(values: Tensor) -> Tensor:
    return ~torch.isfinite(values)
