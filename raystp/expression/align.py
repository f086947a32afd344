"""Every section brought to one panel of genes, in one order; what a section lacks is 0 and counted, or refused."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import anndata as ad
import numpy as np
from jaxtyping import Float32

from raystp.errors import PanelError, some
from raystp.expression.normalise import log1p_cp10k
from raystp.expression.panel import absent_sentence


@dataclass(frozen=True)
class Aligned:
    """Sections in one gene order."""

    genes: list[str]
    expression: dict[str, Float32[np.ndarray, "_ gene"]]
    """Section -> log1p CP10k over all its genes, then the panel's columns."""
    filled: dict[str, int]
    """Section -> genes of the panel that it lacks, and that are 0 there."""
    dropped: list[str]
    """Genes of the panel that no training section has, under `absent="drop"`."""


def align(
    sections: Mapping[str, ad.AnnData],
    genes: Sequence[str],
    *,
    training: Collection[str],
    absent: Literal["refuse", "drop"] = "refuse",
    whole_transcriptome: bool = True,
) -> Aligned:
    """Return each section's expression of the panel `genes`, in the panel's order.

    A gene that no training section has cannot be learnt: PanelError, or it leaves the panel with `absent="drop"`. A
    gene that one section lacks is 0 there and counted, where sequencing would have seen it; in a targeted assay
    (`whole_transcriptome=False`) it was not measured, and is a PanelError.
    """
    unknown = sorted(set(training) - set(sections))
    if unknown or not training:
        msg = f"no such training section {some(unknown)}; there are {some(list(sections), 10)}"
        raise PanelError(msg if unknown else "a panel is aligned to training sections, and none is named")
    known = {str(gene) for name in training for gene in sections[name].var_names}
    missing = [gene for gene in genes if gene not in known]
    if missing and (absent == "refuse" or len(missing) == len(genes)):
        raise PanelError(absent_sentence(missing, len(genes), sorted(known)))
    kept = [gene for gene in genes if gene in known]
    lacking = {name: len(set(kept) - set(section.var_names)) for name, section in sections.items()}
    if not whole_transcriptome and any(lacking.values()):
        seen = ", ".join(f"'{name}' lacks {n}" for name, n in lacking.items() if n)
        msg = f"of {len(kept)} genes {seen}: a targeted assay did not measure them, so they are not 0; leave them out"
        raise PanelError(msg)
    expression = {name: _in_order(section, kept) for name, section in sections.items()}
    return Aligned(kept, expression, {name: n for name, n in lacking.items() if n}, missing)


def _in_order(section: ad.AnnData, genes: Sequence[str]) -> Float32[np.ndarray, "spot gene"]:
    places = section.var_names.get_indexer(list(genes))
    there = places >= 0
    filled = np.zeros((section.n_obs, len(genes)), dtype=np.float32)
    filled[:, there] = log1p_cp10k(section.X, columns=places[there])
    return filled
